"""Rates: when the next job may start, by the starts that the log holds.

All times are those of events (unix milliseconds, the clocks of the electors that wrote them), so a rate is exact as
the log measures it, whatever the clocks of its electors say: a permit names the time before which no event of a start
may lie. A permit that is not used yet counts as if its job started at that moment, be it granted long ago.

Where clocks differ by more than `SKEW_MS`, or one is set back so far, the interval is measured anew from then on,
since the alternative is to wait until that clock is right again.
"""

from heapq import heapify, heappop, heappush, nsmallest
from typing import Any, Final, Protocol

from joblog.streams.contract.relations import LimitKind

#: How far the clocks of electors may differ.
SKEW_MS: Final = 60_000
#: More slots of a window than this are remembered with rounded times, so that a record stays small.
EXACT_MAX: Final = 256


class Rate(Protocol):
    """How one rate counts."""

    def define(self, capacity: int, interval_ms: int) -> None:
        """Count by this definition from now on."""

    def earliest(self, now_ms: int) -> int | None:
        """The time before which the next job may not start; None if that depends on permits that are not used yet."""

    def reserve(self, now_ms: int) -> int:
        """Give out a permit; returns its earliest time."""

    def reserve_again(self) -> None:
        """A permit was given out before the rate was loaded."""

    def started(self, at_ms: int, is_reserved: bool) -> None:
        """A job started at this time, with a permit if `is_reserved`."""

    def given_back(self, from_ms: int, /) -> None:
        """A permit is not used."""

    def idle_ms(self) -> int:
        """When nothing will be left to remember, if no job starts any more."""

    def record(self) -> tuple[Any, ...]:
        """What has to be remembered, without permits that are not used."""


