"""The limit of a queue in one lane: whether its next job may start; those that may not wait in their queue."""

from typing import Any

from joblog.streams.contract.relations import RATES, LimitKind
from joblog.streams.lane.limits.rates import Rate, rate
from msgspec import Struct


class QueueLimit(Struct, array_like=True, gc=False):
    """The record of a queue's limit; `rate` is what a rate remembers."""

    kind: LimitKind
    capacity: int
    interval_ms: int
    rate: tuple[Any, ...] = ()


class Gate:
    """The limit, and how many jobs of the queue run in this lane; the assignment counts them before it begins."""

    __slots__ = ("is_changed", "limit", "rate", "running", "wake_ms")

    def __init__(self, limit: QueueLimit) -> None:
        self.limit = limit
        self.running = 0
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

    def record(self) -> QueueLimit:
        """What is to be remembered."""
        self.is_changed = False
        remembered = () if self.rate is None else self.rate.record()
        return QueueLimit(self.limit.kind, self.limit.capacity, self.limit.interval_ms, remembered)
