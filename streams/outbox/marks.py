"""The mark of an outbox: which rows the last committed transaction of its relay put into the log. Pure.

A row is named by its id and a fingerprint of its command: a database that was restored from a backup gives ids again,
and a row that has one of those must not be taken for one that is in the log.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec
from joblog.streams.contract.codec import VALUE_BYTES_MAX
from joblog.streams.errors import InvalidData


class Row(NamedTuple):
    """A command in an outbox; `lanes` is how many the installation has, as its writer was told."""

    id: int
    lanes: int
    lane: int
    key: str
    value: bytes
    created_s: float


class Mark(msgspec.Struct, frozen=True):
    """The ids of rows, each with the fingerprint of its value."""

    rows: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Mark":
        return cls(tuple((row.id, fingerprint(row.value)) for row in rows))

    def holds(self, rows: Iterable[Row]) -> list[int]:
        """The ids of those of these rows that are in the log."""
        known = set(self.rows)
        return [row.id for row in rows if (row.id, fingerprint(row.value)) in known]


#: The mark of an outbox of which nothing was relayed yet.
NOTHING: Final = Mark()
_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Mark)


def fingerprint(value: bytes) -> str:
    """A short name of a command that no other one has: commands hold ids of their own."""
    return blake2b(value, digest_size=8).hexdigest()


def encode_mark(mark: Mark) -> bytes:
    return _encoder.encode(mark)


def decode_mark(value: bytes) -> Mark:
    """Raises InvalidData for what no relay has written."""
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError as exc:
        raise InvalidData(f"the mark of an outbox cannot be read: {exc}") from exc


def problem_of(row: Row, lanes: int) -> str | None:
    """Why a row cannot be relayed whenever it is tried; None if it can."""
    if row.lanes != lanes:
        return f"written for {row.lanes} lanes, but there are {lanes}: set JOBLOG_LANES where it was written"
    if not 0 <= row.lane < lanes:
        return f"there is no lane {row.lane}: lanes are 0 to {lanes - 1}"
    if len(row.value) > VALUE_BYTES_MAX:
        return f"the command has {len(row.value)} bytes, more than the {VALUE_BYTES_MAX} of any command"
    return None
