"""Rows of the tables as the models that monitoring answers with. Pure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from joblog.projections.monitor.models import (
    Continuation,
    HistoryEntry,
    Job,
    JobDetails,
    LogLine,
    Progress,
    Queue,
    RecurringRun,
    Rejected,
)
from joblog.projections.schema.history import read, shown
from joblog.streams.contract.events import JobException
from joblog.streams.contract.recurring import Cause
from joblog.streams.contract.states import State
from joblog.streams.lane.job import EVENT_TYPES
from msgspec import json

Row = Mapping[str, Any]
#: Log lines that are shown with a job; `Monitor.log_lines` has all.
LINES_SHOWN_MAX: Final = 100
_TRANSITIONS: Final = frozenset(EVENT_TYPES.values())


def job(row: Row) -> Job:
    """A row of the statement `described`."""
    return Job(**_fields(row))


def details(
    row: Row,
    events: tuple[HistoryEntry, ...],
    continuations: Iterable[Row],
    rejected: Iterable[Row],
    waits_for: str | None,
) -> JobDetails:
    """A row of the statement `job`, its history, newest first, and what belongs to it."""
    return JobDetails(
        **_fields(row),
        waits_for=waits_for,
        progress=progress(events),
        lines=last_lines(events),
        spec=row["spec"],
        parameters=row["parameters"],
        history=events,
        continuations=tuple(Continuation(**one) for one in continuations),
        rejected=tuple(Rejected(**one) for one in rejected),
        log_offset=row["log_offset"],
    )


def progress(history: Iterable[HistoryEntry]) -> Progress | None:
    """What a run said last of its progress; the history is newest first."""
    for entry in history:
        if "progress" in entry.data:
            return Progress(at=entry.at, attempt=entry.attempt, share=entry.data["progress"], text=entry.reason)
    return None


def last_lines(history: Iterable[HistoryEntry]) -> tuple[LogLine, ...]:
    """The last lines that runs logged, oldest first; the history is newest first."""
    lines: list[LogLine] = []
    for entry in history:
        lines[:0] = log_lines(entry.model_dump())
        if len(lines) >= LINES_SHOWN_MAX:
            break
    return tuple(lines[-LINES_SHOWN_MAX:])


def log_lines(event: Row) -> list[LogLine]:
    """The lines of an event."""
    place = {name: event[name] for name in ("at", "attempt", "version")}
    return [LogLine(**place, text=line) for line in event["data"].get("lines", ())]


def with_durations(rows: Iterable[Row]) -> tuple[HistoryEntry, ...]:
    """History, newest first, each transition with the seconds until the next one."""
    entries: list[HistoryEntry] = []
    left_at: datetime | None = None
    for row in rows:
        event = shown(read(row["event"]))
        is_transition = event["type"] in _TRANSITIONS
        lasted = (left_at - event["at"]).total_seconds() if is_transition and left_at is not None else None
        entries.append(HistoryEntry(**event, lasted_s=lasted))
        left_at = event["at"] if is_transition else left_at
    return tuple(entries)


def recurring_run(row: Row) -> RecurringRun:
    """A row of the statement `recurring_runs`; its parameters may have been set to anything."""
    try:
        occurrence = datetime.fromisoformat(row["occurrence"]).astimezone(UTC)
    except (ValueError, OverflowError):
        occurrence = None
    fields = {name: row[name] for name in RecurringRun.model_fields if name in row}
    fields |= {
        "job_id": row["id"],
        "occurrence": occurrence,
        "cause": row["cause"] if row["cause"] in set(Cause) else None,
        "error": None if row["exception_type"] is None else f"{row['exception_type']}: {row['exception_message']}",
    }
    return RecurringRun(**fields)


def queue(row: Row, counts: Iterable[Row], now: datetime) -> Queue:
    """A row of the statement `queues`, and the rows of `counts`."""
    by_state = dict.fromkeys(State, 0)
    by_state |= {State(one["state"]): one["n"] for one in counts if one["queue"] == row["name"]}
    made = Queue(**row, counts=by_state, oldest_waiting_s=None)
    if not made.first_jobs:
        return made
    waited = (now - made.first_jobs[0].since).total_seconds()
    return made.model_copy(update={"oldest_waiting_s": max(waited, 0.0)})


def _fields(row: Row) -> dict[str, Any]:
    spec, event = row["spec"] or {}, row["event"]
    current = shown(read(event)) if event is not None else {"reason": json.decode(row.get("reason") or "null")}
    data = current.get("data", {})
    same = {name: row[name] for name in Job.model_fields if name in row}
    brought = {name: data.get(name) for name in ("result", "result_omitted", "duration_ms", "latency_ms")}
    given = {"args": spec.get("args", ()), "kwargs": spec.get("kwargs", {})} if spec else {}
    return {**same, **brought, **given, "reason": current["reason"], "exception": _exception(row, data)}


def _exception(row: Row, data: Row) -> JobException | None:
    if row["state"] == State.FAILED and "exception" in data:
        return JobException.model_validate(data["exception"])
    if row["exception_type"] is None:
        return None
    return JobException(type=row["exception_type"], message=row["exception_message"])
