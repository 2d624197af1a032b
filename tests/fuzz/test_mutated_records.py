"""Tens of thousands of records made wrong, through every reader there is: nothing raises, and each is accounted for.

No broker, no database; what they refuse is refused by tests/support/memory_broker.py. An `internal_error` is a
failure here: it would mean that something came out of Joblog that nobody foresaw.

JOBLOG_FUZZ_SEED (1) chooses other mutations, JOBLOG_FUZZ_RECORDS (60000) how many there are.
"""

import logging
import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from math import ceil
from random import Random
from typing import Any, Final

import pytest
from joblog.projections.projector import rows
from joblog.projections.projector.blocks import blocks_of
from joblog.projections.projector.decode import JobFact
from joblog.projections.projector.event_batch import Entries, Parked
from joblog.projections.projector.event_batch import Record as Event
from joblog.services.tasks.task import ArgumentsError
from joblog.services.worker.assignments import Assignments, ReadProgress, Unreadable
from joblog.services.worker.execution.arguments import read_call
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode, read_command, read_report
from joblog.streams.contract.ids import lane_of_queue
from joblog.streams.contract.record_headers import readable_headers
from joblog.streams.contract.states import State
from joblog.streams.contract.topics import DEADLETTERS
from joblog.streams.contract.unreadable import NOT_READABLE, failed_by_assignment
from joblog.streams.delays.firing import Firing
from joblog.streams.delays.partition import Partition, decode_timer
from joblog.streams.delays.wheel import Shelf
from joblog.streams.elector.failed_records import RecordFailed
from joblog.streams.elector.lane_records import read_state
from joblog.streams.lane.job import Job, evolve
from joblog.streams.metrics import Meters
from msgspec import json, structs

from tests.support.lane_world import World, reread
from tests.support.memory_broker import NAMES, MemoryBroker, MemoryElector, Record, Taken
from tests.support.mutations import Written, mutated
from tests.support.real_records import LANES, Producers, lane_of, recorded
from tests.support.scene import NOW

SEED: Final = int(os.environ.get("JOBLOG_FUZZ_SEED", "1"))
RECORDS: Final = int(os.environ.get("JOBLOG_FUZZ_RECORDS", "60000"))
BATCH: Final = 50
#: The largest number in a column of type integer.
INTEGER_MAX: Final = 2**31 - 1
#: Reports that may lead to no event.
WITHOUT_EVENTS: Final = (
    *(wire.WorkerAnnounced, wire.WorkerStopping, wire.ContinuationAdded, wire.ContinuationUnmet, wire.ParentRequeued),
    *(wire.LimitReport, wire.LimitsForgotten, wire.LimitsRebuilt, wire.QueueLimitReport),
    *(wire.BatchAwaited, wire.BatchCounted, wire.BatchTold, wire.QueueElsewhere, wire.ParentFound),
)
DEAD: Final = NAMES.of(DEADLETTERS)


def parts(share: float, count: int) -> Any:
    """So much of all records, in so many tests, which run beside each other."""
    each = ceil(RECORDS * share / count)
    return pytest.mark.parametrize(("part", "count"), [(part, each) for part in range(count)])


