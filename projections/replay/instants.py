"""The installation at an instant of the log, or at several, in one pass that can stop and go on.

Theory of operation. 1. Of each job keep the last event before each instant, in memory. 2. When there are many jobs or
many records, write them as a sorted run, and how far the log is told in it as the checkpoint: what comes later of the
same jobs is joined when the runs are merged. Whoever was stopped goes on behind the last checkpoint, with the offsets
that the instants had when it began.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from joblog.projections.projector.decode import JobFact, WorkerFact, read_event
from joblog.projections.projector.event_batch import Record
from joblog.projections.projector.fold import job_key
from joblog.projections.replay.sorted_runs import SortedRuns
from joblog.streams.checkpoint import Checkpoint
from joblog.streams.contract.record_headers import readable_headers
from joblog.streams.errors import ContractError, InvalidData
from joblog.streams.kafka.places import offsets_of, parse_place
from joblog.streams.kafka.scan import Range, TopicReader
from joblog.streams.progress import Stopped, Told, silent
from msgspec import Struct

#: A run is written when so many jobs are in memory, or so many records were read since the last one.
JOBS_MAX: Final = 200_000
RECORDS_MAX: Final = 1_000_000
#: Or this part of all that was read, if that is more: all runs are open when they are merged.
PART_OF_READ: Final = 64
READING: Final = "reading the log"


class Was(Struct, array_like=True, gc=False):
    """Where a job was at an instant."""

    queue: str
    state: str


class Then(Struct):
    """The installation at one instant: jobs by queue and state, and the workers that were there."""

    counts: dict[tuple[str, str], int]
    workers: list[dict[str, Any]]


class Reached(Struct):
    """How far the pass is, and what it found that is small: its checkpoint, but for the runs.

    - asked: the topic, its cluster, the lanes and the instants, as they were given.
    - stops: the offsets of the instants. starts: where each lane began.
    - next: of each lane the next offset to read. workers: at each instant, by id.
    """

    asked: list[str]
    stops: list[dict[int, int]]
    starts: dict[int, int]
    next: dict[int, int]
    workers: list[dict[str, dict[str, Any]]]
    runs: int = 0


class Installation(NamedTuple):
    """What was found: the installation at each instant, and the moves of jobs between the first and the last.

    A move is the state at the first instant (None: not there yet), another one at the last, and how many jobs.
    """

    then: list[Then]
    moves: Mapping[tuple[str | None, str], int]


def installation_at(
    reader: TopicReader, directory: Path, lanes: Sequence[int], places: Sequence[str], told: Told = silent
) -> Installation:
    """The installation at these places of the log (streams/kafka/places.py), earliest first.

    Its files are in `directory`, from which it goes on if the same was asked there and stopped; it removes them when
    it is done. Raises Stopped, InvalidData, KafkaException.
    """
    instants = Instants(reader, directory, lanes, places)
    instants.read(told)
    found = Installation(instants.then(), instants.moves())
    instants.discard()
    return found


class Instants:
    """One pass over the log for some instants."""

    def __init__(self, reader: TopicReader, directory: Path, lanes: Sequence[int], places: Sequence[str]) -> None:
        self._reader = reader
        self._checkpoint = Checkpoint(directory, "instants", Reached)
        self._runs = SortedRuns(directory, "instants", list[Was | None])
        self._jobs: dict[str, list[Was | None]] = {}
        self._unwritten = 0
        self._reached = self._begun(lanes, places)
        self._runs.count = self._reached.runs

    def _begun(self, lanes: Sequence[int], places: Sequence[str]) -> Reached:
        reader = self._reader
        asked = [reader.topic, reader.cluster() or "", *map(str, lanes), *places]
        found = self._checkpoint.read()
        if found is not None:
            if found.asked != asked:
                raise InvalidData("the directory has the files of another question: give another one")
            return found
        now = datetime.now(UTC)
        stops = [offsets_of(reader, lanes, parse_place(place, now)) for place in places]
        if any(stops[0][lane] > stops[-1][lane] for lane in lanes):
            raise InvalidData("--from lies behind --to: exchange them")
        starts = {lane: one.start for lane, one in reader.bounds(list(lanes)).items()}
        return Reached(asked, stops, starts, dict(starts), [{} for _ in stops])

    def read(self, told: Told = silent) -> None:
        """Read the log up to the last instant; raises Stopped, with all that was read in the checkpoint."""
        reached = self._reached
        ranges = {lane: Range(reached.next[lane], stop) for lane, stop in reached.stops[-1].items()}
        total = sum(max(stop - reached.starts[lane], 0) for lane, stop in reached.stops[-1].items())
        done = sum(reached.next[lane] - start for lane, start in reached.starts.items())

        def tell() -> None:
            told(READING, done, total)

        try:
            for messages in self._reader.read(ranges, tell):
                self._take_all(messages)
                done += len(messages)
                if len(self._jobs) >= JOBS_MAX or self._unwritten >= max(RECORDS_MAX, done // PART_OF_READ):
                    self.checkpoint()
                tell()
        except Stopped:
            self.checkpoint()
            raise
        reached.next |= {lane: max(stop, reached.next[lane]) for lane, stop in reached.stops[-1].items()}
        self.checkpoint()

    def checkpoint(self) -> None:
        """Write what is in memory as a run, and how far that is."""
        if self._jobs:
            self._runs.write((job_key(job), was) for job, was in self._jobs.items())
        self._jobs, self._unwritten = {}, 0
        self._reached.runs = self._runs.count
        self._checkpoint.write(self._reached)

    def discard(self) -> None:
        """Remove the files."""
        self._checkpoint.remove()
        self._runs.remove()

    def then(self) -> list[Then]:
        """What it was at each instant."""
        workers = self._reached.workers
        counts: list[Counter[tuple[str, str]]] = [Counter() for _ in workers]
        for was in self._all():
            for place, one in enumerate(was):
                if one is not None:
                    counts[place][one.queue, one.state] += 1
        return [
            Then(dict(sorted(count.items())), [named[name] for name in sorted(named)])
            for count, named in zip(counts, workers, strict=True)
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

    def _take_all(self, messages: Sequence[Any]) -> None:
        for message in messages:
            lane, offset = message.partition(), message.offset()
            assert lane is not None
            assert offset is not None
            headers = readable_headers(message)
            self._take(Record(lane, offset, message.timestamp()[1], message.value(), headers))
        self._unwritten += len(messages)

    def _take(self, record: Record) -> None:
        self._reached.next[record.lane] = record.offset + 1
        try:
            fact = read_event(record.value, record.headers, record.log_ms, self._jobs)
        except ContractError:  # `verify` names what cannot be read
            return
        stops = self._reached.stops
        if isinstance(fact, JobFact):
            was = self._jobs.get(fact.job)
            if was is None:
                was = self._jobs[fact.job] = [None] * len(stops)
            now = Was(fact.event.queue, str(fact.event.state))
            for place, stop in enumerate(stops):
                if record.offset < stop[record.lane]:
                    was[place] = now
        elif isinstance(fact, WorkerFact):
            said: dict[str, Any] = {"id": fact.event.worker, "state": fact.state, "at": fact.at}
            said |= {"queues": list(fact.event.queues), "slots": fact.event.slots, "host": fact.event.host}
            for place, stop in enumerate(stops):
                if record.offset < stop[record.lane]:
                    self._reached.workers[place][fact.event.worker] = said
