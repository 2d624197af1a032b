"""The limit of a queue, as one of its lanes keeps it: may the next job start? Those that may not wait in their queue.

Where a queue lives in one lane, a `Gate` counts for itself. Where it lives in several, each has a `SharedGate`, its
share of what the owner of the limit gives out (queue_owner.py): units, each of which one job may run with, or the
permits of a rate, each of which one job may start with. A lane asks for as many as its workers could start at once,
and gives back at the end of a turn what none of them could use. If a lane is alone in wanting units, it keeps those
of jobs that have ended for the next ones; when others wait, each goes back in the transaction that ends its job.
"""

from bisect import insort
from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal

from joblog.streams.contract.relations import RATES, LimitKind
from joblog.streams.lane.limits.rates import SKEW_MS, Rate, rate
from msgspec import Struct

#: As many units or permits a lane asks for at a time: so many of its jobs may start in one turn.
ASK_MAX: Final = 256
#: A lane gets the permit of a rate so long before its time, so that it is there in time.
AHEAD_MS: Final = 500


class QueueLimit(Struct, array_like=True, gc=False, tag="limit"):
    """The record of the limit of a queue in one lane; `rate` is what a rate remembers."""

    kind: LimitKind
    capacity: int
    interval_ms: int
    rate: tuple[Any, ...] = ()

    @property
    def definition(self) -> tuple[LimitKind, int, int]:
        """Kind, capacity and interval."""
        return self.kind, self.capacity, self.interval_ms


class QueueShare(Struct, array_like=True, tag="share"):
    """The record of a lane's share of the limit of a queue.

    - number: which setting of the limit this is for; 0 while the lane does not know it.
    - units: how many of its jobs may run. permits: from when on each job of a rate may start, in order.
    - asked: what it has asked for, beyond that, and not got yet. others_wait: whether other lanes want units, too.
    """

    kind: LimitKind
    capacity: int
    interval_ms: int
    number: int = 0
    units: int = 0
    permits: list[int] = []
    asked: int = 0
    others_wait: bool = True

    @property
    def definition(self) -> tuple[LimitKind, int, int]:
        """Kind, capacity and interval."""
        return self.kind, self.capacity, self.interval_ms


class Gate:
    """The limit of a queue that lives in this lane only, and how many of its jobs run."""

    __slots__ = ("is_changed", "limit", "rate", "running", "wake_ms")
    is_shared: ClassVar[Literal[False]] = False

    def __init__(self, limit: QueueLimit, running: int = 0) -> None:
        self.limit = limit
        self.running = running
        self.is_changed = False
        #: When it lets a job start that it has stopped, unix milliseconds; None if no time does.
        self.wake_ms: int | None = None
        self.rate: Rate | None = rate(limit.kind, limit.rate) if limit.kind in RATES else None
        if self.rate is not None:
            self.rate.define(limit.capacity, limit.interval_ms)

    def is_open(self, now_ms: int) -> bool:
        """Whether a job may start now."""
        self.wake_ms = None
        if self.rate is None:
            return self.running < self.limit.capacity
        from_ms = self.rate.earliest(now_ms)
        assert from_ms is not None  # no permits are out: jobs start at once
        if from_ms > now_ms:
            self.wake_ms = from_ms
        return from_ms <= now_ms

    def started(self, now_ms: int) -> None:
        """A job has started."""
        self.running += 1
        if self.rate is not None:
            self.rate.reserve(now_ms)
            self.rate.started(now_ms, True)
            self.is_changed = True

    def ended(self) -> None:
        """A job has left Processing."""
        self.running -= 1

    def record(self) -> QueueLimit:
        """What is to be remembered."""
        self.is_changed = False
        remembered = () if self.rate is None else self.rate.record()
        return QueueLimit(self.limit.kind, self.limit.capacity, self.limit.interval_ms, remembered)


class Said(Struct, gc=False):
    """What a lane has to tell the owner after a turn.

    - returned: units that it gives back. used, unused: permits with which jobs started at `at_ms`, or none did.
    - more: how many units or permits it asks for, beyond those that it has asked for before.
    """

    returned: int = 0
    used: tuple[int, ...] = ()
    at_ms: int = 0
    unused: tuple[int, ...] = ()
    more: int = 0


