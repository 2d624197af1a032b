"""Overlap across the end of a process, or an answer of Kafka that does not come, in the midst of creating a job."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import KafkaError, KafkaException
from joblog.streams.contract.recurring import Definition, Overlap, Progress
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.recurring.held import Held
from joblog.streams.recurring.jobs import Installation
from joblog.streams.recurring.membership import Read
from joblog.streams.recurring.process import Recurring
from joblog.streams.recurring.rows import encode_aspect
from joblog.streams.recurring.sender import Record

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = TopicNames("t.")


class Killed(Exception):
    """Stands for the end of the process."""


class Kafka:
    """What was written; the first send to the topic `fails` raises this error, after or before it has written."""

    def __init__(self, fails: str = "", error: Exception | None = None, *, is_written: bool = True) -> None:
        self.records: list[Record] = []
        self._fails, self._error, self._is_written = fails, error, is_written

    def send(self, records: Sequence[Record]) -> datetime | None:
        error = self._error if records and records[0].topic == f"t.{self._fails}" else None
        if error is None or self._is_written:
            self.records += records
        if error is not None:
            self._error = None
            raise error
        return START

    def commands(self) -> list[str]:
        return [str(record.key) for record in self.records if record.topic == NAMES.commands]


class Jobs:
    """What `events` say: the jobs that have come, of which none has ended, and those that were rejected."""

    def __init__(self) -> None:
        self.come: set[str] = set()
        self.rejected: set[str] = set()
        self.watched: set[str] = set()

    def watch(self, jobs: Mapping[str, datetime]) -> None:
        self.watched = set(jobs)

    def expect(self, jobs: Mapping[str, datetime]) -> None:
        self.watched |= set(jobs)

    def has_come(self, job_id: str) -> bool | None:
        return job_id in self.come if job_id in self.watched else None

    def is_running(self, job_id: str) -> bool | None:
        return job_id not in self.rejected if job_id in self.watched else None


def process_of(kafka: Kafka, jobs: Jobs, minutes: float, *read: Record) -> Recurring:
    """A process that has read these records, so many minutes after the definition's start."""
    where = Installation(2, {}, {})
    made = Recurring(KafkaConfig("127.0.0.1:1"), NAMES, where, meters=Meters(), health=Health("recurring"))
    made._sender, made._endings = kafka, jobs  # type: ignore[assignment]
    made._clock = lambda: START + timedelta(minutes=minutes)
    made._held[0] = Held(is_marked=True, is_ready=True)
    for record in read:
        if record.topic == NAMES.recurring:
            made._take(Read(0, 0, str(record.key).encode(), record.value, []))
    return made


def definition(overlap: Overlap) -> Record:
    made = Definition(id="a", schedule="* * * * *", task="t", starts_at=START, overlap=overlap)
    return Record(NAMES.recurring, 0, "a", encode_aspect(made))


def progress(process: Recurring) -> Progress:
    found = process._held[0].rows.rows["a"].progress
    assert found is not None
    return found


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE])
def test_a_job_is_not_forgotten_whose_process_was_killed_before_it_noted_the_creation(overlap: Overlap) -> None:
    first, jobs = Kafka("commands", Killed()), Jobs()
    with pytest.raises(Killed):
        asyncio.run(process_of(first, jobs, 1, definition(overlap))._tick())
    [job_id] = first.commands()
    jobs.come.add(job_id)
    second = Kafka()
    process = process_of(second, jobs, 10, definition(overlap), *first.records)
    for _ in range(3):
        asyncio.run(process._tick())
    assert second.commands() == [], "it runs, and its lane may have forgotten it when it has ended"
    assert (progress(process).last_job_id, progress(process).sending) == (job_id, None)
    assert progress(process).through == START + timedelta(minutes=10)


@pytest.mark.parametrize("is_written", [True, False])
def test_a_job_that_was_about_to_be_created_and_has_not_come_is_created(*, is_written: bool) -> None:
    """Its command may not have been sent, or its elector has not read it."""
    first, jobs = Kafka("commands", Killed(), is_written=is_written), Jobs()
    with pytest.raises(Killed):
        asyncio.run(process_of(first, jobs, 1, definition(Overlap.SKIP))._tick())
    second = Kafka()
    process = process_of(second, jobs, 10, definition(Overlap.SKIP), *first.records)
    for _ in range(3):
        asyncio.run(process._tick())
    [job_id] = second.commands()
    assert first.commands() == ([job_id] if is_written else [])
    assert (progress(process).last_job_id, progress(process).sending) == (job_id, None)


