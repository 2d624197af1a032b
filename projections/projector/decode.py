"""Records of the topic `events` to facts; the fast way first, the careful way for what that refuses."""

from collections.abc import Callable, Container, Mapping
from datetime import UTC, datetime
from functools import lru_cache, reduce
from operator import or_
from types import NoneType
from typing import Any, Final, Literal, cast, get_args, get_type_hints

from joblog.projections.schema.history import JobEvent, details
from joblog.streams.contract import events, wire
from joblog.streams.contract.cloudevents import Headers, check_text, explained, read_envelope
from joblog.streams.contract.fields import is_queue, match_job_id
from joblog.streams.contract.relations import LimitScope
from joblog.streams.contract.states import State
from joblog.streams.contract.timestamps import format_time
from joblog.streams.contract.upcast import upcast_event
from joblog.streams.errors import InvalidData, UnknownType
from joblog.streams.lane.job import EVENT_TYPES, NOTE_TYPES, event_type
from msgspec import DecodeError, Raw, Struct, defstruct, json
from pydantic import TypeAdapter, ValidationError


class Created(Struct, frozen=True, gc=False):
    """Of what a job was created with, what its row has, and its batch; parameters as JSON."""

    priority: int = 0
    parameters: Raw = wire.EMPTY_OBJECT
    batch: str | None = None
    parents: wire.Parents | None = None


class JobFact(Struct, frozen=True, gc=False):
    """An event of a job, ready to be folded and kept.

    - at: when it happened, RFC 3339 in UTC; due likewise.
    - data: its JSON as it came; created_with: of the JobSpec of a first event.
    """

    job: str
    type: str
    at: str
    event: JobEvent
    data: bytes
    due: str | None = None
    created_with: Created | None = None

    @property
    def spec(self) -> str | None:
        """The JobSpec of a first event, as the JSON that came."""
        return None if self.created_with is None else str(self.event.spec, "utf-8")

    @property
    def details(self) -> str:
        """What this type of event adds, as JSON."""
        return str(details(self.type, self.event), "utf-8")


class WorkerFact(Struct, frozen=True):
    """An event of a worker; `state` is what it makes of it: running, stopped or lost."""

    state: str
    at: str
    event: wire.WorkerEvent


class BatchFact(Struct, frozen=True):
    """An event of a batch."""

    batch: str
    at: str
    event: wire.BatchEvent


class RejectedFact(Struct, frozen=True):
    """A command that could not be done."""

    at: str
    event: wire.CommandRejected


class ControlFact(Struct, frozen=True):
    """An event of a queue that is paused, or has a limit, or of a bulk operation; `type` is the CloudEvent's."""

    type: str
    at: str
    event: wire.QueueEvent | wire.LimitChanged | wire.BulkStarted | wire.BulkAdvanced | wire.BulkEnded


class LimitFact(Struct, frozen=True):
    """The limit of a key was set. No table holds that: the limits that jobs use are read from the jobs themselves."""

    at: str
    event: wire.LimitChanged


class SoughtFact(Struct, frozen=True):
    """A lane seeks a job that it does not know. No table holds that: it is answered (answers.py)."""

    at: str
    event: wire.ParentSought


Fact = LimitFact | SoughtFact | JobFact | WorkerFact | BatchFact | RejectedFact | ControlFact


class _JobSpec(wire.JobSpec, frozen=True, forbid_unknown_fields=True):
    """Decoded with what it carries unread, to see that all of it can be: that no number in it is too great.

    Fields that a newer writer has added are left out by the careful way.
    """

    args: list[Any] = []  # type: ignore[assignment]
    kwargs: dict[str, Any] = {}  # type: ignore[assignment]


class _Attributes(Struct, gc=False):
    """Of the CloudEvent only what is used here, and not its data."""

    specversion: Literal["1.0"]
    type: str
    subject: str | None = None
    time: str | None = None


class _Envelope(_Attributes, gc=False, kw_only=True):
    data: Raw


#: Job event type -> the state it leads to; None when the state stays.
STATES: Final[Mapping[str, State | None]] = {
    **{kind: state for state, kind in EVENT_TYPES.items()},
    "job.parameter_set": None,
    **dict.fromkeys(NOTE_TYPES.values()),
}
#: Job event type -> the fields that it has and others may lack.
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "job.scheduled": ("due",),
    "job.processing": ("worker", "lease"),
    "job.succeeded": ("worker", "lease", "duration_ms", "latency_ms"),
    "job.failed": ("exception",),
    "job.parameter_set": ("name",),
    "job.held": ("waits_for",),
    "job.priority_set": ("priority",),
    "job.parent_ended": ("parent", "outcome"),
}
WORKER_STATES: Final[Mapping[str, str]] = {
    "worker.started": "running",
    "worker.alive": "running",
    "worker.stopped": "stopped",
    "worker.lost": "lost",
    "worker.quieted": "quiet",
    "worker.resumed": "running",
    "worker.stop_ordered": "stopping",
}

