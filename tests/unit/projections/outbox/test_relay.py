"""The relay's rule, by property: whatever fails at whichever step, what was committed is once in the log."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.projections.outbox import relay as relaying
from joblog.projections.outbox.relay import Relay
from joblog.projections.outbox.rows import Status
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.outbox.log import NotCommitted, RowsRefused
from joblog.streams.outbox.marks import NOTHING, Mark, Row

AWAY = psycopg.OperationalError("the connection is lost")
UNKNOWN = NotCommitted("nobody knows")


@dataclass
class World:
    """A database and a log. Of each call, `fates` says whether it fails before it is done, or after, or not."""

    fates: list[str] = field(default_factory=list)
    refused: frozenset[int] = frozenset()
    rows: dict[int, Row] = field(default_factory=dict)
    parked: dict[int, str] = field(default_factory=dict)
    log: list[int] = field(default_factory=list)
    mark: Mark = NOTHING
    epoch: int = 0
    is_locked: bool = False

    def commit(self, *ids: int) -> None:
        self.rows |= {row_id: Row(row_id, 2, 0, f"job-{row_id}", b"%d" % row_id, 0.0) for row_id in ids}

    def do(self, change: Callable[[], None], error: Exception) -> None:
        fate = self.fates.pop() if self.fates else "done"
        if fate == "lost":
            raise error
        change()
        if fate == "unknown":
            raise error


class Rows:
    """A connection to the world's outbox."""

    identity = "outbox"

    def __init__(self, world: World) -> None:
        self.world = world
        self.has_lock = False

    def close(self) -> None:
        self.world.is_locked &= not self.has_lock

    def lock(self) -> bool:
        self.has_lock |= not self.world.is_locked
        self.world.is_locked |= self.has_lock
        return self.has_lock

    def ping(self) -> None: ...

    def wait(self, timeout_s: float) -> bool:
        return timeout_s > 0

    def status(self) -> Status:
        return Status(len(self.world.rows), None, len(self.world.parked))

    def waiting(self, limit: int) -> list[Row]:
        found: list[Row] = []
        self.world.do(lambda: found.extend(sorted(self.world.rows.values())[:limit]), AWAY)
        return found

    def named(self, ids: Sequence[int]) -> list[Row]:
        return [self.world.rows[row_id] for row_id in ids if row_id in self.world.rows]

    def delete(self, ids: Sequence[int]) -> None:
        self.world.do(lambda: [self.world.rows.pop(row_id, None) for row_id in ids] and None, AWAY)

    def park(self, row_id: int, error: str) -> None:
        def park() -> None:
            self.world.parked[row_id] = error
            del self.world.rows[row_id]

        self.world.do(park, AWAY)


