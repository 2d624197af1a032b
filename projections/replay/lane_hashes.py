"""The hashes of each lane, of the log's side and of the tables' side: equal where both say the same. Pure.

Of rows and history they are the sums of the hashes of single rows and events, in whatever order those come.
"""

from collections import defaultdict
from collections.abc import Collection
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from joblog.projections.replay.totals import Counts, Outcomes
from msgspec import Struct, msgpack

_encode: Final = msgpack.Encoder().encode
_MOST: Final = 2**64


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

    @property
    def holds(self) -> bool:
        return self.log == self.tables


class Sums:
    """What the rows and the history of one side add up to, by lane."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = defaultdict(int)
        self.history: dict[int, int] = defaultdict(int)
        self.jobs: dict[int, int] = defaultdict(int)

    def add(self, lane: int, row: int, history: int) -> None:
        """Add one job."""
        self.jobs[lane] += 1
        self.rows[lane] += row
        self.history[lane] += history


def hash_of(value: Any) -> int:
    """A hash of 64 bits of what MessagePack can say."""
    return int.from_bytes(blake2b(_encode(value), digest_size=8).digest(), "big")


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
        rows, history = self.sums.rows[lane] % _MOST, self.sums.history[lane] % _MOST
        return Hashes(f"{rows:016x}", f"{history:016x}", f"{hash_of(counters):016x}")


def lane_hashes(lanes: Collection[int], log: Side, tables: Side) -> list[LaneHashes]:
    """The hashes of these lanes."""
    return [LaneHashes(lane, log.sums.jobs[lane], log.hashes(lane), tables.hashes(lane)) for lane in sorted(lanes)]