@pytest.fixture(autouse=True)
def without_logs() -> Iterator[None]:
    """A traceback for each of so many records costs more than the records."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def chance(what: str, part: int) -> Random:
    print(f"JOBLOG_FUZZ_SEED={SEED}")  # pytest shows it with a failure
    return Random(f"{SEED}/{what}/{part}")


def shown(one: Written) -> str:
    return f"{one.topic}, {one.mutation}: key={one.key!r:.100} value={one.value!r:.2000} headers={one.headers!r:.500}"


# --- commands and reports: the elector ---


class Installation:
    """Lanes in which mutated records come in among real ones, and jobs beside them that must end well."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.broker = MemoryBroker(LANES)
        self.elector = MemoryElector(self.broker)
        self.producers = Producers(self.broker, random)
        self.beside = Beside(self.broker, random)
        self.mutations: dict[int, Written] = {}
        self.folds: dict[str, Job] = {}
        self.outcomes: Counter[str] = Counter()
        self._events_read = dict.fromkeys(range(LANES), 0)

    def write(self, one: Written) -> None:
        record = self.broker.append(
            f"{NAMES.prefix}{one.topic}", lane_of(one, self.random), one.key, one.value, one.headers
        )
        self.mutations[id(record)] = one

    def turn(self) -> None:
        self.beside.speak()
        try:
            taken = self.elector.turn()
        except RecordFailed as error:
            topic, lane, offset = error.place
            record = self.broker.logs[topic, lane][offset]
            raise AssertionError(f"nobody foresaw {error.error.details}\n{self._described(record)}") from error
        for one in taken:
            try:
                self.outcomes[outcome(one)] += 1
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self._described(one.record)}\n{one}") from error
        self._project()
        self._check()

    def _described(self, record: Record) -> str:
        one = self.mutations.get(id(record))
        return shown(one) if one is not None else f"not mutated: {record}"

    def _project(self) -> None:
        """All that was written can be read, and kept in Postgres."""
        events: list[Event] = []
        for lane in range(LANES):
            log = self.broker.logs[NAMES.events, lane]
            new = log[self._events_read[lane] :]
            events += [Event(lane, one.offset_, NOW, one.value_) for one in new]
            self._events_read[lane] = len(log)
        for record, fact in Entries(events):
            assert not isinstance(fact, Parked), (fact.code, fact.reason, record.value)
            check_carried(fact)
            if isinstance(fact, JobFact):
                self._fold(fact)
        pack(events)
        for row in projected(events):
            check_row(row)

    def _fold(self, fact: JobFact) -> None:
        """Versions have no gaps, from a job's first event or its revival on; each leads to one state."""
        event, before = reread(structs.replace(fact.event, spec=None)), self.folds.get(fact.job)
        if before is not None and before.version:
            assert event.version == before.version + 1, (fact.job, before.version, event)
            self.folds[fact.job] = evolve(before, event, NOW)
        else:
            job = Job(fact.job, event.queue, event.task, event.state, event.version, event.attempt, 0, NOW, b"{}")
            self.folds[fact.job] = job

    def _check(self) -> None:
        world = World.__new__(World)  # for what it checks of one lane
        for number, lane in self.elector.lanes.items():
            world._check_holders(lane)
            world._check_waiting(lane)
            kept = self.elector.state[number]
            assert lane.jobs.keys() == {key for key in kept if ":" not in key and key != "lane"}
            for job_id, job in lane.jobs.items():
                fold = self.folds[job_id]
                assert (job.state, job.version, job.attempt) == (fold.state, fold.version, fold.attempt)


class Beside:
    """A worker and jobs of its own, which nobody mutates."""

    def __init__(self, broker: MemoryBroker, random: Random) -> None:
        self._producers = Producers(broker, random, "beside@host:8:cd34")
        self._broker = broker
        self.jobs: set[str] = set()
        self.is_asked = True

    def speak(self) -> None:
        """Announce the worker, end its runs, and ask for another job in each lane."""
        producers = self._producers
        for lane in range(LANES):
            queue = BESIDE[lane]
            said = producers.announced(lane, queues=(queue,), all_queues=tuple(BESIDE), slots=1_000)
            self._broker.append(NAMES.reports, lane, b"w", encode(said), None)
            if self.is_asked:
                job_id = producers.new_id(lane)
                self.jobs.add(job_id)
                create = producers.sent(wire.CreateJob("t", queue=queue, job_id=job_id))
                self._broker.append(NAMES.commands, lane, create.key, create.value, create.headers)
        producers.listen()
        for run in producers.runs:
            done = wire.RunSucceeded(
                job_id=run.job_id, lease=run.lease, worker=producers.worker, duration_ms=1.0, started_ms=NOW
            )
            self._broker.append(NAMES.reports, run.lane, b"k", encode(done), None)
        producers.runs.clear()


BESIDE: Final = [
    next(f"beside-{n}" for n in range(1_000) if wire_lane == lane_of_queue(f"beside-{n}", LANES))
    for wire_lane in range(LANES)
]


def outcome(taken: Taken) -> str:
    """What became of a record; AssertionError if that is nothing, or two things at once."""
    kinds = [kind for _, kind, *_ in taken.events]
    assert "internal_error" not in taken.parked
    assert not [
        data for _, kind, _, data, *_ in taken.events if kind == "command.rejected" and data.code == "internal_error"
    ]
    assert len(taken.parked) <= 1
    if taken.record.topic_ == NAMES.commands:
        if taken.parked:
            assert kinds == ["command.rejected"]
            return f"parked {taken.parked[0]}"
        assert taken.is_forwarded != bool(kinds) or leads_to_nothing(taken.record)
        if taken.is_forwarded:
            return "forwarded"
        assert kinds == ["command.rejected"] or "command.rejected" not in kinds
        return "rejected" if kinds == ["command.rejected"] else "decided"
    assert "command.rejected" not in kinds
    assert not kinds or not taken.stale
    if taken.parked:
        return f"parked {taken.parked[0]}{', its run failed' if kinds else ''}"
    if taken.stale:
        assert taken.stale == 1
        return "stale"
    if not kinds:
        report = read_report(taken.record.value_)
        assert isinstance(report, WITHOUT_EVENTS)
    return "decided"


