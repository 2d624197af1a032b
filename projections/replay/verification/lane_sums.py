"""What the rows and the history of a lane add up to: sums of digests, in whatever order jobs come. Pure.

Postgres adds up its side by itself, which costs half of handing all rows over in the order of ids; only of lanes
whose sums differ the jobs are compared one by one.
"""

from collections import Counter
from typing import Final

_MOST: Final = 2**64


class Sums:
    """What one side adds up to, by lane: jobs and digests of their rows, events and digests of theirs."""

    def __init__(self) -> None:
        self.jobs: Counter[int] = Counter()
        self.rows: Counter[int] = Counter()
        self.events: Counter[int] = Counter()
        self.history: Counter[int] = Counter()

    def add(self, other: "Sums") -> None:
        """Add another part of the same side."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine.update(theirs)

    def lanes(self) -> set[int]:
        return self.jobs.keys() | self.rows.keys() | self.events.keys()

    def of(self, lane: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Number and sum of the rows, number and sum of the events."""
        rows = self.jobs[lane], self.rows[lane] % _MOST
        return rows, (self.events[lane], self.history[lane] % _MOST)


def differing_lanes(log: Sums, tables: Sums) -> set[int]:
    """The lanes in which rows or history are not the same."""
    return {lane for lane in log.lanes() | tables.lanes() if log.of(lane) != tables.of(lane)}
