"""A line of jobs that wait for one limit: tenants take turns; within a tenant by priority, then age."""

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final

#: What orders the jobs of a tenant: the highest priority first, then the oldest.
Place = tuple[int, int, str]
#: Left entries that are kept however few jobs wait: fewer are not worth a search.
STALE_MIN: Final = 64
#: Tenants that keep their turn although none of their jobs waits: those that give back what they got ask again.
TENANTS_MIN: Final = 1_000


def place_of(priority: int, created_ms: int, job_id: str) -> Place:
    """Where a job stands among those of its tenant."""
    return (-priority, created_ms, job_id)


class Line:
    """Jobs in their order; a job is in it once. Adding and taking cost log n, leaving constant time."""

    __slots__ = ("_counts", "_heaps", "_places", "_turns")

    def __init__(self) -> None:
        self._heaps: dict[str | None, list[Place]] = {}
        self._turns: deque[str | None] = deque()
        self._places: dict[str, tuple[str | None, Place]] = {}
        #: How many jobs of each tenant wait.
        self._counts: dict[str | None, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._places))

    def add(self, tenant: str | None, place: Place) -> None:
        """Add a job, or move it to this place."""
        self.remove(place[2])
        self._places[place[2]] = (tenant, place)
        count = self._counts[tenant] = self._counts.get(tenant, 0) + 1
        heap = self._heaps.get(tenant)
        if heap is None:
            if len(self._turns) > max(TENANTS_MIN, 2 * len(self._counts)):
                self._drop_tenants()
            heap = self._heaps[tenant] = []
            self._turns.append(tenant)
        heappush(heap, place)
        if len(heap) > STALE_MIN and len(heap) > 2 * count:
            self._drop_stale(tenant)

    def remove(self, job_id: str) -> bool:
        """Let a job leave; False if it is not in the line."""
        known = self._places.pop(job_id, None)
        if known is None:
            return False
        tenant = known[0]
        self._counts[tenant] -= 1
        if not self._counts[tenant]:
            del self._counts[tenant]
        return True

    def first(self) -> str | None:
        """The job whose turn it is; it keeps its place."""
        while self._turns:
            tenant = self._turns[0]
            heap = self._heaps[tenant]
            while heap and self._places.get(heap[0][2]) != (tenant, heap[0]):
                heappop(heap)
            if heap:
                return heap[0][2]
            del self._heaps[tenant]
            self._turns.popleft()
        return None

    def take(self) -> str | None:
        """Remove the job whose turn it is; the next turn is another tenant's."""
        job_id = self.first()
        if job_id is not None:
            heappop(self._heaps[self._turns[0]])
            self.remove(job_id)
            self._turns.rotate(-1)
        return job_id

    def _drop_stale(self, tenant: str | None) -> None:
        heap = [place for place in set(self._heaps[tenant]) if self._places.get(place[2]) == (tenant, place)]
        heapify(heap)
        self._heaps[tenant] = heap

    def _drop_tenants(self) -> None:
        self._turns = deque(tenant for tenant in self._turns if tenant in self._counts)
        self._heaps = {tenant: self._heaps[tenant] for tenant in self._turns}
