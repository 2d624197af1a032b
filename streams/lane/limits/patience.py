"""How long a job keeps permits with which no worker starts it."""

from typing import Final

from joblog.streams.lane.limits.claims import Claim

#: A job that has its permits, but has not started for so long, gives them back: no worker has room for it. Each time
#: that happens to a job it may keep them twice as long, so that it starts even where slots are always taken.
KEPT_MS: Final = 1_000
DOUBLED_MAX: Final = 6


class Patience:
    """The jobs that have all their permits and wait for a worker, in the order in which they got the last one."""

    __slots__ = ("_complete", "_returns")

    def __init__(self) -> None:
        self._complete: dict[str, Claim] = {}
        self._returns: dict[str, int] = {}

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._complete

    def begin(self, claim: Claim) -> None:
        """A job has got all its permits."""
        self._complete[claim.job_id] = claim

    def end(self, job_id: str) -> None:
        """A job has given them back, or does not wait any more."""
        self._complete.pop(job_id, None)

    def forget(self, job_id: str) -> None:
        """A job has started, or left its queue."""
        self._complete.pop(job_id, None)
        self._returns.pop(job_id, None)

    def late(self, now_ms: int) -> list[Claim]:
        """Those that were not started in time; the next time they may wait longer."""
        found = []
        for job_id, claim in self._complete.items():
            waited_ms = now_ms - claim.complete_ms
            if waited_ms < KEPT_MS:
                break
            times = self._returns.get(job_id, 0)
            if waited_ms >= KEPT_MS << times:
                self._returns[job_id] = min(times + 1, DOUBLED_MAX)
                found.append(claim)
        return found
