"""Whether silence means anything: after trouble, or when the clock was set, nobody is called lost for a while."""

from math import inf
from typing import Final

#: After a disturbance, workers get this long to be heard again. They renew every 3 s.
CALM_S: Final = 5.0
#: A clock that moved so much more, or less, than the monotonic one was set, or the machine slept.
STEP_S: Final = 1.0


class Calm:
    """Since when nothing disturbs the reading of the log; all times in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._disturbed_at = -inf
        self._offset_s: float | None = None

    def disturbed(self, now: float) -> None:
        """The brokers are in trouble, or lanes were just taken over: there may be much to read in a moment."""
        self._disturbed_at = now

    def is_stepped(self, now: float, wall_s: float) -> bool:
        """Whether the wall clock was set since it was last compared with the monotonic one; that disturbs."""
        before, self._offset_s = self._offset_s, wall_s - now
        if before is None or abs(self._offset_s - before) < STEP_S:
            return False
        self.disturbed(now)
        return True

    def is_undisturbed(self, now: float) -> bool:
        """Whether who is not heard does not speak, if all is read that there is."""
        return now - self._disturbed_at > CALM_S
