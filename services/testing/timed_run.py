"""A run by the clock of a test, and the record that assigned it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from joblog.services.worker.execution.run import Run
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode


@dataclass(slots=True, eq=False)
class Record:
    """An assignment as it came."""

    job: wire.RunJob

    def topic(self) -> str:
        return "assignments"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0

    def key(self) -> bytes:
        return b"in-memory"

    def value(self) -> bytes:
        return encode(self.job)


@dataclass(slots=True, eq=False)
class TimedRun(Run):
    """A run whose start, time-out and duration are those of the test's clock, which `now_ms` reads."""

    now_ms: Callable[[], int] = field(kw_only=True)

    def begin(self) -> bool:
        """Note the time of the start; the worker that was assigned the job a moment ago surely has its lease."""
        self.started_ms = self.now_ms()
        self.started_at = self.started_ms / 1000
        return True

    @property
    def duration_ms(self) -> float:
        """How long the run has taken so far; 0 before it began."""
        return float(self.now_ms() - self.started_ms) if self.started_ms else 0.0
