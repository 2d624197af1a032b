"""How the last jobs of a lane ended, with their results, for continuations that are heard of only afterwards.

In memory only: after a take-over, or where many jobs have ended meanwhile, a continuation is told that the result is
no longer at hand. Two generations: when the younger one is full, the older one is dropped.
"""

from collections.abc import Iterable
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.relations import OUTCOME_BYTES_MAX
from joblog.streams.contract.wire import NO_RAW

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
        last = self._last
        for written in events:
            kind = written[1]
            if kind not in _ENDS:
                continue
            event = last[written[0]] = written[3]
            if event.result is not NO_RAW:
                self._bytes += min(memoryview(event.result).nbytes, OUTCOME_BYTES_MAX)
            elif event.exception is not None:
                self._bytes += min(len(event.exception.details), OUTCOME_BYTES_MAX)
            if len(last) >= ENDS_MAX or self._bytes >= BYTES_MAX:
                self._before, self._last, self._bytes = last, {}, 0
                last = self._last

    def get(self, job_id: str, version: int) -> wire.JobEvent | None:
        """The event with which the job ended, if it is at hand."""
        found = self._last.get(job_id) or self._before.get(job_id)
        return found if found is not None and found.version == version else None
