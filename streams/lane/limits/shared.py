"""One limit, as its owner knows it."""

from joblog.streams.contract.relations import RATES
from joblog.streams.lane.limits.line import Line
from joblog.streams.lane.limits.rates import Rate, rate
from joblog.streams.lane.limits.records import Definition, Entry


class Shared:
    """Its definition, who waits for it, and who has a permit.

    - holding: the jobs whose permits count against a capacity: given out, and not given back.
    """

    __slots__ = ("definition", "entries", "holding", "is_resting", "is_written", "line", "rate", "wakes_ms")

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.entries: dict[str, Entry] = {}
        self.line = Line()
        self.holding: dict[str, None] = {}
        self.rate: Rate | None = rate(definition.kind, definition.rate) if definition.kind in RATES else None
        self.is_written = self.is_resting = False
        self.wakes_ms = 0
        self.define(definition.capacity, definition.interval_ms)

    @property
    def holders(self) -> int:
        """How many permits are given out."""
        return len(self.holding)

    @property
    def capacity(self) -> int:
        """How many it lets run, or start in an interval."""
        return self.definition.set_capacity or self.definition.capacity

    def define(self, capacity: int, interval_ms: int) -> bool:
        """Take over what a job says of the limit; whether that is new."""
        known = self.definition
        is_new = (known.capacity, known.interval_ms) != (capacity, interval_ms)
        known.capacity, known.interval_ms = capacity, interval_ms
        if self.rate is not None:
            self.rate.define(self.capacity, known.set_interval_ms or interval_ms)
        return is_new
