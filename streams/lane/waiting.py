"""Jobs that wait in some order, of which each may leave at any time: a heap with lazy deletion."""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Any, Final

from joblog.streams.contract.states import State
from joblog.streams.lane.job import Job

#: Where a job stands: what orders it, and last its id and the version with which it took its place.
Entry = tuple[Any, ...]
#: So many stale entries may stay whatever the number of live ones: not worth looking for.
STALE_MIN: Final = 64


class Waiting:
    """Jobs in one state, in the order of their entries.

    An entry is never searched for. One whose job has moved on since (its version differs) is stale: it is
    dropped when it comes to the top, or with all others of its kind once they are more than half. So a job that
    leaves costs constant time, and those that left cost no more memory than those that wait.
    """

    __slots__ = ("_heap", "_stale", "_state")

    def __init__(self, state: State) -> None:
        self._heap: list[Entry] = []
        self._stale = 0
        self._state = state

    def __len__(self) -> int:
        return len(self._heap) - self._stale

    def add(self, entry: Entry) -> None:
        """Let a job wait."""
        heappush(self._heap, entry)

    def first(self, jobs: Mapping[str, Job]) -> Entry | None:
        """The first that waits, or None; it keeps its place."""
        heap = self._heap
        while heap:
            entry = heap[0]
            if self._waits(entry, jobs):
                return entry
            heappop(heap)
            self._stale -= 1
        return None

    def pop(self) -> Entry:
        """Take out what `first` gave."""
        return heappop(self._heap)

    def left(self, jobs: Mapping[str, Job]) -> None:
        """Note that a job, which has another version by now, waits no more."""
        self._stale += 1
        if self._stale > STALE_MIN and self._stale * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if self._waits(entry, jobs)]
            heapify(self._heap)
            self._stale = 0

    def _waits(self, entry: Entry, jobs: Mapping[str, Job]) -> bool:
        job = jobs.get(entry[-2])
        return job is not None and job.version == entry[-1] and job.state is self._state
