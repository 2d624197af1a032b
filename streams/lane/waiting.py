"""Jobs that wait in some order, and may leave it at any time: a sorted run and a heap, with lazy deletion."""

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Any, Final

from joblog.streams.contract.states import State
from joblog.streams.lane.job import Job

#: Where a job stands: what orders it, then its id and the version with which it was added.
Entry = tuple[Any, ...]
#: Stale entries that may be kept however few jobs wait: fewer are not worth a search.
STALE_MIN: Final = 64


class Waiting:
    """Jobs in one state, in the order of their entries.

    Jobs mostly come in their order. So what was added is sorted when the first one is asked for, and what belongs
    behind everything else is appended to a sorted run, of which the first is taken in constant time. What belongs
    further ahead goes into a heap beside it.

    An entry is never searched for. One whose job has moved on (it is in another state, or has another version) is
    stale: it is dropped when it comes first, or with all other stale ones when they are more than half. So a job that
    leaves costs constant time, and stale entries take no more memory than those of waiting jobs.
    """

    __slots__ = ("_added", "_heap", "_run", "_stale", "_state")

    def __init__(self, state: State) -> None:
        self._added: list[Entry] = []
        self._run: deque[Entry] = deque()
        self._heap: list[Entry] = []
        self._stale = 0
        self._state = state

    def __len__(self) -> int:
        return self.entries - self._stale

    @property
    def entries(self) -> int:
        """How many entries are kept, with the stale ones."""
        return len(self._added) + len(self._run) + len(self._heap)

    def add(self, entry: Entry) -> None:
        """Add a job."""
        self._added.append(entry)

    def first(self, jobs: Mapping[str, Job]) -> Entry | None:
        """The first that waits, or None; it keeps its place."""
        while (entry := self._head()) is not None:
            if self._waits(entry, jobs):
                return entry
            self.pop()
            self._stale -= 1
        return None

    def take(self, jobs: Mapping[str, Job]) -> Job | None:
        """Remove the first that waits; None if none does."""
        if self._added:
            self._sort_in()
        run, heap, state = self._run, self._heap, self._state
        while run or heap:
            entry = heappop(heap) if heap and not (run and run[0] < heap[0]) else run.popleft()
            job = jobs.get(entry[-2])
            if job is not None and job.version == entry[-1] and job.state is state:
                return job
            self._stale -= 1
        return None

    def pop(self) -> Entry:
        """Remove what `first` returned."""
        run, heap = self._run, self._heap
        return heappop(heap) if heap and not (run and run[0] < heap[0]) else run.popleft()

    def left(self, jobs: Mapping[str, Job]) -> None:
        """Note that a job left that `pop` and `take` did not return; it has another version or state by now."""
        self._stale += 1
        if self._stale > STALE_MIN and self._stale * 2 > self.entries:
            self._added = [entry for entry in self._added if self._waits(entry, jobs)]
            self._run = deque(entry for entry in self._run if self._waits(entry, jobs))
            self._heap = [entry for entry in self._heap if self._waits(entry, jobs)]
            heapify(self._heap)
            self._stale = 0

    def _head(self) -> Entry | None:
        if self._added:
            self._sort_in()
        run, heap = self._run, self._heap
        if heap and not (run and run[0] < heap[0]):
            return heap[0]
        return run[0] if run else None

    def _sort_in(self) -> None:
        """Put what was added since the last time where it belongs."""
        added, run = self._added, self._run
        added.sort()
        behind = bisect_left(added, run[-1]) if run else 0
        for entry in added[:behind]:
            heappush(self._heap, entry)
        run.extend(added[behind:])
        added.clear()

    def _waits(self, entry: Entry, jobs: Mapping[str, Job]) -> bool:
        job = jobs.get(entry[-2])
        return job is not None and job.version == entry[-1] and job.state is self._state
