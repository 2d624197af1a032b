"""Whether silence means anything: after trouble, nobody is called lost for a while."""

from math import inf
from typing import Final

#: After a disturbance, workers get this long to be heard again. They renew every 3 s.
QUIET_S: Final = 5.0


class QuietPeriod:
    """Since when nothing disturbs the reading of the log; all times in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._disturbed_at = -inf

    def begin(self, now: float) -> None:
        """The brokers are in trouble, or lanes were just taken over: there may be much to read in a moment."""
        self._disturbed_at = now

    def is_over(self, now: float) -> bool:
        """Whether enough time has passed for whoever is alive to be heard."""
        return now - self._disturbed_at > QUIET_S