class Window:
    """A window, sliding or fixed: `capacity` slots; each start occupies one until its time has passed."""

    __slots__ = ("_capacity", "_counts", "_floor_ms", "_heap", "_interval_ms", "_is_fixed", "_occupied", "_reserved")

    def __init__(self, kind: LimitKind, record: tuple[Any, ...] = ()) -> None:
        self._is_fixed = kind is LimitKind.FIXED_WINDOW
        self._capacity, self._interval_ms, self._reserved = 1, 1, 0
        #: Slots that were free at some time and are: no event of a start that uses one may lie before it.
        self._floor_ms: int = record[0] if record else 0
        #: The time until which slots are occupied -> how many.
        self._counts: dict[int, int] = dict(record[1]) if record else {}
        self._heap = sorted(self._counts)
        self._occupied = sum(self._counts.values())

    def define(self, capacity: int, interval_ms: int) -> None:
        self._capacity, self._interval_ms = capacity, interval_ms

    def earliest(self, now_ms: int) -> int | None:
        self._free(now_ms)
        if self._reserved >= self._capacity:
            return None
        beyond = self._occupied + self._reserved - self._capacity
        if beyond < 0:
            return self._floor_ms
        if beyond == 0:
            return self._heap[0]
        for until_ms in nsmallest(beyond + 1, self._heap):
            beyond -= self._counts[until_ms]
            if beyond < 0:
                return until_ms
        raise AssertionError("fewer slots are occupied than were counted")

    def reserve(self, now_ms: int) -> int:
        from_ms = self.earliest(now_ms)
        assert from_ms is not None
        if self._occupied + self._reserved >= self._capacity:
            while self._heap and self._heap[0] < from_ms:
                self._pop()
            self._take_one(from_ms)
        self._reserved += 1
        return from_ms

    def reserve_again(self) -> None:
        self._reserved += 1

    def started(self, at_ms: int, is_reserved: bool) -> None:
        self._reserved -= is_reserved
        interval_ms = self._interval_ms
        until_ms = (at_ms // interval_ms + 1) * interval_ms if self._is_fixed else at_ms + interval_ms
        if self._capacity > EXACT_MAX and not self._is_fixed:
            grain = max(interval_ms // EXACT_MAX, 1)
            until_ms = -(-until_ms // grain) * grain
        self._occupy(until_ms)

    def given_back(self, from_ms: int) -> None:
        self._reserved -= 1
        if from_ms > self._floor_ms:
            self._occupy(from_ms)

    def idle_ms(self) -> int:
        return max(max(self._heap, default=0), self._floor_ms) + SKEW_MS

    def record(self) -> tuple[Any, ...]:
        return (self._floor_ms, tuple(self._counts.items()))

    def _free(self, now_ms: int) -> None:
        """Let slots go whose time has passed, and correct those that a clock far ahead has occupied."""
        heap = self._heap
        while heap and heap[0] <= now_ms:
            self._floor_ms = max(self._floor_ms, heap[0])
            self._pop()
        latest_ms = now_ms + self._interval_ms
        if heap and heap[0] > latest_ms + SKEW_MS:
            self._heap, self._counts = [latest_ms], {latest_ms: self._occupied}
        if self._floor_ms > now_ms + SKEW_MS:
            self._floor_ms = now_ms

    def _occupy(self, until_ms: int) -> None:
        if until_ms not in self._counts:
            self._counts[until_ms] = 0
            heappush(self._heap, until_ms)
        self._counts[until_ms] += 1
        self._occupied += 1

    def _pop(self) -> None:
        self._occupied -= self._counts.pop(heappop(self._heap))

    def _take_one(self, until_ms: int) -> None:
        self._counts[until_ms] -= 1
        self._occupied -= 1
        if not self._counts[until_ms]:
            del self._counts[until_ms]
            self._heap.remove(until_ms)
            heapify(self._heap)


class Bucket:
    """A token bucket: `capacity` tokens at most, and as many come back in an interval, one after another.

    A token has `interval_ms` units, so each millisecond brings `capacity` of them, and all numbers are whole.
    """

    __slots__ = ("_at_ms", "_capacity", "_interval_ms", "_reserved", "_units")

    def __init__(self, record: tuple[Any, ...] = ()) -> None:
        self._capacity, self._interval_ms, self._reserved = 0, 0, 0
        self._at_ms, self._units = 0, 0
        if record:
            self._at_ms, self._units, self._capacity, self._interval_ms = record

    def define(self, capacity: int, interval_ms: int) -> None:
        if self._interval_ms == 0:
            self._units = capacity * interval_ms
        elif self._interval_ms != interval_ms:
            self._units = self._units * interval_ms // self._interval_ms
        self._capacity, self._interval_ms = capacity, interval_ms
        self._units = min(self._units, capacity * interval_ms)

    def earliest(self, now_ms: int) -> int | None:
        if self._at_ms > now_ms + SKEW_MS:  # a clock was far ahead
            self._at_ms = now_ms
        if self._reserved >= self._capacity:
            return None
        missing = (self._reserved + 1) * self._interval_ms - self._units
        return self._at_ms + max(-(-missing // self._capacity), 0)

    def reserve(self, now_ms: int) -> int:
        from_ms = self.earliest(now_ms)
        assert from_ms is not None
        self._reserved += 1
        return from_ms

    def reserve_again(self) -> None:
        self._reserved += 1

    def started(self, at_ms: int, is_reserved: bool) -> None:
        self._reserved -= is_reserved
        at_ms = max(at_ms, self._at_ms)
        full = self._capacity * self._interval_ms
        self._units = min(full, self._units + (at_ms - self._at_ms) * self._capacity) - self._interval_ms
        self._at_ms = at_ms

    def given_back(self, _from_ms: int) -> None:
        self._reserved -= 1

    def idle_ms(self) -> int:
        missing = self._capacity * self._interval_ms - self._units
        return self._at_ms + max(-(-missing // max(self._capacity, 1)), 0) + SKEW_MS

    def record(self) -> tuple[Any, ...]:
        return (self._at_ms, self._units, self._capacity, self._interval_ms)


def rate(kind: LimitKind, record: tuple[Any, ...] = ()) -> Rate:
    """The rate of this kind, as its record tells it."""
    return Bucket(record) if kind is LimitKind.TOKEN_BUCKET else Window(kind, record)
