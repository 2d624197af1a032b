"""What a batch says as rows for the statements of apply.sql. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from joblog.projections.projector.decode import BatchFact, JobFact, RejectedFact, WorkerFact
from joblog.projections.projector.event_batch import Parked, Record, kept
from joblog.projections.projector.fold import JobRow, priority_of
from joblog.streams.contract.states import State
from joblog.streams.contract.wire import EMPTY_OBJECT
from msgspec import json

_encode: Final = json.Encoder().encode


def job_row(row: JobRow) -> tuple[Any, ...]:
    """A row of `staged_jobs`, in the order of its columns."""
    latest, current, exception = row.latest, row.current, row.exception
    return (
        row.id,
        row.changed_at,
        row.first_offset,
        row.offset,
        row.first_version,
        latest.version,
        latest.attempt,
        latest.state,
        latest.queue,
        latest.task,
        current.version if current else None,
        current.lease if current else None,
        current.worker if current else None,
        row.log_ms,
        row.created_at,
        row.lane,
        row.retry,
        priority_of(row),
        row.due,
        row.parent,
        row.on,
        exception.type if exception else None,
        exception.message if exception else None,
        defaults(row),
        str(_encode(row.parameters), "utf-8") if row.parameters else None,
        str(row.spec, "utf-8") if row.spec is not None else None,
    )


def staged_event(record: Record, fact: JobFact) -> tuple[Any, ...]:
    """A row of `staged_history`, in the order of its columns."""
    event = fact.event
    return (
        fact.job,
        event.version,
        record.lane,
        event.state,
        event.traversed,
        event.attempt,
        fact.at,
        fact.type,
        record.offset,
        event.reason,
        kept(record, fact).decode(),
    )


def counted(new: Iterable[JobRow], moves: Iterable[tuple[Any, ...]]) -> dict[str, Any]:
    """Where there are more jobs than before, and where fewer, as the statement `count_new` takes it.

    `moves` are rows of the statements `move_jobs` and `change_jobs`.
    """
    places: Counter[tuple[int, str, str]] = Counter()
    for row in new:
        places[row.lane, row.latest.queue, row.latest.state] += 1
    for lane, old_queue, old_state, queue, state, n in moves:
        places[lane, old_queue, old_state] -= n
        places[lane, queue, state] += n
    lanes, queues, states = zip(*places, strict=True) if places else ((), (), ())
    return {
        "lanes": list(lanes),
        "queues": list(queues),
        "states": list(map(str, states)),
        "n": list(places.values()),
    }


def ends_of(ends: Mapping[tuple[int, str, State], int]) -> dict[str, Any]:
    """How many events are ends, by lane, hour and state, as the statement `count_ends` takes it."""
    lanes, hours, states = zip(*ends, strict=True)
    return {
        "lanes": list(lanes),
        "hours": [f"{hour}:00:00Z" for hour in hours],
        "states": list(map(str, states)),
        "n": list(ends.values()),
    }


def defaults(row: JobRow) -> str | None:
    """The parameters that the job was created with, as JSON; None for none."""
    if row.created_with is None or (parameters := row.created_with.parameters) is EMPTY_OBJECT:
        return None
    text = str(parameters, "utf-8")
    return None if text == "{}" else text


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


def batch_row(record: Record, fact: BatchFact) -> dict[str, Any]:
    event = fact.event
    return {
        "id": fact.batch,
        "created_at": event.created_at,
        "changed_at": datetime.fromisoformat(fact.at),
        "log_offset": record.offset,
        "total": event.total,
        "created": event.created,
        "succeeded": event.succeeded,
        "failed": event.failed,
        "deleted": event.deleted,
        "batch": event.batch,
        "parent": event.parent,
        "version": event.version,
        "state": event.state,
        "lane": record.lane,
        "cancelled": event.cancelled,
        "continue_on": event.on,
        "description": event.description,
        "reason": event.reason,
    }


def members(rows: Iterable[tuple[str, str, int]]) -> dict[str, Any]:
    """The jobs of batches, as the statement `add_members` takes them."""
    batches, jobs, offsets = zip(*rows, strict=True)
    return {"batches": list(batches), "jobs": list(jobs), "offsets": list(offsets)}


def parents(rows: Iterable[tuple[str, str, int, int]]) -> dict[str, Any]:
    """The parents of jobs, as the statement `add_parents` takes them."""
    known, jobs, offsets, lanes = zip(*rows, strict=True)
    return {"parents": list(known), "jobs": list(jobs), "offsets": list(offsets), "lanes": list(lanes)}


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
        "existing": event.existing,
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
