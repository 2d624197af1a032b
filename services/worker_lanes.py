"""What a worker remembers of its lanes, to know what to offer them; worker_offers.py has the rule."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from joblog.services.worker_offers import LaneLoad, offers
from joblog.services.worker_run import Run


class LaneBook:
    """Kept by the worker's loop only; instants are monotonic seconds."""

    def __init__(self, lanes: Sequence[int], slots: int, prefetch: int, window_s: float) -> None:
        self._lanes = tuple(lanes)
        self._slots = slots
        self._prefetch = prefetch
        self._window_s = window_s
        self._lowered: set[int] = set()
        self._full_at = 0.0  # when no slot was free, for the last time
        self._samples: deque[tuple[float, Counter[int]]] = deque()

    @property
    def lowered(self) -> frozenset[int]:
        return frozenset(self._lowered)

    def lower(self, lane: int, now: float) -> None:
        """A job of this lane had to go back."""
        self._lowered.add(lane)
        self._full_at = now

    def offers(self, held: Iterable[Run], running: set[Run], starts: Counter[int], now: float) -> dict[int, int]:
        """The slots to announce to each lane.

        `held` are the runs whose end is not reported yet; one that was stopped and goes on in its slot only
        blocks it. `starts` counts all runs that were ever started, by lane.
        """
        working: Counter[int] = Counter()
        waiting: Counter[int] = Counter()
        for run in held:
            (working if run in running else waiting)[run.job.lane] += 1
        capacity = self._slots - sum(run.token.is_cancelled for run in running)
        if capacity <= working.total() + waiting.total():
            self._full_at = now
        elif now - self._full_at >= self._window_s:
            self._lowered.clear()
        lately = self._started_lately(starts, now)
        loads = [LaneLoad(working[n], waiting[n], lately[n], n in self._lowered) for n in self._lanes]
        return dict(zip(self._lanes, offers(capacity, self._prefetch, loads), strict=True))

    def _started_lately(self, starts: Counter[int], now: float) -> Counter[int]:
        """The runs started within the window, as nearly as the samples tell."""
        while len(self._samples) > 1 and self._samples[1][0] <= now - self._window_s:
            self._samples.popleft()
        before = self._samples[0][1] if self._samples else starts
        self._samples.append((now, starts))
        return starts - before
