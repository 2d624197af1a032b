"""One pass over the log: traces of all jobs into sorted runs, and what is small at once; it can stop and go on.

1. fold each event into the row of its job, and note its step. 2. when many jobs are in memory, write their traces
as a run, and how far the log is told in it as the checkpoint; what comes later of the same jobs is joined when the
runs are merged. Whoever was stopped goes on behind the last checkpoint.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from joblog.projections.projector.controls import ControlRows, apply_control
from joblog.projections.projector.decode import (
    BatchFact,
    ControlFact,
    Fact,
    JobFact,
    RejectedFact,
    WorkerFact,
    read_event,
)
from joblog.projections.projector.event_batch import Record
from joblog.projections.projector.fold import JobRow, begins, begun, extend
from joblog.projections.replay.sorted_runs import COLLECTED_MAX, Collected, SortedRuns
from joblog.projections.replay.verification.aside import Aside, refused_aside, rejected_aside, unreadable_aside
from joblog.projections.replay.verification.dead_letters import Letter, rejection
from joblog.projections.replay.verification.findings import Finding, Kind, position
from joblog.projections.replay.verification.last_words import Worker, batch_words, newer
from joblog.projections.replay.verification.parent_sums import ParentSums, add_parents, end_of
from joblog.projections.replay.verification.trace import Trace, step_of, trace_of
from joblog.streams.contract.deadletters import internal_error
from joblog.streams.contract.record_headers import readable_headers
from joblog.streams.errors import ContractError, ProjectionError
from joblog.streams.kafka.scan import Range, TopicReader
from msgspec import DecodeError, Struct, field, msgpack

#: Jobs, and bytes of their events, that are kept in memory before a run is written.
JOBS_MAX: Final = 60_000
BYTES_MAX: Final = 64 * 1024 * 1024
#: Of the records that cannot be read, so many are named.
UNREADABLE_MAX: Final = 100


class Passed(Struct):
    """How far a pass is, and what it found that is small: its checkpoint, but for the runs.

    - runs, asides, rejections: how many runs there are of each.
    - next: of each lane the next offset to read. begins: where each lane's log begins.
    - workers: what each said last, by id and lane. controls: rows of queues and bulk operations.
    - refused: jobs of which the tables have refused an event.
    - batches: the last event of each.
    - members: how many jobs were created in each batch, and the sums of their offsets and of the ends of their ids.
    - parents: of each lane, as the statement of this name.
    """

    prefix: str
    lanes: list[int]
    runs: int = 0
    asides: int = 0
    rejections: int = 0
    events: int = 0
    next: dict[int, int] = field(default_factory=dict)
    begins: dict[int, int] = field(default_factory=dict)
    workers: dict[str, dict[int, Worker]] = field(default_factory=dict)
    batches: dict[str, list[Any]] = field(default_factory=dict)
    members: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    parents: dict[int, ParentSums] = field(default_factory=dict)
    controls: ControlRows = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    unreadable: int = 0
    refused: set[str] = field(default_factory=set)


_decode: Final = msgpack.Decoder(Passed).decode


class LogPass:
    """A pass over some lanes, whose files are in `directory`; it goes on where another one there has stopped."""

    def __init__(self, directory: Path, name: str, prefix: str, lanes: Collection[int]) -> None:
        self._checkpoint = directory / f"{name}.checkpoint"
        self.runs = SortedRuns(directory, name, Trace)
        #: Rows that `rejected` and `parked` must have; events that reject a command, by the command's place.
        self.asides = Collected(SortedRuns(directory, f"{name}-asides", list[Aside]))
        self.rejections = Collected(SortedRuns(directory, f"{name}-rejections", list[Letter]))
        self.passed = Passed(prefix, sorted(lanes))
        self._rows: dict[str, JobRow] = {}
        self._steps: dict[str, bytearray] = {}
        self._begun: set[str] = set()
        self._bytes = 0
        #: Of each lane, the next offset to read; what is in memory counts.
        self.reached: dict[int, int] = {}

    def resume(self) -> bool:
        """Go on from the checkpoint in the directory; whether there is one. ProjectionError if it cannot be read."""
        if not self._checkpoint.exists():
            return False
        try:
            self.passed = _decode(self._checkpoint.read_bytes())
        except DecodeError as error:
            raise ProjectionError(
                f"{self._checkpoint} is damaged, or of another version of Joblog: give another directory"
            ) from error
        self.runs.count = self.passed.runs
        self.asides.runs.count, self.rejections.runs.count = self.passed.asides, self.passed.rejections
        return True

    def read(
        self, reader: TopicReader, stops: Mapping[int, int], refused: Collection[tuple[int, int]] = ()
    ) -> Iterator[int]:
        """Read each lane up to its stop; yields after each batch how many records it had.

        `refused`: places of the events that the tables do not have, though they can be read.
        """
        self.reached = dict(self.passed.next)
        ranges = {lane: Range(self.passed.next[lane], stop) for lane, stop in stops.items()}
        for messages in reader.read(ranges):
            for message in messages:
                lane, offset = message.partition(), message.offset()
                assert lane is not None
                assert offset is not None
                self.reached[lane] = offset + 1
                headers = readable_headers(message)
                record = Record(lane, offset, message.timestamp()[1], message.value(), headers)
                self.take(record, is_refused=bool(refused) and (lane, offset) in refused)
            self.passed.events += len(messages)
            if len(self._rows) >= JOBS_MAX or self._bytes >= BYTES_MAX or self.asides.waiting >= COLLECTED_MAX:
                self.checkpoint()
            yield len(messages)
        self.reached |= {lane: max(stop, self.reached[lane]) for lane, stop in stops.items()}
        self.checkpoint()

    def checkpoint(self) -> None:
        """Write what is in memory as a run, and how far that is."""
        if self._rows:
            self.runs.write(
                (row.key, trace_of(row, bytes(self._steps[job]), begins=job in self._begun))
                for job, row in self._rows.items()
            )
        self._rows, self._steps, self._begun, self._bytes = {}, {}, set(), 0
        self.passed.next |= self.reached
        self.asides.write()
        self.rejections.write()
        self.passed.runs = self.runs.count
        self.passed.asides, self.passed.rejections = self.asides.runs.count, self.rejections.runs.count
        unfinished = self._checkpoint.with_suffix(".part")
        unfinished.write_bytes(msgpack.encode(self.passed))
        unfinished.rename(self._checkpoint)

    def take(self, record: Record, *, is_refused: bool = False) -> None:
        """One record of the log."""
        try:
            fact = read_event(record.value, record.headers, record.log_ms, self._rows)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the record, the projector has parked it
            self._unreadable(record, error)
            return
        if type(fact) is JobFact and not is_refused:
            self._add(record, fact)
        else:
            self._add_rare(record, fact, is_refused=is_refused)

    def _add_rare(self, record: Record, fact: Fact, *, is_refused: bool) -> None:
        if isinstance(fact, RejectedFact) and (found := rejection(record, fact)) is not None:
            self.rejections.add(*found)
        if is_refused:
            self._put(refused_aside(record))
            if isinstance(fact, JobFact):
                self.passed.refused.add(fact.job)
        elif isinstance(fact, WorkerFact):
            by_lane = self.passed.workers.setdefault(fact.event.worker, {})
            by_lane[record.lane] = newer(by_lane.get(record.lane), record, fact)
        elif isinstance(fact, BatchFact):
            self.passed.batches[fact.batch] = batch_words(record, fact)
        elif isinstance(fact, RejectedFact):
            self._put(rejected_aside(record, fact))
        elif isinstance(fact, ControlFact):
            apply_control(self.passed.controls, record.lane, record.offset, fact)

    def _put(self, aside: Aside) -> None:
        self.asides.add(aside.key, aside)

    def _add(self, record: Record, fact: JobFact) -> None:
        job, rows = fact.job, self._rows
        row = rows.get(job)
        if (created := fact.created_with) is not None and created.batch is not None:
            count, offsets, ends = self.passed.members.get(created.batch, (0, 0, 0))
            self.passed.members[created.batch] = count + 1, offsets + record.offset, ends + end_of(job)
        if created is not None and created.parents is not None:
            add_parents(self.passed.parents, record, job, created.parents.job_ids)
        if begins(fact):
            self._begun.add(job)
            row = None
        if row is None:
            rows[job] = begun(record.lane, record.offset, record.log_ms, fact)
        else:
            extend(row, record.offset, fact)
        steps = self._steps.get(job)
        if steps is None:
            steps = self._steps[job] = bytearray()
        steps += step_of(record, fact)
        self._bytes += len(record.value or b"")

    def _unreadable(self, record: Record, error: Exception) -> None:
        self._put(unreadable_aside(record, error))
        self.passed.unreadable += 1
        if self.passed.unreadable <= UNREADABLE_MAX:
            where = position(record.lane, record.offset)
            told = error if isinstance(error, ContractError) else internal_error(error)
            what = f"{told.code}: {told.reason:.300}"
            self.passed.findings.append(
                Finding(kind=Kind.UNREADABLE, lane=record.lane, job=None, what=what, position=where)
            )
