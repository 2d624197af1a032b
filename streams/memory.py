"""What a lane remembers of ended jobs, so that the same thing sent twice is refused for a while."""

from collections import deque

from joblog.streams.states import State


class EndedJobs:
    """The last `size` ended jobs of a lane: how each ended, and at which version."""

    __slots__ = ("_known", "_order", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._known: dict[str, tuple[State, int]] = {}
        self._order: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, job_id: str) -> tuple[State, int] | None:
        """State and version in which the job ended, if that is remembered."""
        return self._known.get(job_id)

    def add(self, job_id: str, state: State, version: int) -> None:
        """Remember an end; the oldest is forgotten when there are too many."""
        if job_id not in self._known:
            self._order.append(job_id)
        self._known[job_id] = (state, version)
        while len(self._known) > self.size:
            self._known.pop(self._order.popleft(), None)

    def remove(self, job_id: str) -> None:
        """The job lives again. Its place in the order stays behind and does no harm."""
        self._known.pop(job_id, None)
