"""The records of the `state` topic: live jobs, what features keep, and the lane's own.

Private to electors, and compacted: the last record of a key is what holds. Jobs are MessagePack arrays, read by
position; the rest is small.
"""

from enum import StrEnum
from typing import Final

from joblog.streams.lane.features.catalog import DECODERS
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import StateValue
from msgspec import Struct, msgpack

LANE_KEY: Final = "lane"
ASIDE_KEY: Final = "aside"
ORDER_KEY: Final = "order"
#: Keys that are not a feature's or a job's.
OWN_KEYS: Final = frozenset({LANE_KEY, ASIDE_KEY, ORDER_KEY})

_encode: Final = msgpack.Encoder().encode
_job: Final = msgpack.Decoder(Job).decode


class LaneRecord(Struct, frozen=True, array_like=True):
    """Where the lane's elector stands: written in each transaction that read from the lane.

    - owner: transactional id of the elector that has the lane; None after an orderly hand-over.
    - commands, reports: the next offset to read of each topic. They lie in the transaction that wrote what
      those records led to, so no expired or deleted consumer offset can make a lane read twice.
    """

    owner: str | None
    commands: int
    reports: int


class AsideCode(StrEnum):
    """Why a lane does not work.

    - log_lost: the next record of `commands` or `reports` to read is not in the log any more.
    - state_lost: `state` does not know the lane, although electors have worked on it.
    - state_unreadable: a record of `state` cannot be read.
    - internal_error: an exception that nobody foresaw, not caused by one record.
    - rebuilding: `joblog lanes rebuild` is writing the lane's state, or was interrupted.
    """

    LOG_LOST = "log_lost"
    STATE_LOST = "state_lost"
    STATE_UNREADABLE = "state_unreadable"
    INTERNAL_ERROR = "internal_error"
    REBUILDING = "rebuilding"


class LaneAside(Struct, frozen=True, array_like=True):
    """A lane that its elector has set aside: written then, and deleted when the lane works again.

    - reason: a line for people. details: the traceback, if there was an exception.
    - at_ms: since when, unix milliseconds. elector: transactional id of the elector that set it aside.
    """

    code: AsideCode
    reason: str
    details: str
    at_ms: int
    elector: str


class Action(StrEnum):
    """What an operator may ask of a lane that is set aside.

    - reload: load it again. skip: go on without what is lost or cannot be read.
    """

    RELOAD = "reload"
    SKIP = "skip"


class LaneOrder(Struct, frozen=True, array_like=True):
    """What an operator asks (`joblog lanes reload|skip`), deleted by the elector that has done it."""

    action: Action
    at_ms: int


_lane: Final = msgpack.Decoder(LaneRecord).decode
_aside: Final = msgpack.Decoder(LaneAside).decode
_order: Final = msgpack.Decoder(LaneOrder).decode

#: Whatever a record of `state` may say.
StateRecord = StateValue | LaneRecord | LaneAside | LaneOrder


def write_state(value: StateRecord) -> bytes | None:
    """The record's value; None is a tombstone."""
    return None if value is None else _encode(value)


def read_state(key: str, value: bytes) -> StateRecord:
    """What a record says, by its key."""
    if key == LANE_KEY:
        return _lane(value)
    if key == ASIDE_KEY:
        return _aside(value)
    if key == ORDER_KEY:
        return _order(value)
    for prefix, decode in DECODERS.items():
        if key.startswith(prefix):
            found: StateValue = decode(value)
            return found
    return _job(value)
