"""Relays of an outbox are killed under load: each committed job comes into the log once, in its writer's order."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from joblog.services.outbox.outbox import Outbox

from tests.support.outbox_world import OutboxWorld, outbox_of

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(120)]

RELAYS = ["outbox-1", "outbox-2"]
WRITERS = 2
KILLS = 4
PAUSE_S = 0.5


class Writer(threading.Thread):
    """A service that creates jobs in transactions, of which it rolls some back; keeps those that it committed."""

    def __init__(self, world: OutboxWorld, number: int, done: threading.Event) -> None:
        super().__init__(daemon=True)
        self.world, self.number, self.done = world, number, done
        self.committed: list[str] = []

    def run(self) -> None:
        chance = random.Random(self.number)
        settings = self.world.settings
        with self.world.connect() as connection:
            while not self.done.wait(0.01):
                jobs = []
                outbox = Outbox(connection, settings)
                for _ in range(chance.randint(1, 4)):
                    if chance.random() < 0.02:
                        jobs += outbox.enqueue_many("ok", [((n,), {}) for n in range(100)])
                    else:
                        jobs.append(outbox.enqueue("ok", self.number))
                if chance.random() < 0.2:
                    connection.rollback()
                else:
                    connection.commit()
                    self.committed += jobs


@contextmanager
def writing(world: OutboxWorld) -> Iterator[list[Writer]]:
    done = threading.Event()
    writers = [Writer(world, number, done) for number in range(WRITERS)]
    for one in writers:
        one.start()
    try:
        yield writers
    finally:
        done.set()
        for one in writers:
            one.join(20)
            assert not one.is_alive()


def test_what_was_committed_is_once_in_the_log_however_often_relays_are_killed(
    installation: Any, wait_until: Any, killer: Any
) -> None:
    world = outbox_of(installation)
    world.create()
    installation.extra["JOBLOG_OUTBOX__SCHEMA_NAME"] = installation.schema
    for relay in RELAYS:
        installation.start(relay)
    with writing(world) as writers:
        wait_until(world.relayed, 20, "the first rows to be relayed")
        kills = killer(installation, RELAYS * (KILLS // 2), PAUSE_S)
        kills.start()
        kills.join(60)
        assert kills.error == ""
        assert installation.kills.total() == KILLS
    wait_until(lambda: world.waiting() == 0, 20, "all rows to be relayed")
    committed = sum(len(one.committed) for one in writers)
    # The last transactions are committed before readers see them.
    relayed = wait_until(lambda: len(found := world.relayed()) >= committed and found, 20, "the log to have all")
    assert len(relayed) == len(set(relayed))
    for one in writers:
        mine = set(one.committed)
        assert len(mine) > 100
        assert [job for job in relayed if job in mine] == one.committed
    assert len(relayed) == committed
    assert all(process.poll() is None for process in installation.roles.values())
