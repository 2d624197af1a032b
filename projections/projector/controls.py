"""Events of queues and of bulk operations, as the statements of apply.sql that note them. Pure."""

from datetime import UTC, datetime
from typing import Any, Final, LiteralString

from joblog.projections.projector.decode import ControlFact
from joblog.projections.projector.event_batch import Record
from joblog.projections.statements import load
from joblog.streams.contract import wire
from msgspec import json

_SQL: Final = load("projector/apply.sql")
_QUEUES: Final = {"queue.paused": "pause_queue", "queue.drained": "drain_queue", "queue.resumed": "resume_queue"}
_encode: Final = json.Encoder().encode


def control_statement(record: Record, fact: ControlFact) -> tuple[LiteralString, dict[str, Any]]:
    """The statement for an event, and its values."""
    event = fact.event
    values: dict[str, Any] = {"lane": record.lane, "log_offset": record.offset, "at": fact.at}
    if isinstance(event, wire.QueueEvent):
        values |= {"queue": event.queue, "state": paused_state(event), "until": event.until}
        return _SQL[_QUEUES[fact.type]], values | {"by": event.by, "reason": event.reason}
    if isinstance(event, wire.LimitChanged):
        return _limit_statement(event, values)
    values["id"] = event.operation
    if isinstance(event, wire.BulkAdvanced):
        return _SQL["advance_bulk"], values | {"sent": event.sent, "cursor": event.cursor}
    values |= {"by": event.by, "reason": event.reason}
    if isinstance(event, wire.BulkEnded):
        return _SQL["end_bulk"], values | {"sent": event.sent, "state": event.outcome.value}
    values |= {"action": event.action.value, "filter": filter_text(event), "fence": list(event.fence)}
    values |= {"rate": event.rate, "queue": event.queue, "priority": event.priority, "matched": event.matched}
    return _SQL["start_bulk"], values


def _limit_statement(event: wire.LimitChanged, values: dict[str, Any]) -> tuple[LiteralString, dict[str, Any]]:
    values["queue"] = event.key
    if event.capacity is None:
        return _SQL["clear_queue_limit"], values
    values |= {"kind": event.kind.value, "capacity": event.capacity, "interval_s": event.interval_s}
    return _SQL["set_queue_limit"], values | {"by": event.by, "reason": event.reason}


def paused_state(event: wire.QueueEvent) -> str:
    """The state of a queue that was paused in this way."""
    return "draining" if event.drain else "paused"


def filter_text(event: wire.BulkStarted) -> str:
    """The filter of an operation as JSON."""
    return str(_encode(event.filter), "utf-8")


#: Rows as they are, by table, lane and key: what the events of queues and operations lead to.
ControlRows = dict[str, dict[str, Any]]


def apply_control(rows: ControlRows, lane: int, offset: int, fact: ControlFact) -> None:
    """What the statements above make of the rows; so a verification can tell what they must be."""
    event = fact.event
    place = {"lane": lane, "log_offset": offset}
    at = datetime.fromisoformat(fact.at).astimezone(UTC).isoformat()
    if isinstance(event, wire.QueueEvent):
        key = f"paused_queues/{lane}/{event.queue}"
        if fact.type == "queue.resumed":
            rows.pop(key, None)
        elif fact.type == "queue.paused":
            until = event.until.astimezone(UTC).isoformat() if event.until is not None else None
            said = {"queue": event.queue, "state": paused_state(event), "since": at, "until": until}
            rows[key] = {**place, **said, "paused_by": event.by, "reason": event.reason}
        elif key in rows:
            rows[key] |= {**place, "state": "drained"}
        return
    if isinstance(event, wire.LimitChanged):
        key = f"queue_limits/{lane}/{event.key}"
        rows.pop(key, None)
        if event.capacity is not None:
            said = {"queue": event.key, "kind": event.kind.value, "since": at, "set_by": event.by}
            counted = {"capacity": event.capacity, "interval_s": event.interval_s}
            rows[key] = {**place, **said, **counted, "reason": event.reason}
        return
    key = f"bulk/{event.operation}"
    if isinstance(event, wire.BulkStarted):
        rows[key] = {
            **place,
            "id": event.operation,
            "state": "running",
            "action": event.action.value,
            "filter": filter_text(event),
            "fence": list(event.fence),
            "rate": event.rate,
            "queue": event.queue,
            "priority": event.priority,
            "matched": event.matched,
            "sent": 0,
            "cursor": None,
            "started_by": event.by,
            "reason": event.reason,
            "started_at": at,
            "changed_at": at,
            "ended_by": None,
            "end_reason": None,
        }
    elif key not in rows:
        return
    elif isinstance(event, wire.BulkAdvanced):
        rows[key] |= {"sent": event.sent, "cursor": event.cursor, "changed_at": at, "log_offset": offset}
    else:
        ended = {"state": event.outcome.value, "sent": event.sent, "ended_by": event.by, "end_reason": event.reason}
        rows[key] |= {**ended, "changed_at": at, "log_offset": offset}
