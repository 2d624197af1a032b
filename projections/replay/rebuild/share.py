"""What part of their time the filling processes work: all of it only while nothing else needs the machine. Pure.

They run at a lower priority, but what they have Postgres and the brokers do does not. So they work for a part of
their time while events arrive, and hardly at all while the live tables fall behind. Measured at half load on two
cores: with a fifth of the time a rebuild costs neither throughput nor latency, with half of it the 99th percentile
doubles. A part that does not catch up with what arrives is made larger, step by step.
"""

from collections.abc import Mapping
from typing import Final

#: While events arrive, and while the live tables fall behind.
BESIDE: Final = 0.2
LATE: Final = 0.1
#: The live tables are late when they do not hold what was written so long ago; at rest they look every 2 s.
LATE_S: Final = 5.0
#: So many records between two looks are no load: a worker says that it is alive.
IDLE_RECORDS: Final = 20
#: After so many looks the part is made larger by this factor, if the new tables lack as much as before.
LOOKS: Final = 20
MORE: Final = 1.5
#: So long a process rests at most for its share: what is beside it may have changed.
REST_MAX_S: Final = 5.0


def rest_s(count: int, worked_s: float, share: float, rate: float | None) -> float:
    """How long to rest after `count` records that took so long, to keep the share, and a rate in records/s."""
    for_share = min(worked_s / share - worked_s, REST_MAX_S)
    return max(for_share, count / rate - worked_s if rate is not None else 0.0, 0.0)


class Share:
    """The share for the next moments, from how far log and live tables are at each look."""

    def __init__(self, beside: float = BESIDE) -> None:
        self._beside = beside
        self._end: int | None = None
        self._live = 0
        self._looks = 0
        self._lacking: int | None = None

    def now(self, end: Mapping[int, int], live: Mapping[int, tuple[int, float | None]], done: int) -> float:
        """The part of the time from now on.

        - end: the end of each lane of the log. done: how many records the new tables have.
        - live: how far the live tables are, and how late, in seconds.
        """
        self._catch_up(sum(end.values()) - done)
        ended, applied = sum(end.values()), sum(offset for offset, _ in live.values())
        arrived = ended - self._end if self._end is not None else 0
        is_applying = self._end is not None and applied > self._live
        self._end, self._live = ended, applied
        is_late = any(
            late_s is not None and late_s > LATE_S and offset < end.get(lane, 0)
            for lane, (offset, late_s) in live.items()
        )
        if is_late and is_applying:  # tables that nobody moves do not get later by this
            return min(LATE, self._beside)
        return self._beside if arrived > IDLE_RECORDS else 1.0

    def _catch_up(self, lacking: int) -> None:
        """Make the part larger if it is too small to end ever."""
        self._looks += 1
        if self._lacking is None or self._looks >= LOOKS:
            if self._lacking is not None and lacking >= self._lacking:
                self._beside = min(self._beside * MORE, 1.0)
            self._lacking, self._looks = lacking, 0
