"""How many jobs wait for limits, and how many permits are out, in the lanes of an elector."""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Final

from joblog.streams.contract.relations import LimitKind
from joblog.streams.lane.features.limits import Limits
from joblog.streams.lane.lane import Lane
from joblog.streams.metrics import Meters

#: There may be as many limits as jobs.
INTERVAL_S: Final = 2.0


class LimitsCount:
    """Counts every few seconds."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._counted_at = 0.0

    def report(self, lanes: Iterable[Lane]) -> None:
        """Count in all lanes that the elector has, if it is time."""
        now = time.monotonic()
        if now - self._counted_at < INTERVAL_S:
            return
        self._counted_at = now
        waiting, permits = counted(lanes)
        for kind in LimitKind:
            self._meters.set("joblog_limit_waiting_jobs", waiting[kind], kind)
            self._meters.set("joblog_limit_permits", permits[kind], kind)


def counted(lanes: Iterable[Lane]) -> tuple[Counter[LimitKind], Counter[LimitKind]]:
    """The jobs that wait, and the permits that are out, by kind."""
    waiting: Counter[LimitKind] = Counter()
    permits: Counter[LimitKind] = Counter()
    for lane in lanes:
        for feature in lane.features:
            if isinstance(feature, Limits):
                for (kind, _), shared in feature.owner.limits():
                    waiting[kind] += len(shared.line)
                    permits[kind] += shared.holders
                for (kind, _), other in feature.elsewhere.items():
                    waiting[kind] += len(other.line)
    return waiting, permits
