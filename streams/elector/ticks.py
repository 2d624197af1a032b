"""When an elector lets time pass in its lanes: ten times a second, and sooner if a lane waits for an instant."""

import time
from collections.abc import Collection
from typing import Final

from joblog.streams.lane.lane import Lane

TICK_S: Final = 0.1
#: Two ticks are at least so far apart.
EARLY_TICK_S: Final = 0.01


class Ticks:
    """The ticks of one elector."""

    def __init__(self) -> None:
        self._ticked_at = 0.0

    def wait_s(self, lanes: Collection[Lane]) -> float:
        """How long to wait for records before a tick is due again."""
        wake_ms = _wake_ms(lanes)
        return TICK_S if wake_ms is None else min(TICK_S, max((wake_ms - _now_ms()) / 1000, EARLY_TICK_S))

    def is_due(self, lanes: Collection[Lane], now: float) -> bool:
        """Whether it is time for a tick, by the monotonic clock; the next one is due later then."""
        elapsed_s = now - self._ticked_at
        if elapsed_s < TICK_S:
            wake_ms = _wake_ms(lanes) if elapsed_s >= EARLY_TICK_S else None
            if wake_ms is None or wake_ms > _now_ms():
                return False
        self._ticked_at = now
        return True


def _wake_ms(lanes: Collection[Lane]) -> int | None:
    return min((at_ms for lane in lanes if (at_ms := lane.wakes_ms) is not None), default=None)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
