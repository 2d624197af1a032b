"""How the last jobs of a lane ended, with their results, for continuations that are heard of only afterwards.

In memory only: after a take-over, or where many jobs have ended meanwhile, a continuation is told that the result is
no longer at hand. The events of the last turns are kept as they were written, and looked through only when somebody
asks, since hardly anybody does. Then two generations: when the younger one is full, the older one is dropped.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.relations import OUTCOME_BYTES_MAX
from joblog.streams.contract.wire import NO_RAW

#: Ends in one generation, and bytes of what they carry.
ENDS_MAX: Final = 1_000
BYTES_MAX: Final = 4 * 1024 * 1024
#: Events of turns that nobody has looked through: three for each job that ended at once.
EVENTS_MAX: Final = 3 * ENDS_MAX
_ENDS: Final = frozenset({"job.succeeded", "job.failed"})


#: An event as a lane writes it (output.py).
Written = tuple[str, str, str, Any, str | None, str | None]


class RecentEnds:
    """The last events that ended jobs, by job."""

    __slots__ = ("_before", "_bytes", "_count", "_last", "_turns")

    def __init__(self) -> None:
        self._last: dict[str, wire.JobEvent] = {}
        self._before: dict[str, wire.JobEvent] = {}
        self._bytes = 0
        #: Those of the last turns, and how many they are.
        self._turns: deque[Sequence[Written]] = deque()
        self._count = 0

    def take(self, events: Sequence[Written]) -> None:
        """Keep a turn's events, which change no more."""
        if not events:
            return
        self._turns.append(events)
        self._count += len(events)
        while self._count > EVENTS_MAX and len(self._turns) > 1:
            self._count -= len(self._turns.popleft())

    def _look_through(self, events: Iterable[Written]) -> None:
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
        while self._turns:
            self._look_through(self._turns.popleft())
        self._count = 0
        found = self._last.get(job_id) or self._before.get(job_id)
        return found if found is not None and found.version == version else None