def leads_to_nothing(record: Record) -> bool:
    """Whether it is a command that events tell of only when the turn has ended, or that may be said twice."""
    received = read_command(record.value_, readable_headers(record))  # type: ignore[arg-type]
    return isinstance(received.command, wire.BatchCommand | wire.AdvanceBulk)


def pack(events: list[Event]) -> None:
    """Make the blocks that the projector copies; raises struct.error for a number that no column holds."""
    while events:
        batch = Entries(events).batch()
        if batch.is_regular:
            for _, parts in blocks_of(batch.jobs.values()):
                b"".join(parts)
        events = events[batch.length :]


def projected(events: list[Event]) -> list[tuple[Any, ...]]:
    """What the projector makes of these events, as rows; without the ids of processes, which have more bits."""
    made: list[tuple[Any, ...]] = []
    while events:
        batch = Entries(events).build({})
        made += [rows.job_row(row) for row in batch.jobs.values()]
        made += [rows.staged_event(*one) for one in batch.history or ()]
        made += [tuple({**rows.worker_row(*one), "pid": 0}.values()) for one in batch.workers.values()]
        made += [tuple(rows.rejected_row(*one).values()) for one in batch.rejected]
        made += [tuple(rows.parked_row(one).values()) for one in batch.parked]
        events = events[batch.length :]
    return made


def check_row(row: tuple[Any, ...]) -> None:
    """Postgres takes such values."""
    for value in row:
        if isinstance(value, str):
            value.encode()
            assert "\x00" not in value
        elif type(value) is int:
            assert value <= INTEGER_MAX or value in range(NOW, 2 * NOW), row


def check_carried(fact: Any) -> None:
    """Whoever reads the tables can read the JSON that is carried through to them."""
    if isinstance(fact, JobFact):
        for carried in (fact.event.result, fact.event.value, fact.spec or b"null"):
            json.decode(carried)


@parts(0.7, 20)
def test_lanes_decide_reject_or_park_every_record_and_go_on(part: int, count: int) -> None:
    random = chance("lanes", part)
    made = Installation(random)
    producers = made.producers
    others = [one for topic in ("events", "assignments", "delay.now", "state") for one in recorded(topic)]
    for number in range(ceil(count / BATCH)):
        for _ in range(BATCH):
            real = producers.command() if random.random() < 0.5 else producers.report()
            if random.random() < 0.02:
                real = replace(random.choice(others), topic=real.topic)
            one = mutated(random, real)
            made.write(replace(one, topic=one.topic if one.topic in {"commands", "reports"} else real.topic))
        for _ in range(5):
            made.write(producers.command())
            made.write(producers.report())
        if number % 20 < 15:
            made.broker.append(NAMES.reports, number % 2, b"w", encode(producers.announced(number % 2)), None)
        made.turn()
        made.broker.now_ms += random.choice([50, 500, 3_000, 8_000])
    print(made.outcomes)
    made.beside.is_asked = False
    for _ in range(3):
        made.turn()
    assert {made.folds[job].state for job in made.beside.jobs} == {State.SUCCEEDED}
    for number, lane in made.elector.lanes.items():
        assert made.elector.reloaded(number).jobs == lane.jobs
    dead = made.broker.logs[DEAD, 0]
    assert len(dead) == sum(count for what, count in made.outcomes.items() if what.startswith("parked"))
    expected = {"decided", "rejected", "stale", "forwarded", "parked undecodable", "parked invalid_data"}
    assert expected <= made.outcomes.keys()


# --- events: the projector ---