class Log:
    """The log of the world's outbox: who opened it last may write."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.epoch = 0

    def open(self, goes_on: Callable[[], bool]) -> Mark:
        assert goes_on()
        self.world.epoch += 1
        self.epoch = self.world.epoch
        return self.world.mark

    def close(self) -> None: ...

    def send(self, rows: Sequence[Row]) -> None:
        if self.epoch != self.world.epoch:
            raise NotCommitted("fenced")
        if any(row.id in self.world.refused for row in rows):
            raise RowsRefused("too large")

        def commit() -> None:
            self.world.log += [row.id for row in rows]
            self.world.mark = Mark.of(rows)

        self.world.do(commit, UNKNOWN)


def relay_in(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    batch_max: int = 3,
    health: Health | None = None,
    meters: Meters | None = None,
) -> Relay:
    monkeypatch.setattr(relaying, "OutboxRows", lambda *_: Rows(world))
    monkeypatch.setattr(relaying, "OutboxLog", lambda *_: Log(world))
    return Relay(
        KafkaConfig("x:1"),
        TopicNames(),
        2,
        "",
        "s",
        meters=meters or Meters(),
        health=health or Health("outbox"),
        batch_max=batch_max,
    )


def run(relay: Relay, world: World) -> None:
    """Steps until nothing is left; after an error the relay begins anew, as `run` lets it."""
    while world.rows:
        try:
            relay.step(Event())
        except (psycopg.Error, NotCommitted):
            relay.close()


FATES = st.lists(st.sampled_from(["lost", "unknown", "done"]), max_size=30)


@given(FATES, st.integers(0, 20), st.integers(1, 5), st.frozensets(st.integers(1, 20), max_size=3))
def test_every_row_is_once_in_the_log_or_parked(
    fates: list[str], count: int, batch_max: int, refused: frozenset[int]
) -> None:
    world = World(fates, refused)
    world.commit(*range(1, count + 1))
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(relay_in(world, monkeypatch, batch_max), world)
    there = set(range(1, count + 1))
    assert world.log == sorted(there - refused)
    assert world.parked.keys() == there & refused


@given(FATES, st.lists(st.sampled_from(["first", "second", "lost session"]), max_size=40))
def test_two_relays_together_relay_no_row_twice(fates: list[str], turns: list[str]) -> None:
    world = World(fates)
    world.commit(*range(1, 11))
    with pytest.MonkeyPatch.context() as monkeypatch:
        relays = {name: relay_in(world, monkeypatch) for name in ("first", "second")}
        for turn in turns:
            if turn == "lost session":
                world.is_locked = False  # the server has ended the session, and its relay does not know it yet
                continue
            try:
                relays[turn].step(_Now())
            except (psycopg.Error, NotCommitted):
                relays[turn].close()
        relays["first"].close()
        run(relays["second"], world)
    assert world.log == list(range(1, 11))


class _Now(Event):
    """A stop for which nobody waits."""

    def wait(self, timeout: float | None = None) -> bool:
        return timeout == 0


def test_a_row_that_becomes_visible_late_is_relayed_late(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    relay = relay_in(world, monkeypatch)
    world.commit(2, 3)
    relay.step(Event())
    world.commit(1)
    relay.step(Event())
    assert world.log == [2, 3, 1]


def test_a_relay_that_stands_by_is_ready_and_relays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world, health = World(is_locked=True), Health("outbox")
    world.commit(1)
    relay = relay_in(world, monkeypatch, health=health)
    assert relay.step(_Now()) == 0
    assert health.ready
    assert world.log == []
    world.is_locked = False
    assert relay.step(_Now()) == 1


def test_a_step_back_is_counted_by_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "BACKOFF_FIRST_S", 0.001)
    meters, health, stop = Meters(), Health("outbox"), Event()
    world = World(["done", "done", "done", "unknown", "lost"])
    world.commit(1)
    relay = relay_in(world, monkeypatch, health=health, meters=meters)
    monkeypatch.setattr(relay, "_wait", lambda *_: stop.set())
    relay.run(stop)
    assert world.log == [1]
    assert meters.registry.get_sample_value("joblog_db_errors_total", {"role": "outbox", "sqlstate": "08"}) == 2
    assert (health.ready, health.reason) == (False, "stopped")


def test_what_kafka_says_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "BACKOFF_FIRST_S", 0.001)
    meters, stop = Meters(), Event()
    world = World(["done", "done", "unknown", "done"])
    world.commit(1)
    relay = relay_in(world, monkeypatch, meters=meters)
    monkeypatch.setattr(relay, "_wait", lambda *_: stop.set())
    relay.run(stop)
    assert world.log == [1]
    assert meters.registry.get_sample_value("joblog_kafka_errors_total", {"role": "outbox", "code": "_STATE"}) == 1
    assert meters.registry.get_sample_value("joblog_producer_rebuilds_total", {"role": "outbox"}) == 1


def test_a_count_that_takes_too_long_does_not_stop_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    def canceled(_rows: Rows) -> Status:
        raise psycopg.errors.QueryCanceled("too long")

    monkeypatch.setattr(Rows, "status", canceled)
    world = World()
    world.commit(1)
    assert relay_in(world, monkeypatch).step(Event()) == 1


def test_rows_behind_parked_ones_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.commit(1, 2)
    world.rows[1] = world.rows[1]._replace(lanes=9)
    relay = relay_in(world, monkeypatch, batch_max=1)
    monkeypatch.setattr(relay, "_wait", lambda *_: pytest.fail("there are rows"))
    relay.step(Event())
    relay.step(Event())
    assert (world.log, [*world.parked]) == ([2], [1])
