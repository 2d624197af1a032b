"""The hashes of each lane, of the log's side and of the tables' side: equal where both say the same. Pure."""

from collections.abc import Collection
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from joblog.projections.replay.verification.lane_sums import Sums
from joblog.projections.replay.verification.totals import Counts, Outcomes
from msgspec import Struct, msgpack

_encode: Final = msgpack.Encoder().encode


class Hashes(Struct, frozen=True):
    """The hashes of one side of a lane, each 16 hexadecimal digits.

    - rows: of `jobs`. history: of the events in `history`. counters: of `counts` and `outcomes`.
    """

    rows: str
    history: str
    counters: str


class LaneHashes(Struct, frozen=True):
    """Both sides of a lane, and how many jobs the log has there."""

    lane: int
    jobs: int
    log: Hashes
    tables: Hashes


class Side(NamedTuple):
    """What one side says of the lanes."""

    sums: Sums
    counts: Counts
    outcomes: Outcomes

    def hashes(self, lane: int) -> Hashes:
        """Its hashes of a lane."""
        counters = [
            sorted((rest, n) for (at, *rest), n in counted.items() if at == lane and n)
            for counted in (self.counts, self.outcomes)
        ]
        rows, history = self.sums.of(lane)
        return Hashes(*(f"{hash_of(one):016x}" for one in (rows, history, counters)))


def hash_of(value: Any) -> int:
    """A hash of 64 bits of what MessagePack can say."""
    return int.from_bytes(blake2b(_encode(value), digest_size=8).digest(), "big")


def lane_hashes(lanes: Collection[int], log: Side, tables: Side) -> list[LaneHashes]:
    """The hashes of these lanes."""
    return [LaneHashes(lane, log.sums.jobs[lane], log.hashes(lane), tables.hashes(lane)) for lane in sorted(lanes)]
