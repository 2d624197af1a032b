"""The timing wheel in the log: which tier a timer waits in, when it leaves, and what is held of a partition.

All records of a tier wait the same time, so they leave in the order in which they came: of a partition with a
billion timers only the first few need be in memory. A timer that leaves goes to the longest tier that does not
wait longer than what remains. Those due within a minute are in the tier `now`, whose records are all held, by
their own due time.

A partition is committed up to its lowest offset that is not done. What is done above that is done again after
a crash, which is harmless: the elector drops a report on a version that has moved on.
"""

from collections import deque
from heapq import heappop, heappush
from typing import Final, Generic, NamedTuple, TypeVar

from joblog.streams.contract.topics import WAITS_MS

T = TypeVar("T")

#: A timer of the tier `now` that is due later than this is in the wrong tier: it is placed again at once.
#: It would hold back the commits of its partition until then.
NOW_MS_MAX: Final = 120_000

#: A waiting tier holds a record this long at least, unless it is due: should the broker's clock be behind by
#: more than the tier's wait, its timers go round ten times a second, and not as fast as the machine can.
HOP_MS_MIN: Final = 100

#: A shelf is full, too, when it has so many times its capacity to remember behind a record that is not done.
OPEN_FACTOR: Final = 10


def leaves_ms(tier: str, due_ms: int, appended_ms: int, now_ms: int) -> int:
    """When a record read at `now_ms` leaves its tier: to be fired if it is due then, else to be placed again."""
    wait_ms = WAITS_MS[tier]
    if wait_ms == 0:
        return due_ms if due_ms - now_ms <= NOW_MS_MAX else now_ms
    return min(due_ms, max(appended_ms + wait_ms, now_ms + HOP_MS_MIN))


class Held(NamedTuple, Generic[T]):
    """A record in memory; ordered by when it leaves."""

    leaves_ms: int
    offset: int
    item: T


class Shelf(Generic[T]):
    """What is held of one partition.

    A record is added in the order of the log, taken when its time has come, and done when another topic has
    it; or put back, when that failed. `capacity` is a mark to stop reading at; what comes after it is kept.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._held: list[Held[T]] = []
        # Offsets in order, from the lowest that is not done; and those of them that are.
        self._open: deque[int] = deque()
        self._done: set[int] = set()
        self._position: int | None = None

    def __len__(self) -> int:
        return len(self._held)

    @property
    def is_full(self) -> bool:
        return len(self._held) >= self.capacity or len(self._open) >= self.capacity * OPEN_FACTOR

    @property
    def has_room(self) -> bool:
        """Half of the capacity is free, so that reading is worth resuming."""
        return len(self._held) <= self.capacity // 2 and len(self._open) <= self.capacity * OPEN_FACTOR // 2

    @property
    def next_ms(self) -> int | None:
        """When the next record leaves."""
        return self._held[0].leaves_ms if self._held else None

    @property
    def position(self) -> int | None:
        """The offset to go on from after a crash: all below it are done. None before the first record."""
        return self._open[0] if self._open else self._position

    def add(self, offset: int, leaves_ms: int, item: T) -> None:
        heappush(self._held, Held(leaves_ms, offset, item))
        self._open.append(offset)
        self._position = offset + 1

    def take(self, now_ms: int) -> Held[T] | None:
        """The record that should have left first, if its time has come."""
        return heappop(self._held) if self._held and self._held[0].leaves_ms <= now_ms else None

    def put_back(self, held: Held[T], leaves_ms: int) -> None:
        heappush(self._held, held._replace(leaves_ms=leaves_ms))

    def done(self, offset: int) -> None:
        self._done.add(offset)
        while self._open and self._open[0] in self._done:
            self._done.remove(self._open.popleft())
