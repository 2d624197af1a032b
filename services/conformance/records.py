"""Producers' records from files: one CloudEvent or record a line, or a single JSON document.

A line is the value of a record as it is, byte for byte, unless it is an object with `value` or `value_base64` and no
`specversion`: that is a record, with `key`, `headers` and `partition` if it likes. A `value` that is not a text is
written as JSON.
"""

from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

from joblog.services.conformance.judge import SentRecord
from joblog.streams.errors import InvalidData
from msgspec import UNSET, DecodeError, Meta, Raw, Struct, ValidationError, json


class RecordLine(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A record as a line of JSON: `value_base64` is for what is no text; without either, the record has no value."""

    value: Any = UNSET
    value_base64: str | None = None
    key: str | None = None
    headers: dict[str, str] = {}
    partition: Annotated[int, Meta(ge=0)] | None = None

    def record(self) -> SentRecord:
        headers: list[tuple[str, str | bytes | None]] = list(self.headers.items())
        key = None if self.key is None else self.key.encode()
        return SentRecord(self._value(), key, headers, self.partition)

    def _value(self) -> bytes | None:
        if self.value_base64 is not None:
            return b64decode(self.value_base64, validate=True)
        if self.value is UNSET or self.value is None:
            return None
        return self.value.encode() if isinstance(self.value, str) else json.encode(self.value)


_line: Final = json.Decoder(RecordLine).decode


def read_records(path: Path) -> Iterator[tuple[str, SentRecord]]:
    """Each record with its place, `FILE:LINE`; InvalidData for a file that cannot be read."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InvalidData(f"{path}: {error.strerror}") from error
    for place, value in _documents(path.name, text):
        yield place, _record(place, value)


def _documents(name: str, text: bytes) -> Iterator[tuple[str, bytes]]:
    """The lines; or, of a file that is one JSON document over several lines, it, or the items of its array."""
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) > 1 or text.lstrip()[:1] == b"[":
        try:
            whole = json.decode(text, type=list[Raw] if text.lstrip()[:1] == b"[" else Raw)
        except (DecodeError, RecursionError):
            pass
        else:
            several = whole if isinstance(whole, list) else [whole]
            yield from ((f"{name}:{n}", bytes(one)) for n, one in enumerate(several, 1))
            return
    yield from ((f"{name}:{n}", line) for n, line in lines)


def _record(place: str, value: bytes) -> SentRecord:
    try:
        found = json.decode(value)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return SentRecord(value)
    if not isinstance(found, dict) or "specversion" in found or not found.keys() & {"value", "value_base64"}:
        return SentRecord(value)
    try:
        return _line(value).record()
    except (ValidationError, ValueError) as error:
        raise InvalidData(f"{place}: a record has value, key, headers and partition, and no more: {error}") from error
