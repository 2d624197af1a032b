"""One partition of a delay topic as the delays process has it, and what it holds of a record."""

import logging
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from confluent_kafka import Message
from joblog.streams.contract.deadletters import internal_error
from joblog.streams.contract.fields import match_job_id
from joblog.streams.contract.record_headers import Headers, readable_headers
from joblog.streams.contract.wire import Timer
from joblog.streams.delays.wheel import Shelf, leaves_ms
from joblog.streams.errors import InternalError, InvalidData, UndecodableRecord

log = logging.getLogger(__name__)

#: No timer of ours is longer; what is made of one has to fit into a record of another topic.
VALUE_BYTES_MAX: Final = 10_000

decode_timer: Final = msgspec.json.Decoder(Timer).decode


@dataclass(frozen=True, slots=True)
class Unusable:
    """A record that becomes a dead letter: as it came, and why; `code` is one word.

    It is no timer, or handling it raised an exception that nobody foresaw.
    """

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None
    code: str
    reason: str

    @property
    def is_bare(self) -> bool:
        """Whether nothing is left that could be left out."""
        return self.key is None and self.headers is None

    def bare(self) -> "Unusable":
        """The same without key and headers, for a dead letter that could not be sent with them."""
        return replace(self, key=None, headers=None)


@dataclass(slots=True, eq=False)
class Partition:
    """What is held of a partition, from which offset on, and how far that is committed.

    Timers are held as they came, in bytes, which are small. `start` may be logical, such as OFFSET_BEGINNING.
    """

    topic: str
    lane: int
    tier: str
    shelf: Shelf[bytes | Unusable]
    start: int
    is_paused: bool = False
    committed: int | None = None

    @property
    def position(self) -> int:
        """The offset to go on from after a crash."""
        return self.start if self.shelf.position is None else self.shelf.position

    def keep(self, message: Message, now_ms: int) -> None:
        """Hold the record until it leaves: a timer at its time, anything else at once."""
        offset, value = offset_of(message), message.value() or b""
        item: bytes | Unusable = value
        try:
            timer = _timer(value)
            leaves = leaves_ms(self.tier, timer.due_ms, message.timestamp()[1], now_ms)
        except (ValueError, RecursionError, InvalidData) as exc:
            item, leaves = _no_timer(message, exc), now_ms
        except Exception as exc:  # one record that is odd in a new way must not stop its partition
            log.exception(
                "delays.record.failed", extra={"topic": self.topic, "partition": self.lane, "offset": offset}
            )
            error = internal_error(exc)
            item, leaves = _unusable(message, error.code, error.details), now_ms
        self.shelf.add(offset, leaves, item)


def failed(offset: int, item: bytes | Unusable, error: InternalError) -> Unusable | None:
    """What becomes of a record on its way out that raised `error`; None if nothing can be tried any more.

    Of a timer only its value is held. A dead letter that could not be sent is tried once more without what may
    be the reason.
    """
    if isinstance(item, bytes):
        return Unusable(offset, None, item, None, error.code, error.details)
    return None if item.is_bare else item.bare()


def offset_of(message: Message) -> int:
    """The offset that every record read from the log has."""
    offset = message.offset()
    assert offset is not None
    return offset


def _timer(value: bytes) -> Timer:
    if len(value) > VALUE_BYTES_MAX:
        raise InvalidData(f"{len(value)} bytes, more than {VALUE_BYTES_MAX}")
    timer = decode_timer(value)
    if not match_job_id(timer.job_id):
        raise InvalidData(f"job_id: {timer.job_id!r:.100} is no job id")
    return timer


def _no_timer(message: Message, exc: Exception) -> Unusable:
    is_invalid = isinstance(exc, msgspec.ValidationError | InvalidData)
    code = InvalidData.code if is_invalid else UndecodableRecord.code
    return _unusable(message, code, f"no timer: {exc}")


def _unusable(message: Message, code: str, reason: str) -> Unusable:
    return Unusable(offset_of(message), message.key(), message.value(), readable_headers(message), code, reason)
