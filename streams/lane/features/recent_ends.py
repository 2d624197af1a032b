"""How the last jobs of a lane ended, with their results, for continuations that are heard of only afterwards.

In memory only: after a take-over, or where many jobs have ended meanwhile, a continuation is told that the result is
no longer at hand. Two generations: when the younger one is full, the older one is dropped.
"""

from collections.abc import Iterable
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.relations import OUTCOME_BYTES_MAX

#: Ends in one generation, and bytes of what they carry.
ENDS_MAX: Final = 1_000
BYTES_MAX: Final = 4 * 1024 * 1024
_ENDS: Final = frozenset({"job.succeeded", "job.failed"})


class RecentEnds:
    """The last events that ended jobs, by job."""

    __slots__ = ("_before", "_bytes", "_last")

    def __init__(self) -> None:
        self._last: dict[str, wire.JobEvent] = {}
        self._before: dict[str, wire.JobEvent] = {}
        self._bytes = 0

    def take(self, events: Iterable[tuple[str, str, str, Any, str | None, str | None]]) -> None:
        """Keep those of a turn's events that end jobs."""
        for job_id, event in [(key, data) for key, kind, _, data, _, _ in events if kind in _ENDS]:
            self._last[job_id] = event
            size = len(bytes(event.result)) if event.exception is None else len(event.exception.details)
            self._bytes += min(size, OUTCOME_BYTES_MAX)
            if len(self._last) >= ENDS_MAX or self._bytes >= BYTES_MAX:
                self._before, self._last, self._bytes = self._last, {}, 0

    def get(self, job_id: str, version: int) -> wire.JobEvent | None:
        """The event with which the job ended, if it is at hand."""
        found = self._last.get(job_id) or self._before.get(job_id)
        return found if found is not None and found.version == version else None
