"""Records as JSON Lines, so that each comes back byte for byte.

An event's JSON stands in its line as it came, where it is one line of proper JSON; whatever is not, as base64.
"""

import gzip
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

from joblog.streams.contract.record_headers import Headers
from msgspec import DecodeError, Raw, Struct, json

#: Fast: an archive is written once, and the broker waits.
_LEVEL: Final = 1


class Archived(NamedTuple):
    """A record of the log."""

    lane: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None


#: Left out of a line because it is this very object.
_NO_EVENT: Final = Raw(b"")


class _Line(Struct, omit_defaults=True):
    lane: int
    offset: int
    timestamp_ms: int
    key: str | None = None
    key_base64: str | None = None
    headers: list[tuple[str, str | None]] | None = None
    value_base64: str | None = None
    event: Raw = _NO_EVENT


_encode: Final = json.Encoder().encode
_decode: Final = json.Decoder(_Line).decode
_raw: Final = json.Decoder(Raw).decode


def line(record: Archived) -> bytes:
    """A record as a line."""
    key, key_base64 = _text(record.key)
    value, value_base64, event = record.value, None, _NO_EVENT
    if value is not None:
        if _is_one_line_of_json(value):
            event = Raw(value)
        else:
            value_base64 = b64encode(value).decode()
    headers = None
    if record.headers is not None:
        headers = [(name, _base64(content)) for name, content in record.headers]
    told = _Line(record.lane, record.offset, record.timestamp_ms, key, key_base64, headers, value_base64, event)
    return _encode(told) + b"\n"


def record_of(text: bytes) -> Archived:
    """The record in a line; raises DecodeError."""
    told = _decode(text)
    key = told.key.encode() if told.key is not None else _bytes(told.key_base64)
    value = bytes(told.event) or _bytes(told.value_base64)
    headers: Headers | None = None
    if told.headers is not None:
        headers = [(name, _bytes(content)) for name, content in told.headers]
    return Archived(told.lane, told.offset, told.timestamp_ms, key, value, headers)


def read_lines(path: Path) -> Iterator[Archived]:
    """The records of a file, which may be packed."""
    with _opened(path) as file:
        for text in file:
            yield record_of(text)


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


class LineWriter:
    """Writes a file of lines; `size` is how many bytes they have, before they are packed."""

    def __init__(self, path: Path, *, is_packed: bool) -> None:
        # Without a name and a time in its header, a packed file depends on its contents only.
        self._raw = path.open("wb")
        self._file = gzip.GzipFile("", "wb", _LEVEL, self._raw, mtime=0) if is_packed else self._raw
        self.size = 0

    def write(self, records: list[Archived]) -> None:
        data = b"".join(map(line, records))
        self._file.write(data)
        self.size += len(data)

    def close(self) -> None:
        self._file.close()
        self._raw.close()


def _is_one_line_of_json(value: bytes) -> bool:
    if b"\n" in value or b"\r" in value:
        return False
    try:
        if not value.isascii():
            value.decode()
        return len(_raw(value)) == len(value)  # nothing but JSON: no space before or behind it
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _text(data: bytes | None) -> tuple[str | None, str | None]:
    """Bytes as text, or as base64 if they are none."""
    if data is None:
        return None, None
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, _base64(data)


def _base64(data: str | bytes | None) -> str | None:
    return None if data is None else b64encode(data.encode() if isinstance(data, str) else data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
