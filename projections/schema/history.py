"""How the table `history` keeps the events of a job: as they came, several in a row. Pure.

A row holds a run of a job's events without a gap: `events[1]` is the event of the row's `version`, and its
neighbours follow, up to `last_version`. Each is a JSON array: its lane and offset in the log, its time (RFC 3339, in
UTC), its CloudEvent type, and its data as the elector wrote them; but for the spec, which is kept with the job.
"""

from datetime import datetime
from struct import Struct as Format
from typing import Any, Final, NamedTuple

from joblog.streams.contract import wire
from joblog.streams.contract.states import State
from msgspec import Raw, Struct, json

#: A row has so many events at most, so that reading one of them does not cost reading a thousand.
EVENTS_MAX: Final = 16


class JobEvent(wire.JobEvent, frozen=True):
    """The data of a job's event as they are decoded here: msgspec knows no union with Raw."""

    spec: Raw = wire.NO_RAW


class HistoryRow(NamedTuple):
    """An event of a job; `details` is what its type adds to what all have, as JSON."""

    version: int
    lane: int
    state: State
    traversed: bool
    attempt: int
    at: str
    log_offset: int
    type: str
    reason: str | None
    details: bytes


class _Kept(Struct, array_like=True, gc=False):
    lane: int
    offset: int
    time: str
    type: str
    data: JobEvent


class _Details(Struct, omit_defaults=True, gc=False):
    """What the types of job events add to what all have; the fields as in wire.JobEvent."""

    queue: str | None = None
    due: str | None = None
    retry: int = 0
    lost: int = 0
    parent: str | None = None
    on: Any = None
    worker: str | None = None
    lease: int | None = None
    result: Raw = wire.NO_RAW
    result_omitted: str | None = None
    duration_ms: float | None = None
    latency_ms: float | None = None
    exception: wire.JobException | None = None
    name: str | None = None
    value: Raw = wire.NO_RAW
    waits_for: str | None = None
    priority: int | None = None
    progress: float | None = None
    lines: tuple[str, ...] = ()
    outcome: wire.Outcome | None = None


_kept: Final = json.Decoder(_Kept).decode
_encode: Final = json.Encoder().encode
_length: Final = Format(">i").pack


def written(lane: int, offset: int, at: str, kind: str, data: bytes) -> bytes:
    """An event as an element of `events`; `data` is a JSON object."""
    return f'[{lane},{offset},"{at}","{kind}",'.encode() + data + b"]"


def element(value: bytes) -> bytes:
    """An element of an array of text in the binary format."""
    return _length(len(value)) + value


def read(text: str | bytes) -> HistoryRow:
    """What `written` was given."""
    kept = _kept(text)
    return history_row(kept.lane, kept.offset, kept.time, kept.type, kept.data)


def event_of(text: str | bytes) -> JobEvent:
    """The data of the event that `written` was given."""
    return _kept(text).data


def history_row(lane: int, offset: int, at: str, kind: str, event: JobEvent) -> HistoryRow:
    """An event, of the given type and time, at its place in the log."""
    return HistoryRow(
        event.version,
        lane,
        event.state,
        event.traversed,
        event.attempt,
        at,
        offset,
        kind,
        event.reason,
        details(kind, event),
    )


def details(kind: str, event: wire.JobEvent) -> bytes:
    """What an event of this type adds to what all have, as a JSON object."""
    return _encode(
        _Details(
            event.queue if kind in {"job.enqueued", "job.moved"} else None,  # a requeue may change it
            event.due,
            event.retry,
            event.lost,
            event.parent,
            event.on,
            event.worker,
            event.lease,
            event.result,
            event.result_omitted,
            event.duration_ms,
            event.latency_ms,
            event.exception,
            event.name,
            event.value,
            event.waits_for,
            event.priority,
            event.progress,
            event.lines,
            event.outcome,
        )
    )


def shown(row: HistoryRow) -> dict[str, Any]:
    """An event as monitoring shows it."""
    named = row._asdict()
    return {**named, "at": datetime.fromisoformat(row.at), "data": json.decode(named.pop("details"))}
