"""The owner of the limit of a queue: the first lane of the queue, which gives out what the lanes use.

Theory of operation. What is given out are units, of which each running job needs one, or permits of a rate, each for
one start. Lanes that want some stand in a line, in the order in which they asked; each gets one at a time and then
goes to the end, if it wants more. All that lanes and owner know of it is in their records of `state`, and what they
tell each other is in the transactions that change them. So a take-over changes nothing, and the sum of what lanes
have is never more than the capacity.

Each setting of a limit has a number. The owner tells it to all lanes; each gives up what it had, and answers how
many of its jobs run (`joined`). Before all have answered the owner gives out nothing: so it never counts less than
there is, when a queue gets its limit while jobs run, when that is changed, and when the state of a lane, or of the
owner, was lost: then all join anew.
"""

from bisect import insort
from collections.abc import Iterable
from typing import Any

from joblog.streams.contract.relations import RATES, LimitKind
from joblog.streams.lane.limits.gate import AHEAD_MS, Said
from joblog.streams.lane.limits.rates import Rate, rate
from msgspec import Struct


class Part(Struct, array_like=True):
    """What one lane has, and how much more it wants; others_wait: what it was told last (QueueShare)."""

    units: int = 0
    permits: list[int] = []
    wants: int = 0
    others_wait: bool = True


class Ownership(Struct, array_like=True, tag="owner"):
    """The record of an owner.

    - capacity: 0 while the limit is taken away. number: of the setting. silent: the lanes that have not joined it.
    - line: the lanes that want more, the next one first.
    """

    kind: LimitKind
    capacity: int
    interval_ms: int
    number: int = 0
    rate: tuple[Any, ...] = ()
    parts: dict[int, Part] = {}
    line: list[int] = []
    silent: list[int] = []


class QueueOwner:
    """What lane `own` gives out of a limit; `wake_ms` is when it can give out more, None if no time lets it."""

    def __init__(self, record: Ownership, own: int) -> None:
        self.record = record
        self.own = own
        self.wake_ms: int | None = None
        self.is_changed = False
        self._rate = self._loaded_rate()
        if record.line and self._rate is not None:
            self.wake_ms = 0

    def _loaded_rate(self) -> Rate | None:
        record = self.record
        if record.kind not in RATES or not record.capacity:
            return None
        counted = rate(record.kind, record.rate)
        counted.define(record.capacity, record.interval_ms)
        for part in record.parts.values():
            for _ in part.permits:
                counted.reserve_again()
        return counted

    @property
    def is_over(self) -> bool:
        """Whether the limit was taken away, and all lanes know it."""
        return not self.record.capacity and not self.record.silent

    @property
    def setting(self) -> tuple[LimitKind, int, int]:
        """Kind, capacity and interval."""
        return self.record.kind, self.record.capacity, self.record.interval_ms

    @property
    def lanes(self) -> frozenset[int]:
        """The lanes that know the limit, or will."""
        return frozenset((*self.record.parts, *self.record.silent))

    def begin(self, kind: LimitKind, capacity: int, interval_ms: int, lanes: Iterable[int], now_ms: int) -> None:
        """Another setting, or the same one anew: all lanes are to be told."""
        before = self.record
        if self._rate is not None:
            for from_ms in [one for part in before.parts.values() for one in part.permits]:
                self._rate.given_back(from_ms)
        remembered = self._rate.record() if self._rate is not None else before.rate
        number = max(before.number + 1, now_ms)
        known = sorted(self.lanes.union(lanes))
        self.record = Ownership(
            kind, capacity, interval_ms, number, remembered if kind is before.kind else (), silent=known
        )
        self._rate = self._loaded_rate()
        self.wake_ms = None
        self.is_changed = True

    # --- what lanes say ---

    def joined(self, lane: int, number: int, running: int) -> bool:
        """A lane has heard of the setting; False if that is not the last one."""
        record = self.record
        if number != record.number or lane not in record.silent:
            return False
        record.silent.remove(lane)
        record.parts[lane] = Part(0 if record.kind in RATES else running)
        self.is_changed = True
        return True

    def said(self, lane: int, number: int, said: Said) -> bool:
        """What a lane tells after a turn; False if it does not count, but for the starts, which always do."""
        part = self.record.parts.get(lane)
        if number != self.record.number or part is None:
            self._started(said.used, said.at_ms, None)
            return False
        self._started(said.used, said.at_ms, part)
        part.units = max(part.units - said.returned, 0)
        for from_ms in said.unused:
            if self._rate is not None and from_ms in part.permits:
                part.permits.remove(from_ms)
                self._rate.given_back(from_ms)
        part.wants = min(part.wants + said.more, self.record.capacity)
        if part.wants and lane not in self.record.line:
            self.record.line.append(lane)
        self.is_changed = True
        return True

    def _started(self, used: Iterable[int], at_ms: int, part: Part | None) -> None:
        for from_ms in used if self._rate is not None else ():
            assert self._rate is not None
            is_reserved = part is not None and from_ms in part.permits
            if is_reserved and part is not None:
                part.permits.remove(from_ms)
            self._rate.started(at_ms, is_reserved)
            self.is_changed = True

    # --- who is next ---

    def settle(self, now_ms: int) -> dict[int, tuple[int, ...]]:
        """Give out what can be given out: to each lane its units or permits; those without any learn who waits."""
        given: dict[int, tuple[int, ...]] = {}
        self.wake_ms = None
        while (line := self.record.line) and (from_ms := self._next(line[0], now_ms)) is not None:
            lane = self._serve()
            given[lane] = (*given.get(lane, ()), from_ms)
        for lane, part in self.record.parts.items():
            if part.units and not part.others_wait and self.others_wait(lane):
                given.setdefault(lane, ())
        for lane in given:
            self.record.parts[lane].others_wait = self.others_wait(lane)
            self.is_changed = True
        return given

    def take(self, now_ms: int) -> int | None:
        """Give one to the owner's lane itself at once, if no other one stands before it."""
        line = self.record.line
        if (line and line[0] != self.own) or self.own not in self.record.parts:
            return None
        from_ms = self._next(self.own, now_ms)
        if from_ms is not None and line:
            self._serve()
        return from_ms

    def others_wait(self, lane: int) -> bool:
        """Whether other lanes than this one want more."""
        return any(other != lane for other in self.record.line)

    def _serve(self) -> int:
        """The lane that is first got one: it goes to the end of the line, or leaves it."""
        lane = self.record.line.pop(0)
        part = self.record.parts[lane]
        part.wants -= 1
        if part.wants:
            self.record.line.append(lane)
        return lane

    def _next(self, lane: int, now_ms: int) -> int | None:
        """Take a unit, or a permit, for this lane; returns from when it holds, None if there is none."""
        record, part = self.record, self.record.parts[lane]
        if record.silent:
            return None
        if self._rate is None:
            if sum(one.units for one in record.parts.values()) >= record.capacity:
                return None
            part.units += 1
            self.is_changed = True
            return 0
        earliest_ms = self._rate.earliest(now_ms)
        if earliest_ms is None:
            return None
        wake_ms = earliest_ms if lane == self.own else earliest_ms - AHEAD_MS
        if wake_ms > now_ms:
            self.wake_ms = wake_ms
            return None
        from_ms = self._rate.reserve(now_ms)
        insort(part.permits, from_ms)
        self.is_changed = True
        return from_ms

    def kept(self) -> Ownership:
        """What is to be remembered."""
        self.is_changed = False
        if self._rate is not None:
            self.record.rate = self._rate.record()
        return self.record