@parts(0.14, 4)
def test_the_projector_reads_or_parks_every_event(part: int, count: int) -> None:
    random = chance("events", part)
    real = recorded("events")
    outcomes: Counter[str] = Counter()
    for start in range(0, count, BATCH):
        sent = [mutated(random, random.choice(real)) for _ in range(BATCH)]
        events = [Event(0, start + n, NOW, one.value, readable_headers(as_record(one))) for n, one in enumerate(sent)]
        for one, (record, fact) in zip(sent, Entries(events), strict=True):
            code = fact.code if isinstance(fact, Parked) else "read"
            assert code != "internal_error", f"{fact.reason}\n{shown(one)}"  # type: ignore[union-attr]
            outcomes[code] += 1
            try:
                check_carried(fact)
                projected([record])
                with suppress(struct.error):  # such an event is parked by itself
                    pack([record])
            except Exception as error:
                raise AssertionError(shown(one)) from error
        projected(events)
        with suppress(struct.error):
            pack(events)
    assert outcomes.keys() == {"read", "undecodable", "invalid_data", "unknown_type"}
    assert sum(outcomes.values()) >= count


def as_record(one: Written) -> Record:
    return Record(one.topic, 0, 0, one.key, one.value, one.headers, NOW)


# --- timers: the delays process ---


@parts(0.08, 2)
def test_the_delays_fire_move_or_park_every_timer(part: int, count: int) -> None:
    random = chance("timers", part)
    real = recorded("delay.now")
    broker, now_ms = MemoryBroker(LANES), NOW
    meters = Meters()
    firing = Firing(broker, NAMES, meters, lambda: now_ms / 1000)  # type: ignore[arg-type]
    for start in range(0, count, BATCH):
        tier = random.choice(["now", "now", "1m", "7d"])
        partition = Partition(NAMES.delay(tier), 1, tier, Shelf(10_000), 0)
        sent = [mutated(random, random.choice(real)) for _ in range(BATCH)]
        for one in sent:
            partition.keep(broker.append(f"in.{start}", 1, one.key, one.value, one.headers), now_ms)  # type: ignore[arg-type]
        before = {place: len(log) for place, log in broker.logs.items()}
        for now_ms in (NOW, NOW + 60_000, NOW + 8 * 86_400_000, 2**54):
            firing.send(partition, now_ms)
        left = {place: log[before.get(place, 0) :] for place, log in broker.logs.items()}
        assert sum(map(len, left.values())) == BATCH
        assert (len(partition.shelf), partition.shelf.position) == (0, BATCH)
        for (topic, _), records in left.items():
            for record in records:
                if topic == NAMES.reports:
                    assert isinstance(read_report(record.value_), wire.JobDue)
                elif topic == DEAD:
                    assert dict(record.headers_)["joblog-reason-code"] in {b"undecodable", b"invalid_data"}
                else:
                    decode_timer(record.value_ or b"")


# --- assignments: the worker ---


class Assigned(list[Record]):
    """A consumer of these records."""

    def poll(self, _timeout_s: float) -> Record:
        return self.pop(0)

    def consume(self, _count: int, _timeout_s: float) -> list[Record]:
        found, self[:] = list(self), []
        return found


@parts(0.05, 2)
def test_a_worker_reads_reports_or_counts_every_assignment(part: int, count: int) -> None:
    random = chance("assignments", part)
    real = recorded("assignments")
    broker, key = MemoryBroker(LANES), real[0].key or b""
    for _ in range(0, count, BATCH):
        sent = [mutated(random, random.choice(real)) for _ in range(BATCH)]
        mine = [one if one.mutation == "key" else replace(one, key=key) for one in sent]
        reader = Assignments(
            Assigned(map(as_record, mine)), key.decode(), LANES, Meters(), ReadProgress(0, 0.0), None
        )  # type: ignore[arg-type]
        found = reader.take(0)
        assert len(found) == sum(one.key == key for one in mine)
        for record, said in found:
            if isinstance(said, Unreadable):
                assert (said.code, said.error) == ("undecodable", None)
                made_out = failed_by_assignment(record.value(), key.decode(), said.reason)
                if made_out is not None and made_out[0] < LANES:
                    lane, report = made_out
                    broker.produce(NAMES.reports, encode(report), report.job_id, lane)
            elif isinstance(said, wire.RunJob):
                released = wire.RunReleased(job_id=said.job_id, lease=said.lease, worker=key.decode(), reason="no")
                broker.produce(NAMES.reports, encode(released), said.job_id, said.lane)
                with suppress(ArgumentsError):
                    read_call(said.spec)


# --- state: who takes a lane over ---


@parts(0.03, 1)
def test_a_record_of_state_is_read_or_refused(part: int, count: int) -> None:
    random = chance("state", part)
    real = [one for one in recorded("state") if one.value is not None]
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        one = mutated(random, random.choice(real))
        try:
            read_state((one.key or b"").decode(), one.value or b"")
        except NOT_READABLE:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
    assert outcomes.keys() == {"refused", "read"}
