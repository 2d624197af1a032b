"""Whether silence means anything: an elector that reads late, or whose clock jumped, must not call workers lost."""

from math import inf
from typing import Final

#: Nothing was left to read this lately, in seconds.
DRAINED_S: Final = 1.0
#: After a disturbance, workers get this long to be heard again. They renew every 3 s.
CALM_S: Final = 5.0
#: A clock that moved so much more, or less, than the monotonic one was set, or the machine slept.
STEP_S: Final = 1.0


class Calm:
    """Since when nothing disturbs the reading of the log; all times in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._drained_at = -inf
        self._disturbed_at = -inf
        self._offset_s: float | None = None

    def drained(self, now: float) -> None:
        """There was nothing left to read."""
        self._drained_at = now

    def disturbed(self, now: float) -> None:
        """The brokers are in trouble, or lanes were just taken over: there may be much to read in a moment."""
        self._disturbed_at = now

    def disturbed_within(self, now: float, seconds: float) -> bool:
        """Whether the last disturbance is so fresh."""
        return now - self._disturbed_at <= seconds

    def is_stepped(self, now: float, wall_s: float) -> bool:
        """Whether the wall clock was set since it was last compared with the monotonic one."""
        before, self._offset_s = self._offset_s, wall_s - now
        if before is None or abs(self._offset_s - before) < STEP_S:
            return False
        self.disturbed(now)
        return True

    def is_caught_up(self, now: float) -> bool:
        """Whether who is not heard does not speak."""
        return now - self._drained_at < DRAINED_S and not self.disturbed_within(now, CALM_S)
