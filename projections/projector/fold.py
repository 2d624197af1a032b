"""What the events of a job make of it: a fold that may be cut anywhere, as batches cut it.

`fold(first)` and `fold(rest)`, joined by the statement `apply_jobs`, are `fold(first + rest)`. For that, what one
event alone decides is taken from the last one, and what an event may leave as it was is None for "as before".

A job may be created again under the id of one that its lane has forgotten: another life, of which the tables
know nothing that was before. The log keeps all lives; a fold is of one.
"""

from collections.abc import Iterable

from joblog.projections.projector.decode import Created, JobFact
from joblog.projections.schema.history import JobEvent
from joblog.streams.contract import wire
from joblog.streams.contract.states import ContinueOn
from joblog.streams.lane.job import noted
from msgspec import Raw, Struct


class JobRow(Struct, gc=False):
    """What a run of a job's events says.

    - key: the id as a UUID's sixteen bytes.
    - latest: the last event: version, state, attempt, queue and task are its.
    - current: the last transition; None when only parameters were set. changed_at and due go with it.
    - retry, created_with, parent (with `on`), exception: of the last event that carried one; None for none.
    - parameters: those set in this run; their defaults are in `created_with`.
    - priority: as it was set in this run, if it was; the first one is in `created_with`.
    - events: what the table `history` is to hold of this run, and how many they are; runs: those before, if many.
    """

    id: str
    key: bytes
    lane: int
    first_version: int
    first_offset: int
    offset: int
    log_ms: int
    created_at: str
    changed_at: str
    latest: JobEvent
    current: JobEvent | None = None
    due: str | None = None
    retry: int | None = None
    spec: Raw | None = None
    created_with: Created | None = None
    parent: str | None = None
    on: ContinueOn | None = None
    exception: wire.JobException | None = None
    parameters: dict[str, Raw] | None = None
    priority: int | None = None
    events: bytes = b""
    count: int = 0
    runs: tuple[tuple[int, bytes], ...] = ()


def job_key(job_id: str) -> bytes:
    """A job's id as a UUID's sixteen bytes."""
    return bytes.fromhex(job_id.replace("-", ""))


def priority_of(row: JobRow) -> int | None:
    """A job's priority: as it was set, or as it was created with; None if this run does not say."""
    if row.priority is not None:
        return row.priority
    return None if row.created_with is None else row.created_with.priority


def begins(fact: JobFact) -> bool:
    """Whether a life of the job begins here."""
    return fact.created_with is not None and fact.event.version == 1


def begun(lane: int, offset: int, log_ms: int, fact: JobFact) -> JobRow:
    """The row that one event gives, which stands at `offset` of `lane`, written there at `log_ms` (unix)."""
    event, at = fact.event, fact.at
    row = JobRow(fact.job, job_key(fact.job), lane, event.version, offset, offset, log_ms, at, at, event)
    _take(row, fact)
    return row


def extend(row: JobRow, offset: int, fact: JobFact) -> None:
    """Take one more event of the job; one that is not newer than the row changes nothing."""
    if fact.event.version <= row.latest.version:
        return
    row.latest = fact.event
    row.offset = offset
    _take(row, fact)


def fold(facts: Iterable[tuple[int, JobFact]], lane: int = 0) -> JobRow:
    """The row that a job's events, at least one, each with its offset, give in this order."""
    (first, fact), *rest = facts
    row = begun(lane, first, 0, fact)
    for offset, later in rest:
        extend(row, offset, later)
    return row


def _take(row: JobRow, fact: JobFact) -> None:
    event = fact.event
    if event.outcome is not None:
        _set(row, *noted(event))
    if event.note is not None:
        if event.priority is not None:
            row.priority = event.priority
        return
    if event.name is not None:
        _set(row, event.name, event.value)
        return
    row.current = event
    row.changed_at = fact.at
    row.due = fact.due
    if fact.type in {"job.enqueued", "job.scheduled"}:
        row.retry = event.retry
    if event.exception is not None:
        row.exception = event.exception
    if fact.created_with is not None:
        row.spec = event.spec
        row.created_with = fact.created_with
    if event.on is not None and event.outcome is None:
        row.parent, row.on = event.parent, event.on


def _set(row: JobRow, name: str, value: Raw) -> None:
    if row.parameters is None:
        row.parameters = {}
    row.parameters[name] = value