#: The types of batch events, and the states that some of them lead to.
BATCH_STATES: Final[Mapping[str, State | None]] = {
    **dict.fromkeys(("batch.created", "batch.started", "batch.progressed", "batch.cancelled")),
    "batch.succeeded": State.SUCCEEDED,
    "batch.failed": State.FAILED,
    "batch.deleted": State.DELETED,
}

_envelope: Final = json.Decoder(_Envelope).decode
_attributes: Final = json.Decoder(_Attributes).decode
_spec: Final = json.Decoder(_JobSpec).decode
_object: Final = json.Decoder(dict[str, Any]).decode
_any: Final = json.Decoder().decode
_worker_event: Final = json.Decoder(wire.WorkerEvent).decode
_batch_event: Final = json.Decoder(wire.BatchEvent).decode
_limit_event: Final = json.Decoder(wire.LimitChanged).decode
_sought_event: Final = json.Decoder(wire.ParentSought).decode
_rejected: Final = json.Decoder(wire.CommandRejected).decode
CONTROLS: Final[Mapping[str, json.Decoder[Any]]] = {
    **dict.fromkeys(("queue.paused", "queue.drained", "queue.resumed"), json.Decoder(wire.QueueEvent)),
    "bulk.started": json.Decoder(wire.BulkStarted),
    "bulk.advanced": json.Decoder(wire.BulkAdvanced),
    "bulk.ended": json.Decoder(wire.BulkEnded),
}
_OTHERS: Final = frozenset({"limit.changed", "parent.sought", "command.rejected"})
_KNOWN: Final = frozenset({*STATES, *WORKER_STATES, *BATCH_STATES, *CONTROLS, *_OTHERS})
_model: Final = TypeAdapter[events.Event](events.Event)


def _reader(kind: str) -> Callable[[bytes], JobEvent]:
    """A decoder of JobEvent that refuses events of this type without the fields which it requires."""
    hints = get_type_hints(JobEvent, include_extras=True)
    required = [
        (name, reduce(or_, (one for one in get_args(hints[name]) if one is not NoneType)))
        for name in REQUIRED.get(kind, ())
    ]
    made = defstruct("JobEvent", required, bases=(JobEvent,), frozen=True, kw_only=True, gc=False)
    return cast("json.Decoder[JobEvent]", json.Decoder(made)).decode


#: Job event type -> what reads its data, and the state it leads to.
_JOB_EVENTS: Final = {kind: (_reader(kind), state) for kind, state in STATES.items()}


def read_event(value: bytes | None, headers: Headers | None, log_ms: int, seen: Container[str] = ()) -> Fact:
    """The fact in a record that the broker wrote at `log_ms`; raises a ContractError that says what is wrong.

    What is in `seen` is known to be the id of a job.
    """
    if value is not None:
        try:
            if not value.isascii():
                value.decode()  # what is carried unread is not looked at by the decoder
            envelope, data = _divided(value)
            return _fact(envelope.type, envelope.subject, envelope.time, data, log_ms, seen)
        except (ValueError, RecursionError):
            pass  # not the fast shape: the careful way accepts more spellings, or says what is wrong
    return _read_carefully(value, headers, log_ms)


#: What stands between the attributes of an event and its data, the last member, as electors write it.
_DATA: Final = b',"data":{'


def _divided(value: bytes) -> tuple[_Attributes, bytes]:
    """The attributes and the data. Raises DecodeError, or leaves that to the decoder of the data.

    If what is before the mark is an object when it is closed there, and what follows is an object, too, then the
    value is both of them: this costs half of looking for the end of the data.
    """
    if (mark := value.find(_DATA)) > 0:
        try:
            return _attributes(value[:mark] + b"}"), value[mark + len(_DATA) - 1 : -1]
        except DecodeError:
            pass  # the mark belongs to an attribute
    envelope = _envelope(value)
    return envelope, bytes(envelope.data)


def _read_carefully(value: bytes | None, headers: Headers | None, log_ms: int) -> Fact:
    envelope = read_envelope(value, headers)
    kind, data = upcast_event(envelope.type, envelope.data)
    if kind not in _KNOWN:
        raise UnknownType(f"no event has the type {kind:.100}")
    check_text(data, "data")
    try:
        model = _model.validate_python({**data, "type": kind})
        return _fact(kind, envelope.subject, envelope.time, model.model_dump_json().encode(), log_ms)
    except ValidationError as error:
        raise InvalidData(explained(error)) from error
    except ValueError as error:
        raise InvalidData(str(error)) from error


