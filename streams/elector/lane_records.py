"""The records of the `state` topic: live jobs, what features keep, and the lane's own.

Private to electors, and compacted: the last record of a key is what holds. Jobs are MessagePack arrays, read by
position; the rest is small.
"""

from typing import Final

from joblog.streams.lane.features.catalog import DECODERS
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import StateValue
from msgspec import Struct, msgpack

LANE_KEY: Final = "lane"
ASIDE_KEY: Final = "aside"

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


class LaneAside(Struct, frozen=True, array_like=True):
    """Why a lane stands still: written when its elector sets it aside, a tombstone when it works again.

    - code: one word, such as `log_lost`; reason: a line for people, with what to do; details: the traceback.
    - at_ms: since when. elector: transactional id of the elector that set it aside.
    """

    code: str
    reason: str
    details: str
    at_ms: int
    elector: str


_lane: Final = msgpack.Decoder(LaneRecord).decode
_aside: Final = msgpack.Decoder(LaneAside).decode


def write_state(value: StateValue | LaneRecord | LaneAside) -> bytes | None:
    """The record's value; None is a tombstone."""
    return None if value is None else _encode(value)


def read_state(key: str, value: bytes) -> StateValue | LaneRecord | LaneAside:
    """What a record says, by its key."""
    if key == LANE_KEY:
        return _lane(value)
    if key == ASIDE_KEY:
        return _aside(value)
    for prefix, decode in DECODERS.items():
        if key.startswith(prefix):
            found: StateValue = decode(value)
            return found
    return _job(value)
