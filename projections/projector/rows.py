"""What a batch says as rows for the statements of apply.sql. Pure."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from joblog.projections.projector.decode import RejectedFact, WorkerFact
from joblog.projections.projector.event_batch import Parked, Record
from joblog.projections.projector.fold import JobRow
from msgspec import json

#: The events with which a job, or a run of it, came to an end, unless a filter elected another state after it.
ENDS: Final = frozenset({"job.succeeded", "job.failed", "job.deleted"})
_encode: Final = json.Encoder().encode


def job_row(row: JobRow) -> tuple[Any, ...]:
    """A row of `staged_jobs`, in the order of its columns."""
    latest, current, created, exception = row.latest, row.current, row.created_with, row.exception
    return (
        row.id,
        row.lane,
        latest.state,
        row.first_version,
        latest.version,
        current.version if current else None,
        latest.attempt,
        row.retry,
        created.priority if created else None,
        current.lease if current else None,
        row.created_at,
        row.changed_at,
        row.due,
        row.first_offset,
        row.offset,
        row.log_ms,
        row.parent,
        latest.queue,
        latest.task,
        current.worker if current else None,
        row.on,
        exception.type if exception else None,
        exception.message if exception else None,
        defaults(row),
        str(_encode(row.parameters), "utf-8") if row.parameters else None,
        row.spec,
    )


def is_whole(row: JobRow) -> bool:
    """Whether the row is all that is to be known of the job, if the tables do not hold it.

    A row that has parameters of both kinds is for the database to put together.
    """
    return row.first_version == 1 and (row.parameters is None or defaults(row) is None)


def new_job_row(row: JobRow) -> tuple[Any, ...]:
    """A row of `jobs`, for a whole row; the order of columns is that of the statement `copy_new_jobs`."""
    latest, current, created, exception = row.latest, row.current, row.created_with, row.exception
    return (
        row.id,
        row.lane,
        latest.state,
        latest.version,
        current.version if current else None,
        latest.attempt,
        row.retry or 0,
        created.priority if created else 0,
        current.lease if current else None,
        row.created_at,
        row.changed_at,
        row.due,
        row.offset,
        row.parent,
        latest.queue,
        latest.task,
        current.worker if current else None,
        row.on,
        exception.type if exception else None,
        exception.message if exception else None,
        str(_encode(row.parameters), "utf-8") if row.parameters else defaults(row),
        row.spec,
    )


def counts_of(rows: Iterable[JobRow]) -> dict[str, Any]:
    """How many of these jobs are where, as the statement `count_new` takes it."""
    counted = Counter((row.lane, row.latest.queue, str(row.latest.state)) for row in rows)
    lanes, queues, states = zip(*counted, strict=True)
    return {"lanes": list(lanes), "queues": list(queues), "states": list(states), "n": list(counted.values())}


def ends_of(history: Iterable[tuple[Any, ...]]) -> dict[str, Any] | None:
    """How many of these rows are ends, by lane, hour and state, as the statement `count_ends` takes it; or None."""
    counted = Counter(
        (lane, f"{at[:13]}:00:00Z", str(state))
        for _, _, lane, state, traversed, _, at, _, kind, _, _ in history
        if kind in ENDS and not traversed
    )
    if not counted:
        return None
    lanes, hours, states = zip(*counted, strict=True)
    return {"lanes": list(lanes), "hours": list(hours), "states": list(states), "n": list(counted.values())}


def defaults(row: JobRow) -> str | None:
    """The parameters that the job was created with, as JSON; None for none."""
    if row.created_with is None or bytes(row.created_with.parameters) == b"{}":
        return None
    return str(row.created_with.parameters, "utf-8")


def worker_row(record: Record, fact: WorkerFact) -> dict[str, Any]:
    event = fact.event
    return {
        "id": event.worker,
        "state": fact.state,
        "queues": list(event.queues),
        "tasks": list(event.tasks),
        "slots": event.slots,
        "host": event.host,
        "pid": event.pid,
        "started_at": event.started_at,
        "heartbeat": datetime.fromisoformat(fact.at),
        "lane": record.lane,
        "log_offset": record.offset,
    }


def rejected_row(record: Record, fact: RejectedFact) -> dict[str, Any]:
    event = fact.event
    return {
        "lane": record.lane,
        "log_offset": record.offset,
        "at": fact.at,
        "code": event.code,
        "reason": event.reason,
        "command": event.command,
        "command_id": event.command_id,
        "job": event.job_id,
        "position": event.position,
    }


def parked_row(one: Parked) -> dict[str, Any]:
    record = one.record
    return {
        "lane": record.lane,
        "log_offset": record.offset,
        "log_ms": record.log_ms,
        "code": one.code,
        "reason": one.reason,
        "raw": record.value,
    }