def _fact(
    kind: str, subject: str | None, time: str | None, data: bytes, log_ms: int, seen: Container[str] = ()
) -> Fact:
    """Raises ValueError (DecodeError is one) for what does not fit."""
    at = utc(time) if time is not None else format_time(log_ms)
    if (found := _JOB_EVENTS.get(kind)) is not None:
        read, expected = found
        if subject is None or (subject not in seen and not match_job_id(subject)):
            raise ValueError("subject: not a job id")
        event = read(data)
        if (expected is not event.state and expected is not None) or event_type(event) != kind:
            raise ValueError(f"state: {event.state} does not fit {kind}")
        _check_parent(kind, event)
        for carried in (event.result, event.value):
            if carried is not wire.NO_RAW:
                _any(carried)  # no number in it may be too great
        due = utc(event.due) if event.due is not None else None
        created = _created(event.spec) if event.spec is not wire.NO_RAW else None
        return JobFact(subject, kind, at, event, data, due, created)
    return _rare_fact(kind, subject, at, data)


def _rare_fact(kind: str, subject: str | None, at: str, data: bytes) -> Fact:
    """What an event says that is none of a job."""
    if kind in WORKER_STATES:
        worker = _worker_event(data)
        _in_utc(worker.started_at)
        state = WORKER_STATES[kind]
        is_quiet = worker.quiet and state == "running" and kind != "worker.resumed"  # it has not announced that yet
        return WorkerFact("quiet" if is_quiet else state, at, worker)
    if kind in BATCH_STATES:
        return _batch_fact(kind, subject, at, _batch_event(data))
    if kind == "command.rejected":
        return RejectedFact(at, _rejected(data))
    if kind == "limit.changed":
        limit = _limit_event(data)
        is_of_queue = limit.scope is LimitScope.QUEUE
        return ControlFact(kind, at, _checked(limit)) if is_of_queue else LimitFact(at, limit)
    if kind == "parent.sought":
        return SoughtFact(at, _checked(_sought_event(data)))
    if kind in CONTROLS:
        return ControlFact(kind, at, _checked(CONTROLS[kind].decode(data)))
    raise ValueError("type")


def _check_parent(kind: str, event: JobEvent) -> None:
    if event.parent is not None and not match_job_id(event.parent):
        raise ValueError("parent: not a job id")
    if kind == "job.awaiting" and (event.parent is None) is not (event.on is None):
        raise ValueError("parent and on: both or neither")
    if event.outcome is not None and event.outcome.result is not wire.NO_RAW:
        _any(event.outcome.result)


def _batch_fact(kind: str, subject: str | None, at: str, event: wire.BatchEvent) -> BatchFact:
    if subject is None or not match_job_id(subject):
        raise ValueError("subject: not the id of a batch")
    if BATCH_STATES[kind] not in {None, event.state} or (kind == "batch.cancelled" and not event.cancelled):
        raise ValueError(f"state: {event.state} does not fit {kind}")
    for other in (event.batch, event.parent):
        if other is not None and not match_job_id(other):
            raise ValueError("batch, parent: not an id")
    _in_utc(event.created_at)
    return BatchFact(subject, at, event)


def _checked(event: Any) -> Any:
    """What such an event says, if its names are names and its times have a place."""
    if isinstance(event, wire.QueueEvent):
        if not is_queue(event.queue):
            raise ValueError("queue: not the name of a queue")
        if event.until is not None:
            _in_utc(event.until)
    elif isinstance(event, wire.LimitChanged):
        if not is_queue(event.key):
            raise ValueError("key: not the name of a queue")
    elif isinstance(event, wire.ParentSought):
        if not match_job_id(event.parent):
            raise ValueError("parent: not a job id")
        _in_utc(event.until)
    elif not match_job_id(event.operation):
        raise ValueError("operation: not an id")
    elif isinstance(event, wire.BulkAdvanced) and event.cursor is not None and not match_job_id(event.cursor):
        raise ValueError("cursor: not a job id")
    return event


def _created(text: Raw) -> Created | None:
    if bytes(text) == b"null":
        return None
    spec = _spec(text)
    if spec.batch is not None and not match_job_id(spec.batch):
        raise ValueError("spec.batch: not the id of a batch")
    if spec.parents is not None and not all(map(match_job_id, spec.parents.job_ids)):
        raise ValueError("spec.parents: not the ids of jobs")
    if spec.parameters is wire.EMPTY_OBJECT:
        is_plain = not spec.priority and spec.batch is None and spec.parents is None
        return PLAIN if is_plain else Created(spec.priority, batch=spec.batch, parents=spec.parents)
    _object(spec.parameters)
    return Created(spec.priority, spec.parameters, spec.batch, spec.parents)


#: What most jobs are created with: no priority, no parameters.
PLAIN: Final = Created()


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
