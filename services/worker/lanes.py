"""What a worker remembers of its lanes, to know what to offer them; offers.py has the rule."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from joblog.services.worker.execution.run import Run
from joblog.services.worker.offers import LaneLoad, offers
from joblog.services.worker.slots import Slots


class LaneBook:
    """Kept by the worker's loop; instants are monotonic seconds."""

    def __init__(self, lanes: Sequence[int], slots: int, prefetch: int, window_s: float) -> None:
        self._lanes = tuple(lanes)
        self._slots = slots
        self._prefetch = prefetch
        self._window_s = window_s
        self._lowered: set[int] = set()
        self._full_at = 0.0  # when no slot was free, for the last time
        self._samples: deque[tuple[float, Counter[int]]] = deque()

    def lower(self, lane: int, now: float) -> None:
        """A job of this lane had to go back."""
        self._lowered.add(lane)
        self._full_at = now

    def offers(self, slots: Slots, now: float) -> dict[int, int]:
        """The slots to announce to each lane."""
        running = slots.running
        capacity = self._slots - sum(run.token.is_cancelled for run in running)
        if self._lowered:
            loads = self._loads(slots, running, capacity, now)
        else:
            self._samples.clear()
            loads = [LaneLoad()] * len(self._lanes)
        return dict(zip(self._lanes, offers(capacity, self._prefetch, loads), strict=True))

    def _loads(self, slots: Slots, running: Iterable[Run], capacity: int, now: float) -> list[LaneLoad]:
        working = Counter(run.job.lane for run in running if not run.token.is_cancelled)
        waiting = Counter(run.job.lane for run in slots.waiting)
        if capacity <= working.total() + waiting.total():
            self._full_at = now
        elif now - self._full_at >= self._window_s:
            self._lowered.clear()
        lately = self._started_lately(slots.starts, now)
        return [LaneLoad(working[n], waiting[n], lately[n], n in self._lowered) for n in self._lanes]

    def _started_lately(self, starts: Counter[int], now: float) -> Counter[int]:
        """The runs started within the window, as nearly as the samples tell."""
        while len(self._samples) > 1 and self._samples[1][0] <= now - self._window_s:
            self._samples.popleft()
        before = self._samples[0][1] if self._samples else starts
        self._samples.append((now, starts))
        return starts - before
