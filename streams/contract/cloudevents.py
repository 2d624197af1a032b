"""CloudEvents 1.0 on Kafka, in structured and in binary mode, read with every check.

Source: CloudEvents 1.0.2 and its Kafka protocol binding. The hot path of codec.py reads most events faster; those
that it refuses are read here, and are accepted or get an error that names what is wrong.
"""

from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from joblog.streams.contract.fields import Message
from joblog.streams.errors import InvalidData, UndecodableRecord
from pydantic import StringConstraints, ValidationError
from pydantic_core import from_json

#: Headers as confluent-kafka gives them.
Headers = Mapping[str, str | bytes | None] | list[tuple[str, str | bytes | None]]
Attribute = Annotated[str, StringConstraints(min_length=1, max_length=1000)]

Traceparent = Annotated[str, StringConstraints(max_length=1000)]

#: Deeper JSON is refused; pydantic's parser stops at 200, Postgres and Python's own later.
DEPTH_MAX: Final = 100
#: Longer integers are refused: Python reads no more digits (sys.int_info.default_max_str_digits).
DIGITS_MAX: Final = 4_300
#: What the names of attributes begin with, as headers.
PREFIX: Final = "ce_"


class Envelope(Message):
    """The attributes of an event that Joblog looks at, and its data as a JSON object."""

    id: Attribute
    source: Attribute
    type: Attribute
    subject: str | None = None
    time: str | None = None
    causationid: str | None = None
    traceparent: Traceparent | None = None
    data: dict[str, Any]


_KEPT: Final = Envelope.model_fields.keys() - {"data"}


def read_envelope(value: bytes | None, headers: Headers | None) -> Envelope:
    """The event in a record of either mode; raises UndecodableRecord, or InvalidData for wrong attributes."""
    if value is None:
        raise UndecodableRecord("the record has no value")
    attributes = read_attributes(value, texts_of(headers))
    # Of an extension that nobody here reads, nothing is kept.
    check_text({name: attributes[name] for name in _KEPT & attributes.keys()}, "event")
    try:
        return Envelope.model_validate(attributes)
    except ValidationError as error:
        raise InvalidData(explained(error)) from error


def read_attributes(value: bytes, named: Mapping[str, str]) -> dict[str, Any]:
    """All attributes and the data of an event of either mode, of which only `specversion` was checked.

    `named` are the headers, from `texts_of`. Raises UndecodableRecord.
    """
    attributes = _binary(value, named) if f"{PREFIX}specversion" in named else _structured(value)
    if attributes.get("specversion") != "1.0":
        raise UndecodableRecord(f"specversion must be 1.0, not {attributes.get('specversion')!r:.50}")
    return attributes


def texts_of(headers: Headers | None) -> dict[str, str]:
    """The headers by their names in lower case; raises UndecodableRecord for one that is not UTF-8."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or []
    try:
        return {key.lower(): one.decode() if isinstance(one, bytes) else one for key, one in pairs if one is not None}
    except UnicodeDecodeError as error:
        raise UndecodableRecord(f"a header is not UTF-8: {error}") from error


def read_json(value: bytes) -> Any:
    """Any JSON value; raises UndecodableRecord."""
    try:
        return from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise UndecodableRecord(f"not JSON: {error}") from error


def explained(error: ValidationError) -> str:
    """The first two errors, in one line."""
    lines = (f"{'.'.join(map(str, one['loc'])) or 'value'}: {one['msg']}" for one in error.errors()[:2])
    return f"{error.error_count()} error(s); " + "; ".join(lines)


def check_text(value: Any, path: str = "$", levels_around: int = 0) -> None:
    """Refuse what Postgres cannot store or JSON cannot represent: NUL, infinite numbers, too much depth."""
    for where, one in _walk(value, path, levels_around):
        if isinstance(one, str) and "\x00" in one:
            raise InvalidData(f"{where} holds a NUL character, which Postgres cannot store")
        if isinstance(one, float) and one - one != 0:
            raise InvalidData(f"{where} is not a finite number")


def _walk(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > DEPTH_MAX:
        raise InvalidData(f"nested deeper than {DEPTH_MAX} levels")
    if isinstance(value, dict):
        for key, one in value.items():
            yield f"{path} key", key
            yield from _walk(one, f"{path}.{key!s:.50}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from _walk(one, f"{path}[{index}]", depth + 1)
    else:
        yield path, value


def _structured(value: bytes) -> dict[str, Any]:
    document = read_json(value)
    if not isinstance(document, dict):
        raise UndecodableRecord("a CloudEvent is a JSON object")
    encoded = document.pop("data_base64", None)
    if encoded is not None:
        document["data"] = read_json(_decoded(encoded))
    return document


def _decoded(text: Any) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise UndecodableRecord(f"data_base64 is not base64: {error}") from error


def _binary(value: bytes, named: Mapping[str, str]) -> dict[str, Any]:
    kind = named.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise UndecodableRecord(f"content-type must be JSON, not {kind!r:.50}")
    attributes: dict[str, Any] = {
        key.removeprefix(PREFIX): text for key, text in named.items() if key.startswith(PREFIX)
    }
    return {**attributes, "data": read_json(value)}
