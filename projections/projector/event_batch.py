"""A batch of records as rows for the tables: decoded, folded by job, what cannot be read set aside. Pure."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, overload

from joblog.projections.projector.decode import (
    PLAIN,
    BatchFact,
    ControlFact,
    Created,
    Fact,
    JobFact,
    RejectedFact,
    SoughtFact,
    WorkerFact,
    read_event,
)
from joblog.projections.projector.fold import JobRow, begins, begun, extend
from joblog.projections.schema.history import EVENTS_MAX, element, written
from joblog.streams.contract.cloudevents import Headers
from joblog.streams.contract.deadletters import internal_error
from joblog.streams.contract.states import State
from joblog.streams.contract.wire import NO_RAW
from joblog.streams.errors import ContractError
from msgspec import Struct, field
from msgspec.structs import replace

log = logging.getLogger(__name__)

REASON_CHARACTERS_MAX: Final = 2_000
#: The events with which a job, or a run of it, came to an end, unless a filter elected another state after it.
ENDS: Final = frozenset({"job.succeeded", "job.failed", "job.deleted"})


#: What stands before the spec, if it is not the first member of an event's data.
_SPEC: Final = b',"spec":'


class Record(Struct, frozen=True, gc=False):
    """A record of the log; `log_ms` is when the broker wrote it, unix."""

    lane: int
    offset: int
    log_ms: int
    value: bytes | None
    headers: Headers | None = None


class Parked(NamedTuple):
    """A record that is set aside, and why: `code` for programs, `reason` for people."""

    record: Record
    code: str
    reason: str


Entry = tuple[Record, Fact | Parked]


class Known(NamedTuple):
    """How far the tables are with a job: the last event that they took, and its offset."""

    version: int
    offset: int


class Batch(Struct):
    """What the records say; `workers` by lane and id, and batches by id, each the last event.

    - length: how many records it is made of: it ends before an event that begins another life of one of its jobs.
    - ends: how many events are ends, by lane, hour (the first letters of a time) and state.
    - sought: by job, the last question about it.
    - members: of each job that was created in a batch: the batch, the job, and the event's offset.
    - parents: of each job that was created to wait for several: a parent, the job, the event's offset and lane.
    - is_regular: the events of each job follow each other without a gap, and all of them can be kept.
    - history: the events to be kept, if they are asked for one by one.
    """

    length: int = 0
    jobs: dict[str, JobRow] = field(default_factory=dict)
    ends: dict[tuple[int, str, State], int] = field(default_factory=dict)
    workers: dict[tuple[int, str], tuple[Record, WorkerFact]] = field(default_factory=dict)
    batches: dict[str, tuple[Record, BatchFact]] = field(default_factory=dict)
    members: list[tuple[str, str, int]] = field(default_factory=list)
    parents: list[tuple[str, str, int, int]] = field(default_factory=list)
    rejected: list[tuple[Record, RejectedFact]] = field(default_factory=list)
    controls: list[tuple[Record, ControlFact]] = field(default_factory=list)
    sought: dict[str, tuple[Record, SoughtFact]] = field(default_factory=dict)
    parked: list[Parked] = field(default_factory=list)
    is_regular: bool = True
    history: list[tuple[Record, JobFact]] | None = None


class Entries(Sequence[Entry]):
    """Records in the order of their lanes, with what they say.

    What a record says is read when it is asked for, and let go of: to keep thousands of events as objects costs more
    than to read them again in the rare case that the batch cannot simply be applied.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.records = list(records)
        #: The size of what was added.
        self.bytes = 0
        self._batch = Batch()
        self._taken = 0

    def extend(self, records: Sequence[Record]) -> None:
        """Add what was read after these, and take it into the batch."""
        self.records += records
        self.bytes += sum(len(record.value or b"") for record in records)
        try:
            self._take()
        except Exception:  # noqa: BLE001 - comes again where the batch is applied, and is dealt with there
            self._taken = -1

    def batch(self) -> Batch:
        """What they make of tables that know nothing which contradicts them; raises what makes that impossible."""
        if self._taken < 0:
            self._batch, self._taken = Batch(), 0
        self._take()
        return self._batch

    def _take(self) -> None:
        """Until an event that begins another life of one of the batch's jobs."""
        if self._batch.length == self._taken:
            more, self._taken = self.records[self._taken :], len(self.records)
            _add(self._batch, more, {})

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Entry]:
        return ((record, _read(record)) for record in self.records)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> "Entries": ...
    def __getitem__(self, place: int | slice) -> "Entry | Entries":
        if isinstance(place, slice):
            return Entries(self.records[place])
        return self.records[place], _read(self.records[place])

    def build(self, known: Mapping[str, Known], length: int | None = None) -> Batch:
        """The batch of the first records, so many at most, with its history one by one.

        Of a job in `known`, the events up to that version are kept in the history only, and what is newer by its
        version, but not by its offset, was of an earlier life and is not kept.
        """
        batch = Batch(history=[])
        _add(batch, self.records[:length], known)
        return batch


