"""The memory of ended jobs, so that a job that is sent again is refused for a while.

It must survive a take-over exactly: where an id is forgotten early, its job runs a second time. So the ends are
records of the `state` topic, written in the transaction that ends the jobs: numbered blocks, each deleted as a
whole when newer blocks alone hold as many ends as are to be remembered.
"""

from collections import deque
from collections.abc import Container
from typing import Final

from joblog.streams.contract.states import State

#: Ends in one record at most: some 60 bytes each.
BLOCK_MAX: Final = 1_000

#: Id, state and version of ended jobs, in the order in which they ended.
Block = tuple[tuple[str, str, int], ...]


class EndedJobs:
    """At least the last `size` ended jobs of a lane: how each ended, and at which version."""

    __slots__ = ("_blocks", "_count", "_known", "_new", "_next", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._known: dict[str, tuple[str, State, int]] = {}
        #: The written blocks, oldest first; how many ends they hold; the next block's number.
        self._blocks: deque[tuple[int, Block]] = deque()
        self._count = 0
        self._next = 0
        #: Ends of this turn, not written yet.
        self._new: list[tuple[str, State, int]] = []

    def __len__(self) -> int:
        return len(self._known)

    def get(self, job_id: str) -> tuple[State, int] | None:
        """State and version in which the job ended, if that is remembered."""
        known = self._known.get(job_id)
        return known if known is None else known[1:]

    def add(self, job_id: str, state: State, version: int) -> None:
        """Remember an end as the latest one."""
        if self.size:
            end = self._known[job_id] = (job_id, state, version)
            self._new.append(end)

    def remove(self, job_id: str) -> None:
        """Forget an end, since the job is live again."""
        self._known.pop(job_id, None)

    def write(self) -> dict[str, Block | None]:
        """The records of what ended since the last call, by number: new blocks, and None for those to delete."""
        records: dict[str, Block | None] = {}
        if not self._new:
            return records
        for start in range(0, len(self._new), BLOCK_MAX):
            block: Block = tuple(self._new[start : start + BLOCK_MAX])
            records[str(self._next)] = block
            self._keep(self._next, block)
        self._new.clear()
        while self._count - len(self._blocks[0][1]) >= self.size:
            number, block = self._blocks.popleft()
            self._count -= len(block)
            self._forget(block)
            records[str(number)] = None
        return records

    def load(self, blocks: dict[int, Block], live: Container[str]) -> None:
        """Remember what the records hold, by their numbers, except for jobs that are live again."""
        for number in sorted(blocks):
            block = blocks[number]
            self._keep(number, block)
            self._known.update((job_id, (job_id, State(state), version)) for job_id, state, version in block)
        for job_id in [job_id for job_id in self._known if job_id in live]:
            del self._known[job_id]

    def _keep(self, number: int, block: Block) -> None:
        self._blocks.append((number, block))
        self._count += len(block)
        self._next = number + 1

    def _forget(self, block: Block) -> None:
        for end in block:
            job_id = end[0]
            if self._known.get(job_id) == end:  # else it ended again later, in a newer block
                del self._known[job_id]
