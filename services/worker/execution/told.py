"""What a run says of itself while it runs: progress and log lines, kept until they are sent.

They are sent at most once a second, and before the report of the run's end. A run may say anything as often as it
likes: what does not fit into a report of `LINES_MAX` lines and `BYTES_MAX` bytes is dropped, the oldest first, and a
line says how many were. After `REPORTS_MAX` reports a run has one a minute, so that no job makes its own history
endless.
"""

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Final, NamedTuple

from joblog.services.worker.execution.results import first_bytes
from joblog.streams.contract.fields import LINES_MAX

BYTES_MAX: Final = 65_536
LINE_BYTES_MAX: Final = 4_000
TEXT_BYTES_MAX: Final = 1_000
EVERY_S: Final = 1.0
REPORTS_MAX: Final = 1_000
THEN_EVERY_S: Final = 60.0


class Taken(NamedTuple):
    """What goes into one report."""

    progress: float | None
    text: str | None
    lines: tuple[str, ...]


class Told:
    """What one run said and is not sent yet. For any thread.

    - due_at: when the next report may be sent, by the clock that `take` is given.
    - sending: held from `take` until what was taken is sent, so that it is before the end of the run in the log.
    """

    def __init__(self) -> None:
        self.due_at = 0.0
        self.sending = Lock()
        self._lock = Lock()
        self._progress: float | None = None
        self._text: str | None = None
        self._lines: deque[tuple[str, int]] = deque()
        self._bytes = 0
        self._dropped = 0
        self._reports = 0

    def progressed(self, progress: float, text: str | None) -> None:
        """How much is done, 0 to 1, and what to say of it; only the last one counts."""
        with self._lock:
            self._progress = progress
            self._text = None if text is None else first_bytes(text, TEXT_BYTES_MAX)

    def logged(self, text: str) -> None:
        """Add a line, or several; the oldest ones go where there is no room."""
        for line in text.splitlines() or [""]:
            kept = first_bytes(line, LINE_BYTES_MAX)
            with self._lock:
                self._lines.append((kept, len(kept.encode())))
                self._bytes += self._lines[-1][1]
                # One of the report's lines is for what is said of those that were dropped.
                while len(self._lines) >= LINES_MAX or self._bytes > BYTES_MAX:
                    self._bytes -= self._lines.popleft()[1]
                    self._dropped += 1

    def send_by(self, send: Callable[[Taken], object], now: float) -> None:
        """Take out what there is and send it; nothing while that is sent with the end of the run."""
        if self.sending.acquire(blocking=False):
            try:
                if (taken := self.take(now)) is not None:
                    send(taken)
            finally:
                self.sending.release()

    def take(self, now: float) -> Taken | None:
        """Take out what there is to send; None if there is nothing."""
        with self._lock:
            if self._progress is None and not self._lines:
                return None
            lines = tuple(line for line, _ in self._lines)
            if self._dropped:
                lines = (f"(lines dropped here, more than a report holds: {self._dropped})", *lines)
            taken = Taken(self._progress, self._text, lines)
            self._progress = self._text = None
            self._lines.clear()
            self._bytes = self._dropped = 0
            self._reports += 1
            self.due_at = now + (EVERY_S if self._reports < REPORTS_MAX else THEN_EVERY_S)
            return taken
