"""A batch of records as rows for the tables: decoded, folded by job, what cannot be read set aside. Pure."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from joblog.projections.projector.decode import Fact, JobFact, RejectedFact, WorkerFact, read_event
from joblog.projections.projector.fold import JobRow, begins, begun, extend
from joblog.streams.contract.cloudevents import Headers
from joblog.streams.contract.unforeseen import internal_error
from joblog.streams.errors import ContractError
from msgspec import Struct, field

log = logging.getLogger(__name__)

REASON_CHARACTERS_MAX: Final = 2_000


class Record(NamedTuple):
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
    """What the records say; `workers` by lane and id, each the last event. `rest` are those of another batch."""

    jobs: dict[str, JobRow] = field(default_factory=dict)
    history: list[tuple[Any, ...]] = field(default_factory=list)
    workers: dict[tuple[int, str], tuple[Record, WorkerFact]] = field(default_factory=dict)
    rejected: list[tuple[Record, RejectedFact]] = field(default_factory=list)
    parked: list[Parked] = field(default_factory=list)
    rest: Sequence[Entry] = ()


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
    for place, (record, fact) in enumerate(entries):
        if type(fact) is JobFact:
            if begins(fact) and fact.job in batch.jobs:
                batch.rest = entries[place:]
                break
            _add_job(batch, record, fact, known)
        elif type(fact) is WorkerFact:
            batch.workers[record.lane, fact.event.worker] = record, fact
        elif type(fact) is RejectedFact:
            batch.rejected.append((record, fact))
        elif type(fact) is Parked:
            batch.parked.append(fact)
    return batch


def _add_job(batch: Batch, record: Record, fact: JobFact, known: Mapping[str, Known]) -> None:
    seen = known.get(fact.job) if known else None
    is_newer = seen is None or fact.event.version > seen.version
    if seen is not None and is_newer and record.offset <= seen.offset:
        return
    batch.history.append(history_row(record, fact))
    if not is_newer:
        return
    row = batch.jobs.get(fact.job)
    if row is None:
        batch.jobs[fact.job] = begun(record.lane, record.offset, record.log_ms, fact)
        return
    if (before := row.latest.version) + 1 < fact.event.version:
        batch.parked.append(gap(record, fact.job, before, fact.event.version))
    extend(row, record.offset, fact)


def gap(record: Record, job: str, before: int, version: int) -> Parked:
    """The remark on an event that was applied, though some before it were never seen."""
    return Parked(record._replace(value=None), "version_gap", f"job {job} went from version {before} to {version}")


def parked(record: Record, code: str, reason: str) -> Parked:
    """A record set aside, its reason fit for a text column."""
    text = reason[:REASON_CHARACTERS_MAX].replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return Parked(record, code, text.encode(errors="replace").decode())


def unforeseen(record: Record, error: Exception) -> Parked:
    """A record set aside for an error that nobody foresaw, with the end of its traceback: that is where it was."""
    unforeseen_error = internal_error(error)
    return parked(record, unforeseen_error.code, unforeseen_error.details)


def history_row(record: Record, fact: JobFact) -> tuple[Any, ...]:
    """A row of `history`; the order of columns is that of the statement `copy_history`."""
    event = fact.event
    return (
        fact.job,
        event.version,
        record.lane,
        event.state,
        event.traversed,
        event.attempt,
        fact.at,
        record.offset,
        fact.type,
        event.reason,
        fact.details,
    )
