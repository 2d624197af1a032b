"""Events of other services as trigger functions get them: CloudEvents in structured or binary mode, or plain JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from joblog.streams.contract.cloudevents import (
    PREFIX,
    Attribute,
    check_text,
    explained,
    read_attributes,
    read_json,
    texts_of,
)
from joblog.streams.contract.fields import Instant, Message
from joblog.streams.contract.record_headers import Headers, is_name
from joblog.streams.errors import InvalidData, UndecodableRecord
from joblog.streams.triggers.records import Record
from pydantic import ValidationError

_CLOUDEVENT: Final = "application/cloudevents"
#: 9999-12-31, the last day that a datetime has.
_TIMESTAMP_MS_MAX: Final = 253_402_214_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingEvent:
    """An event of another service.

    - id, source: together they name the event; sent again, it has the same, and makes no second job.
    - type: None for plain JSON, which names none.
    - subject: what it is about, if it says so.
    - time: the event's own, or else when Kafka got it.
    - data: a JSON value; None if the event has no data.
    - topic, partition, offset, key, headers: of its record.

    Who is given one may change its data and headers: each call of a function gets its own.

    Plain JSON gets the topic as its source, and as its id its place and when Kafka got it
    (`topic/partition/offset@milliseconds`): in a topic that is created again, other events come to the same places.
    """

    id: str
    source: str
    type: str | None
    subject: str | None
    time: datetime
    data: Any
    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: Headers


class _Attributes(Message):
    id: Attribute
    source: Attribute
    type: Attribute
    subject: str | None = None
    time: Instant | None = None


def read_event(record: Record) -> IncomingEvent | None:
    """The event in a record; None for a tombstone, by which a compacted topic forgets a key.

    A tombstone has no value, and does not say that it is a CloudEvent. UndecodableRecord or InvalidData for what is
    not JSON, or says that it is a CloudEvent and is not a valid one.
    """
    _check_names(record.headers)
    named = texts_of(record.headers)
    received = datetime.fromtimestamp(min(max(record.timestamp_ms, 0), _TIMESTAMP_MS_MAX) / 1000, UTC)
    if any(name.startswith(PREFIX) for name in named):
        return _cloudevent(record, received, _binary(record.value, named))
    is_marked = named.get("content-type", "").lower().startswith(_CLOUDEVENT)
    if record.value is None:
        if is_marked:
            raise UndecodableRecord("the record says that it is a CloudEvent, but has no value")
        return None
    document = read_json(record.value)
    if is_marked or (isinstance(document, dict) and "specversion" in document):
        return _cloudevent(record, received, read_attributes(record.value, {}))
    return _event(record, f"{record.place}@{record.timestamp_ms}", record.topic, received, document)


def _check_names(headers: Headers) -> None:
    for name, _ in headers:
        if not is_name(name):
            raise UndecodableRecord(f"the name of a header is not UTF-8: {name!a:.60}")


def _binary(value: bytes | None, named: Mapping[str, str]) -> dict[str, Any]:
    if f"{PREFIX}specversion" not in named:
        raise UndecodableRecord(f"it has headers of a CloudEvent, but no {PREFIX}specversion")
    return read_attributes(value or b"null", named)


def _cloudevent(record: Record, received: datetime, found: Mapping[str, Any]) -> IncomingEvent:
    kept = {name: found[name] for name in _Attributes.model_fields.keys() & found.keys()}
    if not isinstance(kept.get("time"), str | None):
        raise InvalidData("time: it must be a text, as RFC 3339 has it")
    check_text(kept, "event")
    try:
        attributes = _Attributes.model_validate(kept)
    except ValidationError as error:
        raise InvalidData(explained(error)) from error
    return _event(
        record,
        attributes.id,
        attributes.source,
        attributes.time or received,
        found.get("data"),
        attributes.type,
        attributes.subject,
    )


def _event(
    record: Record,
    id_: str,
    source: str,
    time: datetime,
    data: Any,
    type_: str | None = None,
    subject: str | None = None,
) -> IncomingEvent:
    return IncomingEvent(
        id=id_,
        source=source,
        type=type_,
        subject=subject,
        time=time,
        data=data,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        headers=list(record.headers),
    )
