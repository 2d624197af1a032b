"""The lives of jobs as the log tells them, and the row that a life must have. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from joblog.projections.projector.decode import JobFact
from joblog.projections.projector.event_batch import Entry, Record
from joblog.projections.projector.fold import JobRow, begins, priority_of
from msgspec import json

#: The greatest integer up to which every one has a float of its own.
_EXACT_MAX: Final = 2**53

Life = Sequence[tuple[Record, JobFact]]


def lives_by_job(facts: Iterable[Entry]) -> Mapping[str, Sequence[Life]]:
    """The events of all lives of each job."""
    jobs: dict[str, list[dict[int, tuple[Record, JobFact]]]] = defaultdict(list)
    for record, fact in facts:
        if isinstance(fact, JobFact):
            lives = jobs[fact.job]
            if begins(fact) or not lives:
                lives.append({})
            lives[-1].setdefault(fact.event.version, (record, fact))
    return {job: [list(versions.values()) for versions in lives] for job, lives in jobs.items()}


def expected_job(row: JobRow) -> dict[str, Any]:
    """A fold as the statement `jobs` would give it."""
    latest, current, created, exception = row.latest, row.current, row.created_with, row.exception
    first = json.decode(created.parameters) if created else {}
    return {
        "id": row.id,
        "lane": row.lane,
        "state": latest.state,
        "version": latest.version,
        "attempt": latest.attempt,
        "retry": row.retry or 0,
        "priority": priority_of(row) or 0,
        "queue": latest.queue,
        "task": latest.task,
        "created_at": datetime.fromisoformat(row.created_at),
        "changed_at": datetime.fromisoformat(row.changed_at),
        "due": datetime.fromisoformat(row.due) if row.due else None,
        "worker": current.worker if current else None,
        "lease": current.lease if current else None,
        "parent": row.parent,
        "continue_on": row.on,
        "exception_type": exception.type if exception else None,
        "exception_message": exception.message if exception else None,
        "spec": json.decode(row.spec) if row.spec is not None else None,
        "parameters": first | {name: json.decode(value) for name, value in (row.parameters or {}).items()},
        "log_offset": row.offset,
        "reason": current.reason if current else None,
    }


def plain(value: Any) -> Any:
    """A JSON value whose numbers are written in one way: jsonb writes 1e300 as 301 digits, and 1e2 as 100."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, int) and abs(value) > _EXACT_MAX:
        return float(value)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_MAX else value
