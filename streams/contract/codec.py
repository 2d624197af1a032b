"""Reads commands and reports, and writes messages.

A command is read by its struct where that and its model must agree, and else by the model, which is the careful way.
A report is read by its struct only.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

from joblog.streams.contract import commands, wire
from joblog.streams.contract.cloudevents import DEPTH_MAX, DIGITS_MAX, Headers, check_text, explained, read_envelope
from joblog.streams.contract.fields import match_job_id
from joblog.streams.contract.report_checks import check_report
from joblog.streams.contract.shapes import is_job_id, is_limit, is_queue, is_task, is_time, is_unique
from joblog.streams.contract.unreadable import NOT_READABLE
from joblog.streams.contract.upcast import upcast_command
from joblog.streams.errors import InvalidData, UndecodableRecord, UnknownType
from msgspec import DecodeError, Meta, Raw, Struct, json
from msgspec import ValidationError as StructError
from pydantic import TypeAdapter, ValidationError

#: The largest value of a command or report, bytes: arguments and results have their own, smaller limit.
VALUE_BYTES_MAX: Final = 1_048_576

BACKSLASH: Final = ord("\\")

encode: Final = json.Encoder().encode


class _Envelope(Struct, gc=False):
    specversion: str
    id: str
    source: str
    type: str
    data: Raw
    subject: str | None = None
    time: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    data_base64: Any = None


Attribute = Annotated[str, Meta(min_length=1, max_length=1000)]


class _Creation(Struct, gc=False):
    """The envelope of a create command in its usual shape, decoded in one pass: what `_is_proper` checks, typed."""

    specversion: Literal["1.0"]
    id: Attribute
    source: Attribute
    type: Literal["job.create"]
    data: wire.CreateJob
    subject: str | None = None
    time: str | None = None
    causationid: str | None = None
    traceparent: Annotated[str, Meta(max_length=1000)] | None = None
    data_base64: None = None


_envelope: Final = json.Decoder(_Envelope).decode
_creation: Final = json.Decoder(_Creation).decode
_CHANGES: Final[Mapping[str, json.Decoder[Any]]] = {
    kind.type: json.Decoder(kind) for kind in get_args(wire.AnyChange)
}
_COMMANDS: Final[Mapping[str, json.Decoder[wire.Command]]] = {
    wire.CreateJob.type: json.Decoder(wire.CreateJob),
    **_CHANGES,
    **{kind.type: json.Decoder(kind) for kind in (*get_args(wire.AnyControl), *get_args(wire.AnyBatchCommand))},
}
_report: Final[json.Decoder[wire.AnyReport]] = json.Decoder(wire.AnyReport)
_command_model: Final = TypeAdapter[commands.Command](commands.Command)


def read_command(value: bytes | None, headers: Headers | None) -> wire.Received:
    """The command in a record; raises a ContractError that says what is wrong with it."""
    if value is not None and headers is None and _is_plain(value):
        try:
            creation = _creation(value)
            if _is_create(creation.data):
                return wire.Received(creation.id, creation.source, creation.data, creation.traceparent)
        except (DecodeError, RecursionError):
            if (changed := _read_change(value)) is not None:
                return changed
    return _read_command_carefully(value, headers)


def _read_change(value: bytes) -> wire.Received | None:
    """A command on an existing job, if it has the fast shape; the careful way accepts more, or says what is wrong."""
    try:
        envelope = _envelope(value)
        if _is_proper(envelope):
            command = _CHANGES[envelope.type].decode(envelope.data)
            if _is_change(command):
                return wire.Received(envelope.id, envelope.source, command, envelope.traceparent)
    except (DecodeError, KeyError, RecursionError):
        pass
    return None


def read_report(value: bytes | None) -> wire.AnyReport:
    """The report in a record; raises a ContractError that says what is wrong with it.

    Only Joblog's own roles write reports, so they are read by their structs alone. What structs do not check (names,
    text that Postgres cannot store, a result that is passed on without decoding it) is checked here.
    """
    if value is None:
        raise UndecodableRecord("the record has no value")
    _check_size(value)
    try:
        report = _report.decode(value)
        if BACKSLASH in value and b"\\u0000" in value:  # a number is found four times as fast as a byte string
            check_text(_any(value))
        check_report(report)
    except StructError as error:
        raise InvalidData(str(error)) from error
    except NOT_READABLE as error:
        raise UndecodableRecord(f"not JSON: {error}") from error
    return report


def _is_plain(value: bytes) -> bool:
    """Whether the fast decoder and the careful one must agree on a value.

    It has no \\u escapes and no endless numbers, is proper UTF-8, not too long, and has fewer brackets than the
    depth that is refused.
    """
    if value.count(b"[") + value.count(b"{") > DEPTH_MAX or len(value) > VALUE_BYTES_MAX:
        return False
    if len(value) > DIGITS_MAX and _has_long_number(value):
        return False
    if BACKSLASH in value and b"\\u" in value:  # a number is found four times as fast as a byte string
        return False
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


_long_number: Final = re.compile(b"[0-9]{%d}" % (DIGITS_MAX + 1)).search


def _has_long_number(value: bytes) -> bool:
    """Whether so many digits follow each other that one of these places is among them."""
    return any(
        value[place : place + 1].isdigit() and _long_number(value, place - DIGITS_MAX, place + DIGITS_MAX + 1)
        for place in range(DIGITS_MAX, len(value), DIGITS_MAX + 1)
    )


def _is_proper(envelope: _Envelope) -> bool:
    return (
        envelope.specversion == "1.0"
        and 0 < len(envelope.id) <= 1000
        and 0 < len(envelope.source) <= 1000
        and (envelope.traceparent is None or len(envelope.traceparent) <= 1000)
        and envelope.data_base64 is None
    )


def _is_create(create: wire.CreateJob) -> bool:
    """Whether its names fit their patterns, its time any calendar, and what is carried unread its place.

    Raises DecodeError where that is no array, no object, or holds a number that no reader could take.
    """
    if create.args is not wire.EMPTY_ARRAY:
        _array(create.args)
    if create.kwargs is not wire.EMPTY_OBJECT:
        _object(create.kwargs)
    if create.parameters:
        for one in create.parameters.values():
            json.decode(one)
    return (
        is_queue(create.queue)
        and is_task(create.task)
        and (create.job_id is None or match_job_id(create.job_id) is not None)
        and (create.parent is None or is_job_id(create.parent.job_id))
        and (create.run_at is None or is_time(create.run_at))
        and (create.deadline is None or is_time(create.deadline))
        and (create.batch is None or is_job_id(create.batch))
        and (create.parents is None or (create.parent is None and all(map(is_job_id, create.parents.job_ids))))
        and (not create.limits or all(map(is_limit, create.limits)))
        and (create.unique is None or is_unique(create.unique))
    )


def _is_change(change: wire.Change) -> bool:
    if getattr(change, "snapshot", None) is not None:
        return False  # rare, and much to check
    return (
        is_job_id(change.job_id)
        and (not isinstance(change, wire.RequeueJob) or change.queue is None or is_queue(change.queue))
        and (not isinstance(change, wire.RescheduleJob) or is_time(change.run_at))
        and (not isinstance(change, wire.MoveJob) or is_queue(change.queue))
    )


_any: Final = json.Decoder().decode
_array: Final = json.Decoder(list[Any]).decode
_object: Final = json.Decoder(dict[str, Any]).decode


def _check_size(value: bytes) -> None:
    if len(value) > VALUE_BYTES_MAX:
        raise InvalidData(f"the value has {len(value)} bytes, more than {VALUE_BYTES_MAX}")


def _read_command_carefully(value: bytes | None, headers: Headers | None) -> wire.Received:
    _check_size(value or b"")
    envelope = read_envelope(value, headers)
    kind, data = upcast_command(envelope.type, envelope.data)
    decoder = _COMMANDS.get(kind)
    if decoder is None:
        raise UnknownType(f"no command has the type {kind:.100}; known are {', '.join(_COMMANDS)}")
    if "type" in data:
        raise InvalidData("data.type: not a field; the type is the CloudEvent's")
    check_text(data, "data")
    try:
        model = _command_model.validate_python({**data, "type": kind})
    except ValidationError as error:
        raise InvalidData(explained(error)) from error
    text = model.model_dump_json(exclude={"type"})
    _check_size(text.encode())  # numbers may have become longer: 1e15 is written as 1000000000000000.0
    return wire.Received(envelope.id, envelope.source, decoder.decode(text), envelope.traceparent)
