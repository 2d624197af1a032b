"""One partition of a delay topic as the delays process has it, and what it holds of a record."""

import re
from dataclasses import dataclass
from typing import Final

import msgspec
from confluent_kafka import Message
from joblog.streams.contract.fields import JOB_ID_PATTERN
from joblog.streams.contract.record_headers import Headers, readable_headers
from joblog.streams.contract.wire import Timer
from joblog.streams.delays.wheel import Shelf, leaves_ms
from joblog.streams.errors import InvalidData, UndecodableRecord

#: No timer of ours is longer; what is made of one has to fit into a record of another topic.
VALUE_BYTES_MAX: Final = 10_000

decode_timer: Final = msgspec.json.Decoder(Timer).decode
_is_job_id: Final = re.compile(JOB_ID_PATTERN).fullmatch


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A record that is no timer, as it came, and why it is none; `code` is one word."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None
    code: str
    reason: str


@dataclass(slots=True, eq=False)
class Partition:
    """What is held of a partition, from which offset on, and how far that is committed.

    Timers are held as they came, in bytes, which are small. `start` may be logical, such as OFFSET_BEGINNING.
    """

    topic: str
    lane: int
    tier: str
    shelf: Shelf[bytes | Undecodable]
    start: int
    is_paused: bool = False
    committed: int | None = None

    @property
    def position(self) -> int:
        """The offset to go on from after a crash."""
        return self.start if self.shelf.position is None else self.shelf.position

    def keep(self, message: Message, now_ms: int) -> None:
        """Hold the record until it leaves: a timer at its time, anything else at once."""
        value = message.value() or b""
        try:
            timer = _timer(value)
        except (ValueError, RecursionError, InvalidData) as exc:
            undecodable = _undecodable(message, exc)
            self.shelf.add(undecodable.offset, now_ms, undecodable)
        else:
            _, appended_ms = message.timestamp()
            self.shelf.add(offset_of(message), leaves_ms(self.tier, timer.due_ms, appended_ms, now_ms), value)


def _timer(value: bytes) -> Timer:
    if len(value) > VALUE_BYTES_MAX:
        raise InvalidData(f"{len(value)} bytes, more than {VALUE_BYTES_MAX}")
    timer = decode_timer(value)
    if not _is_job_id(timer.job_id):
        raise InvalidData(f"job_id: {timer.job_id!r:.100} is no job id")
    return timer


def offset_of(message: Message) -> int:
    """The offset that every record read from the log has."""
    offset = message.offset()
    assert offset is not None
    return offset


def _undecodable(message: Message, exc: Exception) -> Undecodable:
    return Undecodable(
        offset=offset_of(message),
        key=message.key(),
        value=message.value(),
        headers=readable_headers(message),
        code=InvalidData.code if isinstance(exc, msgspec.ValidationError | InvalidData) else UndecodableRecord.code,
        reason=f"no timer: {exc}",
    )
