"""How long the silence of a worker means nothing after lanes were taken over."""

from math import inf
from typing import Final

#: Workers renew every 3 s, and the first fetch of a lane may be late.
QUIET_S: Final = 5.0


class QuietPeriod:
    """Until when no worker is called lost in a lane that seems to be read to its end; monotonic seconds."""

    def __init__(self) -> None:
        self._began_at = -inf

    def begin(self, now: float) -> None:
        """Lanes were just taken over: what workers sent meanwhile lies in the log, still unread."""
        self._began_at = now

    def is_over(self, now: float) -> bool:
        """Whether enough time has passed for the renewals of all live workers to be read."""
        return now - self._began_at > QUIET_S