class SharedGate:
    """A lane's share of the limit of a queue.

    - wants: how many more jobs workers could start; the assignment says so at its end.
    - take: asks the owner at once, if that is this lane: returns a unit's or permit's time, None if there is none.
    """

    __slots__ = ("_returned", "_used", "_used_ms", "is_changed", "running", "share", "take", "wake_ms", "wants")
    is_shared: ClassVar[Literal[True]] = True

    def __init__(self, share: QueueShare, running: int = 0) -> None:
        self.share = share
        self.running = running
        self.wants = 0
        self.take: Callable[[int], int | None] | None = None
        self.wake_ms: int | None = None
        self.is_changed = False
        self._returned = 0
        self._used: list[int] = []
        self._used_ms = 0

    @property
    def limit(self) -> QueueShare:
        """What the limit is."""
        return self.share

    @property
    def is_rate(self) -> bool:
        """Whether it counts starts, and not jobs that run."""
        return self.share.kind in RATES

    def is_open(self, now_ms: int) -> bool:
        """Whether a job may start now."""
        self.wake_ms = None
        if self._has_one(now_ms) or self._takes_one(now_ms):
            return True
        if self.share.permits:
            self.wake_ms = self.share.permits[0]
        return False

    def _has_one(self, now_ms: int) -> bool:
        share = self.share
        if not self.is_rate:
            return self.running < share.units
        # One that is further ahead than any owner gives out is of a clock that cannot be waited for.
        return bool(share.permits) and not now_ms < share.permits[0] <= now_ms + SKEW_MS + AHEAD_MS

    def _takes_one(self, now_ms: int) -> bool:
        from_ms = self.take(now_ms) if self.take is not None else None
        if from_ms is None:
            return False
        self.give((from_ms,), self.share.others_wait)
        return True

    def started(self, now_ms: int) -> None:
        """A job has started."""
        self.running += 1
        if self.is_rate:
            self._used.append(self.share.permits.pop(0))
            self._used_ms = now_ms
            self.is_changed = True

    def ended(self) -> None:
        """A job has left Processing."""
        self.running -= 1
        if self.share.others_wait and not self.is_rate:
            self._give_back(1)

    def give(self, given: tuple[int, ...], others_wait: bool) -> None:
        """The owner has given out these units or permits."""
        self._add(given)
        self.share.others_wait = others_wait
        self.share.asked = max(self.share.asked - len(given), 0)
        self.is_changed = True

    def said(self, is_full: bool) -> Said | None:
        """What the owner is to hear at the end of a turn; if its transaction `is_full`, the next one goes on."""
        share, more = self.share, 0
        unused: tuple[int, ...] = ()
        if not is_full:
            free = len(share.permits) if self.is_rate else share.units - self.running
            if free > self.wants:
                unused = self._let_go(free - self.wants)
            more = min(self.wants, share.capacity, ASK_MAX) - free - share.asked
        self.wants = 0
        if more > 0:
            share.asked += more
            self.is_changed = True
        if not (self._returned or self._used or unused or more > 0):
            return None
        told = Said(self._returned, tuple(self._used), self._used_ms, unused, max(more, 0))
        self._returned, self._used = 0, []
        return told

    def _add(self, given: tuple[int, ...]) -> None:
        self.is_changed = True
        if not self.is_rate:
            self.share.units += len(given)
            return
        for from_ms in given:
            insort(self.share.permits, from_ms)

    def _let_go(self, count: int) -> tuple[int, ...]:
        """Give back what was not used; returns the permits among it, the last ones."""
        if not self.is_rate:
            self._give_back(count)
            return ()
        kept = len(self.share.permits) - count
        unused = tuple(self.share.permits[kept:])
        del self.share.permits[kept:]
        self.is_changed = True
        return unused

    def _give_back(self, count: int) -> None:
        self.share.units -= count
        self._returned += count
        self.is_changed = True

    def record(self) -> QueueShare:
        """What is to be remembered."""
        self.is_changed = False
        return self.share


AnyGate = Gate | SharedGate
