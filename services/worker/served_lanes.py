"""The lanes that a worker serves: those where its queues live, and further ones, of which electors tell it.

Any lane may have jobs of a queue: they were moved there, or the queue was spread over more lanes meanwhile. While
some come or wait, the worker is told again and again to serve the queue in that lane (`worker.serve`). Once it has
not heard of it for `SERVED_S`, it announces itself there without the queue; and when nothing that was assigned before
can be on its way any more, it leaves the lane.
"""

from collections.abc import Collection
from typing import Final

from joblog.services.worker.options import WorkerOptions

#: How long a further lane is served after the last word of it; electors repeat it three times as often (TOLD_MS).
SERVED_S: Final = 60.0
#: How long the worker announces itself without the queue before it leaves.
LEAVING_S: Final = 30.0


class ServedLanes:
    """What a worker announces where; belongs to its loop.

    - queues: the lanes in the order of the worker's queues, each with the queues that it works there.
    """

    def __init__(self, settings: WorkerOptions) -> None:
        self._settings = settings
        self._own = settings.queues_of_lanes
        self._told_at: dict[tuple[str, int], float] = {}
        self.queues = dict(self._own)

    def tell(self, queue: str, lane: int, now: float) -> None:
        """Serve a queue in this lane, too; of no effect if it is none of the worker's."""
        if queue in self._settings.queues and lane < self._settings.lanes and queue not in self._own.get(lane, ()):
            self._told_at[queue, lane] = now

    def turn(self, now: float, held: Collection[int]) -> tuple[list[int], list[int]]:
        """Let time pass; `held` are the lanes of the worker's runs. Returns which lanes are new, and which left."""
        if not self._told_at:
            return [], []
        before, over_at = self.queues, now - SERVED_S - LEAVING_S
        self._told_at = {
            (queue, lane): at for (queue, lane), at in self._told_at.items() if at > over_at or lane in held
        }
        self.queues = self._all(now)
        return [lane for lane in self.queues if lane not in before], [n for n in before if n not in self.queues]

    def _all(self, now: float) -> dict[int, tuple[str, ...]]:
        found: dict[int, tuple[str, ...]] = {}
        for queue in self._settings.queues:
            own = [lane for lane, queues in self._own.items() if queue in queues]
            told = sorted(lane for (one, lane), at in self._told_at.items() if one == queue and now - at < SERVED_S)
            for lane in (*own, *told):
                found[lane] = (*found.get(lane, ()), queue)
        for _, lane in self._told_at:
            found.setdefault(lane, ())
        return found
