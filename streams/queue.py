"""The ready order of one queue: highest priority first, then oldest; by task, because not every worker knows all."""

from collections.abc import Container, Mapping
from heapq import heappop, heappush

from joblog.streams.job import Job
from joblog.streams.states import State

#: (-priority, created_ms, job id, version): compares as the order that the queue is served in.
_Entry = tuple[int, int, str, int]


class ReadyQueue:
    """The Enqueued jobs of one queue.

    Entries are never searched for: one whose job has moved on since (its version differs) is dropped when it
    comes to the top. `len` therefore is an upper bound.
    """

    __slots__ = ("_heaps",)

    def __init__(self) -> None:
        self._heaps: dict[str, list[_Entry]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._heaps.values()))

    def __bool__(self) -> bool:
        return bool(self._heaps)

    def add(self, job: Job) -> None:
        """Let an Enqueued job wait."""
        heap = self._heaps.get(job.task)
        if heap is None:
            heap = self._heaps[job.task] = []
        heappush(heap, (-job.priority, job.created_ms, job.id, job.version))

    def pop(self, tasks: Container[str], jobs: Mapping[str, Job]) -> Job | None:
        """The next job whose task is among `tasks`, or None."""
        best: list[_Entry] | None = None
        for task in tuple(self._heaps):
            if task in tasks:
                heap = self._heaps[task]
                if self._settle(task, heap, jobs) and (best is None or heap[0] < best[0]):
                    best = heap
        if best is None:
            return None
        return jobs[heappop(best)[2]]

    def _settle(self, task: str, heap: list[_Entry], jobs: Mapping[str, Job]) -> bool:
        """Drop what has moved on from the top; False, and the heap is gone, if nothing is left."""
        while heap:
            top = heap[0]
            job = jobs.get(top[2])
            if job is not None and job.version == top[3] and job.state is State.ENQUEUED:
                return True
            heappop(heap)
        del self._heaps[task]
        return False
