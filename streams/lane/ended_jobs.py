"""What a lane remembers of ended jobs, so that the same thing sent twice is refused for a while."""

from collections import OrderedDict

from joblog.streams.contract.states import State


class EndedJobs:
    """The last `size` ended jobs of a lane: how each ended, and at which version."""

    __slots__ = ("_known", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._known: OrderedDict[str, tuple[State, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, job_id: str) -> tuple[State, int] | None:
        """State and version in which the job ended, if that is remembered."""
        return self._known.get(job_id)

    def add(self, job_id: str, state: State, version: int) -> None:
        """Remember an end as the latest one; the oldest is forgotten when there are too many."""
        self._known[job_id] = (state, version)
        self._known.move_to_end(job_id)
        if len(self._known) > self.size:
            self._known.popitem(last=False)

    def remove(self, job_id: str) -> None:
        """The job lives again."""
        self._known.pop(job_id, None)
