"""The relay on a real broker and database: what is committed is in the log once, whatever happens to the relay."""

import secrets
import signal
from contextlib import closing
from dataclasses import replace
from threading import Event, Timer
from typing import Any

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from joblog.projections.outbox import rows as rows_module
from joblog.projections.outbox.relay import Relay
from joblog.projections.outbox.rows import OutboxRows
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.errors import SchemaError
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.metrics import Meters
from joblog.streams.outbox.log import NotCommitted, OutboxLog
from joblog.streams.outbox.marks import NOTHING, Mark, Row

from tests.support.outbox_world import DEADLINE_S, STEPS, OutboxWorld

pytestmark = [pytest.mark.broker, pytest.mark.database]

LARGE = 20_000


class _Never(Event):
    """A stop that never comes, and for which nobody should wait."""

    def wait(self, timeout: float | None = None) -> bool:
        raise AssertionError(f"waited {timeout} s instead of relaying")


def relay_all(world: OutboxWorld, relay: Relay) -> None:
    while world.waiting():
        relay.step(_Never())


def test_what_is_committed_is_relayed_at_once_and_in_order_as_a_client_would_have_sent_it(
    world: OutboxWorld, wait_until: Any
) -> None:
    meters = Meters()
    with world.relaying(meters=meters), world.connect() as connection:
        wait_until(lambda: meters.registry.get_sample_value("joblog_outbox_rows") is not None, DEADLINE_S, "a relay")
        outbox = world.outbox(connection)
        jobs = [outbox.enqueue("x", 1), *outbox.enqueue_many("x", [((n,), {}) for n in range(2_500)])]
        outbox.delete(jobs[0])
        connection.commit()
        jobs.append(jobs[0])
        wait_until(lambda: world.waiting() == 0, DEADLINE_S, "all rows to be relayed")
        connection.rollback()
    assert world.relayed() == jobs  # of one queue, and so in one lane
    first, last = world.records()[0], world.records()[-1]
    assert (first.partition(), last.partition()) == (lane_of_job(jobs[0]),) * 2
    assert b'"type":"job.create"' in (first.value() or b"")
    assert b'"type":"job.delete"' in (last.value() or b"")
    assert meters.registry.get_sample_value("joblog_outbox_relayed_total") == len(jobs)
    assert meters.registry.get_sample_value("joblog_outbox_lag_seconds_count") == len(jobs)


def test_a_relay_that_is_killed_between_any_two_steps_leaves_everything_once_in_the_log(world: OutboxWorld) -> None:
    jobs = []
    with world.connect(autocommit=True) as connection:
        for step in STEPS:
            jobs += world.outbox(connection).enqueue_many("x", [((n,), {}) for n in range(20)])
            assert world.die_at(step) == -signal.SIGKILL, step
    with closing(world.relay()) as relay:
        relay_all(world, relay)
    assert world.relayed() == jobs


def test_a_relay_that_stands_by_takes_over_from_one_that_hangs_and_a_zombie_commits_nothing(
    world: OutboxWorld, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = Health("outbox")
    monkeypatch.setattr(rows_module, "IDLE_S", 1)
    with world.connect(autocommit=True) as connection, closing(world.relay()) as zombie:
        jobs = [world.outbox(connection).enqueue("x")]
        relay_all(world, zombie)
        jobs.append(world.outbox(connection).enqueue("x"))
        assert zombie._rows is not None
        assert zombie._log is not None
        taken = zombie._rows.waiting(10)  # and now it stands still
        monkeypatch.undo()
        with world.relaying(health=health):
            wait_until(lambda: health.ready, DEADLINE_S, "the other relay to stand by")
            assert world.waiting() == 1
            wait_until(lambda: world.waiting() == 0, DEADLINE_S, "the other relay to relay")
            with pytest.raises(NotCommitted):
                zombie._log.send(taken)
    assert world.relayed() == jobs


def test_the_open_transaction_of_another_outbox_does_not_hide_the_mark(world: OutboxWorld) -> None:
    rows = [Row(1, world.lanes, 0, "job", b"command", 0.0)]
    other = clients.transactional_producer(world.kafka, f"{world.names.prefix}outbox-other")
    other.init_transactions(DEADLINE_S)
    with closing(OutboxLog(world.kafka, world.names, "this")) as first:
        assert first.open(lambda: True) == NOTHING
        other.begin_transaction()
        other.produce(world.names.outbox, b"{}", b"other", 0)
        assert other.flush(DEADLINE_S) == 0
        first.send(rows)
    done = Timer(1, other.abort_transaction)
    done.start()
    with closing(OutboxLog(world.kafka, world.names, "this")) as second:
        assert second.open(lambda: True) == Mark.of(rows)
    done.join()


def test_rows_that_can_never_be_relayed_are_parked_with_the_reason_and_the_others_go_on(
    world: OutboxWorld, wait_until: Any
) -> None:
    meters, relayed = Meters(), []
    with (
        world.connect(autocommit=True) as connection,
        OutboxRows(world.dsn, world.schema) as rows,
        closing(world.relay(meters=meters)) as relay,
    ):

        def parked() -> dict[str, str]:
            relay_all(world, relay)
            return {one.job_id: one.error for one in rows.parked(10)}

        def is_parked(value: Any, *, between: int) -> bool:
            """Whether a row with this value is parked, and those around it are relayed."""
            before = [world.outbox(connection).enqueue("x", n) for n in range(between)]
            job = world.outbox(connection).enqueue("x", value)
            after = [world.outbox(connection).enqueue("x", n) for n in range(between)]
            found = job in parked()
            relayed.extend([*before, *after] if found else [*before, job, *after])
            return found

        wrong = replace(world, lanes=world.lanes + 1).outbox(connection).enqueue("x")
        assert f"{world.lanes + 1} lanes, but there are {world.lanes}" in parked()[wrong]
        limit_records(world, LARGE)  # which the broker does a moment later
        wait_until(lambda: is_parked(random_text(LARGE), between=2), DEADLINE_S, "a record to be too large")
        ((_, first), (large, why)) = parked().items()
        assert "lanes" in first
        assert "too large" in why
        limit_records(world, 10 * LARGE)
        assert rows.discard([rows.parked(1)[0].id]) == 1
        wait_until(lambda: rows.retry(None) == 1 and parked() == {}, DEADLINE_S, "the record to be taken")
    assert world.relayed() == [*relayed, large]
    assert (meters.registry.get_sample_value("joblog_outbox_parked_total") or 0) >= 2


def test_a_relay_without_an_outbox_says_how_to_make_one(world: OutboxWorld) -> None:
    nowhere = OutboxWorld(world.kafka, world.dsn, world.names, world.lanes, f"{world.schema}_x")
    with pytest.raises(SchemaError, match="joblog outbox create"):
        nowhere.relay().run(Event())


def limit_records(world: OutboxWorld, size: int) -> None:
    """Let the topic `commands` take records up to this size."""
    change = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ResourceType.TOPIC, world.names.commands, incremental_configs=[change])
    client = clients.admin(world.kafka)
    client.incremental_alter_configs([topic])[topic].result(DEADLINE_S)


def random_text(length: int) -> str:
    """A text that does not become shorter when it is compressed."""
    return secrets.token_hex(length)
