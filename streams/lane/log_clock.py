"""The time that passes in the log, by the broker's clock, which may jump."""

from typing import Final

#: Longer than the interval in which a worker renews (3 s): where one reports, no step is longer.
STEP_MAX_MS: Final = 4_000


class LogClock:
    """Milliseconds that passed while records were read, since this clock was made.

    The broker's clock jumps when it is set, or when the partition's leader moves to another broker. So the time is
    added up from record to record, and one step counts for `STEP_MAX_MS` at most. Where more than that really passed,
    nobody reported at all, and the elector's own clock decides.
    """

    __slots__ = ("_appended_ms", "ms")

    def __init__(self) -> None:
        self.ms = 0
        self._appended_ms: int | None = None

    def heard(self, appended_ms: int) -> None:
        """Note that a record was read that the broker appended at this time (unix milliseconds)."""
        if appended_ms == self._appended_ms:
            return
        if self._appended_ms is not None:
            self.ms += min(max(appended_ms - self._appended_ms, 0), STEP_MAX_MS)
        self._appended_ms = appended_ms