def test_the_job_before_is_deleted_though_the_process_was_killed_that_replaced_it() -> None:
    jobs, before = Jobs(), Kafka()
    asyncio.run(process_of(before, jobs, 1, definition(Overlap.REPLACE))._tick())
    first = Kafka("commands", Killed(), is_written=False)
    with pytest.raises(Killed):
        asyncio.run(process_of(first, jobs, 2, definition(Overlap.REPLACE), *before.records)._tick())
    second, read = Kafka(), [definition(Overlap.REPLACE), *before.records, *first.records]
    asyncio.run(process_of(second, jobs, 2.5, *read)._tick())
    deleted, created = second.commands()
    assert [deleted] == before.commands()
    assert created != deleted


def test_a_job_is_not_forgotten_whose_creation_was_not_acknowledged() -> None:
    kafka, jobs = Kafka("commands", KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))), Jobs()
    process = process_of(kafka, jobs, 1, definition(Overlap.SKIP))
    asyncio.run(process._tick())
    [job_id] = kafka.commands()
    jobs.come.add(job_id)
    process._clock = lambda: START + timedelta(minutes=2)
    for _ in range(3):
        asyncio.run(process._tick())
    assert kafka.commands() == [job_id]
    assert progress(process).skipped_for == "overlap"


def test_what_was_about_to_be_created_is_nothing_to_another_definition_of_the_same_id() -> None:
    jobs, kafka = Jobs(), Kafka()
    left = Progress(through=START - timedelta(minutes=5), sending=START - timedelta(minutes=5))
    records = [definition(Overlap.SKIP), Record(NAMES.recurring, 0, "a|progress", encode_aspect(left))]
    process = process_of(kafka, jobs, 0.5, *records)
    asyncio.run(process._tick())
    assert kafka.commands() == []


def test_what_was_intended_is_read_back_when_it_was_done_and_changes_nothing() -> None:
    kafka, jobs = Kafka(), Jobs()
    process = process_of(kafka, jobs, 1, definition(Overlap.SKIP))
    asyncio.run(process._tick())
    done, [intended, *_] = progress(process), kafka.records
    process._take(Read(0, 0, b"a|progress", intended.value, []))
    assert progress(process) == done
    assert done.sending is None


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE])
def test_a_job_that_never_comes_is_asked_for_again_and_not_waited_for_for_ever(overlap: Overlap) -> None:
    """Its command was lost, as when an operator lets a lane go on behind records that were deleted."""
    kafka, jobs = Kafka(), Jobs()
    process = process_of(kafka, jobs, 1, definition(overlap))
    for minutes in (1, 5, 10.9):
        process._clock = lambda: START + timedelta(minutes=minutes)  # noqa: B023
        asyncio.run(process._tick())
    [job_id] = kafka.commands()
    process._clock = lambda: START + timedelta(minutes=12)
    asyncio.run(process._tick())
    asyncio.run(process._tick())
    assert kafka.commands() == [job_id, job_id], "once in ten minutes, though brokers' clocks are behind"
    jobs.come.add(job_id)
    process._clock = lambda: START + timedelta(minutes=60)
    asyncio.run(process._tick())
    assert kafka.commands() == [job_id, job_id]
    assert progress(process).last_job_id == job_id
    jobs.rejected.add(job_id)  # it has ended
    process._clock = lambda: START + timedelta(minutes=61)
    for _ in range(3):
        asyncio.run(process._tick())
    assert len(kafka.commands()) == 3, "another one is given its time, too"


def test_a_job_that_was_rejected_is_not_asked_for_again() -> None:
    kafka, jobs = Kafka(), Jobs()
    daily = Definition(id="a", schedule="1 0 * * *", task="t", starts_at=START, overlap=Overlap.SKIP)
    process = process_of(kafka, jobs, 1, Record(NAMES.recurring, 0, "a", encode_aspect(daily)))
    asyncio.run(process._tick())
    [job_id] = kafka.commands()
    jobs.rejected.add(job_id)
    process._clock = lambda: START + timedelta(minutes=60)
    asyncio.run(process._tick())
    assert kafka.commands() == [job_id]
