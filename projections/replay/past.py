"""The past, straight from the log: a job's events with their causes, and the installation at an instant, or at two.

At two instants one pass is enough: of each job it keeps the last event before each of them, in sorted files.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from joblog.projections.projector.decode import JobFact, WorkerFact, read_event
from joblog.projections.projector.event_batch import Record
from joblog.projections.projector.fold import fold, job_key
from joblog.projections.replay.sides import events_of
from joblog.projections.replay.sorted_runs import SortedRuns
from joblog.projections.replay.verify import expected_job, lives_by_job
from joblog.projections.schema.history import history_row, shown
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.record_headers import readable_headers
from joblog.streams.errors import ContractError
from joblog.streams.kafka.scan import Range, TopicReader
from joblog.streams.progress import Told, silent
from msgspec import Struct, json

JOBS_MAX: Final = 200_000


class _Cause(Struct):
    causationid: str | None = None


class Was(Struct, array_like=True, gc=False):
    """Where a job was at an instant."""

    queue: str
    state: str


class Then(Struct):
    """The installation at one instant: jobs by queue and state, and the workers that were there."""

    counts: dict[tuple[str, str], int]
    workers: list[dict[str, Any]]


_cause: Final = json.Decoder(_Cause).decode


def history(reader: TopicReader, job: str, stop: int | None = None, told: Told = silent) -> list[dict[str, Any]]:
    """The events of a job up to an offset of its lane, or to the end, oldest first; of all its lives."""
    return [_shown(reader.topic, record, fact) for record, fact in _facts(reader, job, stop, told)]


def job_then(reader: TopicReader, job: str, stop: int, told: Told = silent) -> dict[str, Any] | None:
    """A job as it was before that offset of its lane; None if it was not there yet."""
    lives = lives_by_job(_facts(reader, job, stop, told))
    if job not in lives:
        return None
    life = lives[job][-1]
    return expected_job(fold([(record.offset, fact) for record, fact in life], life[0][0].lane))


def _facts(reader: TopicReader, job: str, stop: int | None, told: Told) -> list[tuple[Record, JobFact]]:
    lane = lane_of_job(job)
    bounds = reader.bounds([lane])[lane]
    wanted = Range(bounds.start, bounds.stop if stop is None else stop)
    done = 0

    def count(records: int) -> None:
        nonlocal done
        done += records
        told("reading the log", done, wanted.length)

    found = []
    for record in events_of(reader, [job], {lane: wanted}, count):
        try:
            fact = read_event(record.value, record.headers, record.log_ms)
        except ContractError:  # `verify` names what cannot be read
            continue
        if isinstance(fact, JobFact) and fact.job == job:
            found.append((record, fact))
    return found


def _shown(topic: str, record: Record, fact: JobFact) -> dict[str, Any]:
    row = shown(history_row(record.lane, record.offset, fact.at, fact.type, fact.event))
    cause = _cause(record.value or b"{}").causationid
    return {**row, "cause": cause, "position": f"{topic}/{record.lane}@{record.offset}"}


class Instants:
    """The installation at some instants, each given as the offsets of all lanes, earliest first."""

    def __init__(self, directory: Path, stops: Sequence[Mapping[int, int]]) -> None:
        self._stops = stops
        self._runs = SortedRuns(directory, "instants", list[Was | None])
        self._jobs: dict[str, list[Was | None]] = {}
        self._workers: list[dict[str, dict[str, Any]]] = [{} for _ in stops]

    def read(self, reader: TopicReader, told: Told = silent) -> None:
        """Read the log up to the last instant."""
        bounds = reader.bounds(list(self._stops[-1]))
        ranges = {lane: Range(one.start, self._stops[-1][lane]) for lane, one in bounds.items()}
        total, done = sum(one.length for one in ranges.values()), 0
        for messages in reader.read(ranges):
            for message in messages:
                lane, offset = message.partition(), message.offset()
                assert lane is not None
                assert offset is not None
                headers = readable_headers(message)
                self._take(Record(lane, offset, message.timestamp()[1], message.value(), headers))
            if len(self._jobs) >= JOBS_MAX:
                self._write()
            done += len(messages)
            told("reading the log", done, total)
        self._write()

    def then(self) -> list[Then]:
        """What it was at each instant."""
        counts: list[Counter[tuple[str, str]]] = [Counter() for _ in self._stops]
        for was in self._all():
            for place, one in enumerate(was):
                if one is not None:
                    counts[place][one.queue, one.state] += 1
        return [
            Then(dict(sorted(count.items())), [workers[name] for name in sorted(workers)])
            for count, workers in zip(counts, self._workers, strict=True)
        ]

    def moves(self) -> Counter[tuple[str | None, str]]:
        """How many jobs were in one state at the first instant, and in another at the last; None: not there yet."""
        found: Counter[tuple[str | None, str]] = Counter()
        for was in self._all():
            first, last = was[0], was[-1]
            before = first.state if first is not None else None
            if last is not None and before != last.state:
                found[before, last.state] += 1
        return found

    def _all(self) -> Iterator[list[Was | None]]:
        """Where each job was: what a later run does not say, an earlier one does."""
        for _key, runs in self._runs.merged():
            was = runs[0]
            for later in runs[1:]:
                was = [new if new is not None else old for old, new in zip(was, later, strict=True)]
            yield was

    def _take(self, record: Record) -> None:
        try:
            fact = read_event(record.value, record.headers, record.log_ms, self._jobs)
        except ContractError:  # `verify` names what cannot be read
            return
        if isinstance(fact, JobFact):
            was = self._jobs.get(fact.job)
            if was is None:
                was = self._jobs[fact.job] = [None] * len(self._stops)
            now = Was(fact.event.queue, str(fact.event.state))
            for place, stop in enumerate(self._stops):
                if record.offset < stop[record.lane]:
                    was[place] = now
        elif isinstance(fact, WorkerFact):
            said: dict[str, Any] = {"id": fact.event.worker, "state": fact.state, "at": fact.at}
            said |= {"queues": list(fact.event.queues), "slots": fact.event.slots, "host": fact.event.host}
            for place, stop in enumerate(self._stops):
                if record.offset < stop[record.lane]:
                    self._workers[place][fact.event.worker] = said

    def _write(self) -> None:
        if self._jobs:
            self._runs.write((job_key(job), was) for job, was in self._jobs.items())
        self._jobs = {}
