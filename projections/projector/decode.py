"""Records of the topic `events` to facts; the fast way first, the careful way for what that refuses."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal

from joblog.streams.contract import events, wire
from joblog.streams.contract.cloudevents import Headers, check_text, explained, read_envelope
from joblog.streams.contract.fields import JOB_ID_PATTERN
from joblog.streams.contract.states import State
from joblog.streams.contract.timestamps import format_time
from joblog.streams.contract.upcast import upcast_event
from joblog.streams.errors import InvalidData, UnknownType
from joblog.streams.lane.job import EVENT_TYPES
from msgspec import Raw, Struct, json
from pydantic import TypeAdapter, ValidationError


class JobFact(Struct, frozen=True, gc=False):
    """An event of a job, ready to be folded and kept.

    - at: when it happened, RFC 3339 in UTC; due likewise.
    - details: what this type of event adds, as JSON; spec: the JobSpec of a first event, as JSON.
    """

    job: str
    type: str
    at: str
    event: wire.JobEvent
    details: str
    due: str | None = None
    spec: str | None = None
    created_with: wire.JobSpec | None = None


class WorkerFact(Struct, frozen=True):
    """An event of a worker; `state` is what it makes of it: running, stopped or lost."""

    state: str
    at: str
    event: wire.WorkerEvent


class RejectedFact(Struct, frozen=True):
    """A command that could not be done."""

    at: str
    event: wire.CommandRejected


Fact = JobFact | WorkerFact | RejectedFact


class _Envelope(Struct, gc=False):
    """Of the CloudEvent only what is used here."""

    specversion: Literal["1.0"]
    type: str
    data: Raw
    subject: str | None = None
    time: str | None = None


class _JobEvent(wire.JobEvent, frozen=True):
    """As it is decoded: msgspec understands no union with Raw."""

    spec: Raw = wire.NO_RAW


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


#: Job event type -> the state it leads to; None when the state stays.
STATES: Final[Mapping[str, State | None]] = {
    **{kind: state for state, kind in EVENT_TYPES.items()},
    "job.parameter_set": None,
}
#: Job event type -> the fields that it has and others may lack.
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "job.scheduled": ("due",),
    "job.awaiting": ("parent", "on"),
    "job.processing": ("worker", "lease"),
    "job.succeeded": ("worker", "lease", "duration_ms", "latency_ms"),
    "job.failed": ("exception",),
    "job.parameter_set": ("name",),
}
WORKER_STATES: Final[Mapping[str, str]] = {
    "worker.started": "running",
    "worker.alive": "running",
    "worker.stopped": "stopped",
    "worker.lost": "lost",
}

_envelope: Final = json.Decoder(_Envelope).decode
_job_event: Final = json.Decoder(_JobEvent).decode
_spec: Final = json.Decoder(wire.JobSpec).decode
#: What a JobSpec carries unread, and what each is.
_CARRIED: Final[tuple[tuple[str, type[Any]], ...]] = (("args", list), ("kwargs", dict), ("parameters", dict))
_any: Final = json.Decoder().decode
_worker_event: Final = json.Decoder(wire.WorkerEvent).decode
_rejected: Final = json.Decoder(wire.CommandRejected).decode
_encode: Final = json.Encoder().encode
_model: Final = TypeAdapter[events.Event](events.Event)
_is_job_id: Final = re.compile(JOB_ID_PATTERN).fullmatch


def read_event(value: bytes | None, headers: Headers | None, log_ms: int) -> Fact:
    """The fact in a record that the broker wrote at `log_ms`; raises a ContractError that says what is wrong."""
    if value is not None:
        try:
            envelope = _envelope(value)
            return _fact(envelope.type, envelope.subject, envelope.time, envelope.data, log_ms)
        except (ValueError, RecursionError):
            pass  # not the fast shape: the careful way accepts more spellings, or says what is wrong
    return _read_carefully(value, headers, log_ms)


def _read_carefully(value: bytes | None, headers: Headers | None, log_ms: int) -> Fact:
    envelope = read_envelope(value, headers)
    kind, data = upcast_event(envelope.type, envelope.data)
    if kind not in STATES and kind not in WORKER_STATES and kind != "command.rejected":
        raise UnknownType(f"no event has the type {kind:.100}")
    check_text(data, "data")
    try:
        model = _model.validate_python({**data, "type": kind})
        return _fact(kind, envelope.subject, envelope.time, Raw(model.model_dump_json().encode()), log_ms)
    except ValidationError as error:
        raise InvalidData(explained(error)) from error
    except ValueError as error:
        raise InvalidData(str(error)) from error


def _fact(kind: str, subject: str | None, time: str | None, data: Raw, log_ms: int) -> Fact:
    """Raises ValueError (DecodeError is one) for what does not fit."""
    at = utc(time) if time is not None else format_time(log_ms)
    if kind in STATES:
        return _job_fact(kind, subject, at, _job_event(data))
    if kind in WORKER_STATES:
        worker = _worker_event(data)
        _in_utc(worker.started_at)
        return WorkerFact(WORKER_STATES[kind], at, worker)
    if kind == "command.rejected":
        return RejectedFact(at, _rejected(data))
    raise ValueError("type")


def _job_fact(kind: str, subject: str | None, at: str, event: _JobEvent) -> JobFact:
    if subject is None or not _is_job_id(subject):
        raise ValueError("subject: not a job id")
    expected = STATES[kind]
    if (expected is None) != (event.name is not None) or (expected is not None and expected is not event.state):
        raise ValueError(f"state: {event.state} does not fit {kind}")
    for field in REQUIRED.get(kind, ()):
        if getattr(event, field) is None:
            raise ValueError(f"{field}: missing")
    for carried in (event.result, event.value):
        if carried is not wire.NO_RAW:
            _any(carried)  # no number in it may be too great
    details = str(_encode(_details(kind, event)), "utf-8")
    due = utc(event.due) if event.due is not None else None
    if event.spec is wire.NO_RAW or bytes(event.spec) == b"null":
        return JobFact(subject, kind, at, event, details, due)
    created_with = _spec(event.spec)
    said: dict[str, Any] = _any(event.spec)
    if any(type(said.get(name, made())) is not made for name, made in _CARRIED):
        raise ValueError("spec: args is no array, or kwargs or parameters no object")
    return JobFact(subject, kind, at, event, details, due, str(event.spec, "utf-8"), created_with)


def _details(kind: str, event: wire.JobEvent) -> _Details:
    return _Details(
        event.queue if kind == "job.enqueued" else None,  # a requeue may change it
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
    )


@lru_cache(maxsize=8192)
def utc(text: str) -> str:
    """An RFC 3339 time in UTC; ValueError if it is none, has no zone, or lies beyond the calendar there."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"time: {text!r} has no zone")
    return _in_utc(instant).isoformat()


def _in_utc(instant: datetime) -> datetime:
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"time: {instant.isoformat()} is beyond the calendar in UTC") from error
