"""A batch of records as rows for the tables: decoded, folded by job, what cannot be read set aside. Pure."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from traceback import format_exception
from typing import Any, Final, NamedTuple

from joblog.projections.projector.decode import Fact, JobFact, RejectedFact, WorkerFact, read_event
from joblog.projections.projector.fold import JobRow, begins, begun, extend
from joblog.projections.schema.history import written
from joblog.streams.contract.cloudevents import Headers
from joblog.streams.contract.states import State
from joblog.streams.contract.wire import NO_RAW
from joblog.streams.errors import ContractError
from msgspec import Raw, Struct, field
from msgspec.structs import replace

log = logging.getLogger(__name__)

REASON_CHARACTERS_MAX: Final = 2_000
#: The events with which a job, or a run of it, came to an end, unless a filter elected another state after it.
ENDS: Final = frozenset({"job.succeeded", "job.failed", "job.deleted"})


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
    """What the records say; `workers` by lane and id, each the last event. `rest` are those of another batch.

    - history: every event of a job that is to be kept.
    - ends: how many of them are ends, by lane, hour (the first letters of a time) and state.
    - is_regular: the events of each job follow each other without a gap, and are such that all can be kept.
    """

    jobs: dict[str, JobRow] = field(default_factory=dict)
    history: list[tuple[Record, JobFact]] = field(default_factory=list)
    ends: dict[tuple[int, str, State], int] = field(default_factory=dict)
    workers: dict[tuple[int, str], tuple[Record, WorkerFact]] = field(default_factory=dict)
    rejected: list[tuple[Record, RejectedFact]] = field(default_factory=list)
    parked: list[Parked] = field(default_factory=list)
    rest: Sequence[Entry] = ()
    is_regular: bool = True


def decoded(records: Iterable[Record]) -> list[Entry]:
    """Each record with what it says, or with why that is unknown."""
    entries: list[Entry] = []
    for record in records:
        try:
            entries.append((record, read_event(record.value, record.headers, record.log_ms)))
        except ContractError as error:
            entries.append((record, parked(record, error.code, error.reason)))
        except Exception as error:  # one record that is odd in a new way must not stop its lane
            log.exception("projection.unreadable", extra={"lane": record.lane, "offset": record.offset})
            entries.append((record, unforeseen(record, error)))
    return entries


def build(entries: Sequence[Entry], known: Mapping[str, Known]) -> Batch:
    """The batch, up to an event that begins another life of a job that is in it.

    Of a job in `known`, the events up to that version are kept in the history only, and what is newer by its
    version, but not by its offset, was of an earlier life and is not kept.
    """
    batch = Batch()
    jobs, history, ends = batch.jobs, batch.history, batch.ends
    for place, (record, fact) in enumerate(entries):
        kind = type(fact)
        if kind is JobFact:
            event, job = fact.event, fact.job
            row = jobs.get(job)
            if row is not None and begins(fact):
                batch.rest = entries[place:]
                break
            if known and (seen := known.get(job)) is not None:
                if event.version > seen.version and record.offset <= seen.offset:
                    continue
                if event.version <= seen.version:
                    history.append((record, fact))
                    continue
            if row is None:
                row = jobs[job] = begun(record.lane, record.offset, record.log_ms, fact)
            else:
                before = row.latest.version
                if event.version != before + 1:
                    batch.is_regular = False
                    if event.version > before:
                        batch.parked.append(gap(record, job, before, event.version))
                extend(row, record.offset, fact)
            row.events.append(kept(record, fact))
            history.append((record, fact))
            if fact.type in ENDS and not event.traversed:
                end = record.lane, fact.at[:13], event.state
                ends[end] = ends.get(end, 0) + 1
            if event.reason is not None and "\x00" in event.reason:
                batch.is_regular = False
        elif kind is WorkerFact:
            batch.workers[record.lane, fact.event.worker] = record, fact
        elif kind is RejectedFact:
            batch.rejected.append((record, fact))
        elif kind is Parked:
            batch.parked.append(fact)
    return batch


def kept(record: Record, fact: JobFact) -> bytes:
    """An event as an element of the history; without its spec, which the job has, if it can be cut out."""
    data: bytes | Raw = fact.data
    event = fact.event
    if fact.created_with is not None and event.result is NO_RAW and event.value is NO_RAW:
        data = bytes(data).replace(b',"spec":%b' % event.spec, b"", 1)
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
    return parked(record, "internal_error", "".join(format_exception(error))[-REASON_CHARACTERS_MAX:])