def _read(record: Record) -> Fact | Parked:
    """What a record says, or why that is unknown."""
    try:
        return read_event(record.value, record.headers, record.log_ms)
    except Exception as error:  # noqa: BLE001 - looked at there
        return _unread(record, error)


def _unread(record: Record, error: Exception) -> Parked:
    """One record that cannot be read, be it in a way of its own, must not stop its lane."""
    if isinstance(error, ContractError):
        return parked(record, error.code, error.reason)
    log.error("projection.unreadable", exc_info=error, extra={"lane": record.lane, "offset": record.offset})
    return unforeseen(record, error)


def _add(batch: Batch, records: Iterable[Record], known: Mapping[str, Known]) -> None:  # noqa: C901, PLR0912
    """Every event passes here, and a call costs as much as what most of these lines do: so it is one function."""
    jobs, history, ends = batch.jobs, batch.history, batch.ends
    for record in records:
        try:
            fact: Fact | Parked = read_event(record.value, record.headers, record.log_ms, jobs)
        except Exception as error:  # noqa: BLE001 - looked at there
            fact = _unread(record, error)
        if type(fact) is not JobFact:
            _add_rare(batch, record, fact)
            continue
        event, job = fact.event, fact.job
        row = jobs.get(job)
        if row is not None and begins(fact):
            return
        batch.length += 1
        if known and (seen := known.get(job)) is not None:
            if event.version > seen.version and record.offset <= seen.offset:
                continue
            if event.version <= seen.version:
                if history is not None:
                    history.append((record, fact))
                continue
        if row is None:
            row = jobs[job] = begun(record.lane, record.offset, record.log_ms, fact)
            if (created := fact.created_with) is not None and created is not PLAIN:
                _add_relations(batch, record, job, created)
        else:
            if event.version != (before := row.latest.version) + 1:
                batch.is_regular = False
                if event.version > before:
                    batch.parked.append(gap(record, job, before, event.version))
            extend(row, record.offset, fact)
        if history is not None:
            history.append((record, fact))
            continue
        if row.count == EVENTS_MAX:
            row.runs, row.events, row.count = (*row.runs, (row.count, row.events)), b"", 0
        row.events += element(kept(record, fact))
        row.count += 1
        if fact.type in ENDS and not event.traversed:
            end = record.lane, fact.at[:13], event.state
            ends[end] = ends.get(end, 0) + 1
        if event.reason is not None and "\x00" in event.reason:
            batch.is_regular = False


def _add_relations(batch: Batch, record: Record, job: str, created: Created) -> None:
    if created.batch is not None:
        batch.members.append((created.batch, job, record.offset))
    if created.parents is not None:
        known = dict.fromkeys(created.parents.job_ids)
        batch.parents += [(parent, job, record.offset, record.lane) for parent in known]


def _add_rare(batch: Batch, record: Record, fact: Fact | Parked) -> None:
    batch.length += 1
    if isinstance(fact, WorkerFact):
        batch.workers[record.lane, fact.event.worker] = record, fact
    elif isinstance(fact, BatchFact):
        batch.batches[fact.batch] = record, fact
    elif isinstance(fact, RejectedFact):
        batch.rejected.append((record, fact))
    elif isinstance(fact, ControlFact):
        batch.controls.append((record, fact))
    elif isinstance(fact, SoughtFact):
        batch.sought[fact.event.parent] = record, fact
    elif isinstance(fact, Parked):
        batch.parked.append(fact)


def kept(record: Record, fact: JobFact) -> bytes:
    """An event as an element of the history; without its spec, which the job has, where it can be cut out."""
    data, event = fact.data, fact.event
    if fact.created_with is not None and event.result is NO_RAW and event.value is NO_RAW:
        spec = bytes(event.spec)
        start = data.find(_SPEC)
        end = start + len(_SPEC) + len(spec)
        if start > 0 and data[start + len(_SPEC) : end] == spec:
            data = data[:start] + data[end:]
    return written(record.lane, record.offset, fact.at, fact.type, data)


def gap(record: Record, job: str, before: int, version: int) -> Parked:
    """The remark on an event that was applied, though some before it were never seen."""
    return Parked(replace(record, value=None), "version_gap", f"job {job} went from version {before} to {version}")


def parked(record: Record, code: str, reason: str) -> Parked:
    """A record set aside, its reason fit for a text column."""
    text = reason[:REASON_CHARACTERS_MAX].replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return Parked(record, code, text.encode(errors="replace").decode())


def unforeseen(record: Record, error: Exception) -> Parked:
    """A record set aside for an error that nobody foresaw, with the end of its traceback: that is where it was."""
    unforeseen_error = internal_error(error)
    return parked(record, unforeseen_error.code, unforeseen_error.details)
