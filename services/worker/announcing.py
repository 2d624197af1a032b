"""The worker's announcements: one to each of its lanes, sent again to renew the lease and when an offer changes.

An announcement offers the lane a number of slots: how many of its jobs the worker will hold. Every lane is offered
all slots and the prefetch at once, because the worker cannot know which lane has jobs, and an idle slot is worse
than a job that waits. A job that has waited too long goes back, so that another worker can have it, and its lane is
*lowered*: it is offered the slots that it uses and those that are free, and besides as many as it started within the
last `release_after_s`, since that many will not wait too long. So jobs do not go back and forth.

Lanes are in the order of the worker's queues. A lane behind a lowered one is offered one slot less: the next slot
that becomes free is not filled from the lane behind before the one in front could use it. So the order of the queues
holds although lanes know nothing of each other. A lowered lane is raised once a slot has been free for that long:
then no lane in front needed it.
"""

import os
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import inf
from secrets import token_hex
from socket import gethostname
from typing import Final

from joblog.services.worker.assignments import partition_of
from joblog.services.worker.execution.run import Leases, Run
from joblog.services.worker.options import WorkerOptions
from joblog.services.worker.reports import Reports
from joblog.services.worker.served_lanes import ServedLanes
from joblog.services.worker.slots import Slots
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.wire import WorkerAnnounced

#: Shortest time between two announcements to one lane: the offer to a lowered lane changes with every run.
CHANGE_S: Final = 0.1


def new_worker_id(name: str, home: int) -> str:
    """A new id, for each session of a worker; it names the home lane, to which orders for the worker are sent."""
    return f"{name}:{os.getpid()}:{token_hex(4)}@{home}"


class Announcer:
    """Announces what the worker offers, and renews its leases when Kafka has acknowledged that."""

    def __init__(
        self,
        reports: Reports,
        settings: WorkerOptions,
        worker: str,
        tasks: Mapping[str, Retry | None],
        leases: Leases,
        served: ServedLanes,
    ) -> None:
        self._reports = reports
        self._settings = settings
        self._served = served
        self._home = settings.home
        self._worker = worker
        self._tasks = tuple(sorted(tasks))
        self._policies = {name: retry for name, retry in tasks.items() if retry is not None}
        self._started_at = datetime.now(UTC)
        self._offered: dict[int, tuple[int, tuple[str, ...]]] = {}
        self._sent_at: dict[int, float] = {}
        self._leases = leases
        self._announced: set[int] = set()
        #: Whether it was told to take no more jobs.
        self.is_quiet = False

    @property
    def lanes(self) -> tuple[int, ...]:
        """In the order of the worker's queues."""
        return tuple(self._served.queues)

    @property
    def is_announced(self) -> bool:
        """Whether Kafka has acknowledged an announcement to every lane where its queues live."""
        return self._announced.issuperset(self._settings.queues_of_lanes)

    def announce(self, offers: Mapping[int, int], now: float, *, at_once: bool = False) -> None:
        """Send each lane its offer if it has changed, or if it is time to renew the lease."""
        for lane, offered in offers.items():
            queues = self._served.queues[lane]
            slots = offered if queues else 0
            age = now - self._sent_at.get(lane, -inf)
            is_changed = (slots, queues) != self._offered.get(lane)
            if age >= self._settings.renew_s or (is_changed and (at_once or age >= CHANGE_S)):
                self._offered[lane] = (slots, queues)
                self._sent_at[lane] = now
                self._reports.announce(lane, self._message(lane, slots), partial(self._acknowledged, lane, now))

    def announce_stop(self) -> None:
        """Let every lane elect anew what the worker still holds, without waiting for the end of the lease."""
        for lane in self.lanes:
            self._reports.stopping(lane, self._worker)

    def leave(self, lane: int) -> None:
        """Tell a lane that the worker does not serve it any more."""
        self._reports.stopping(lane, self._worker)
        del self._offered[lane], self._sent_at[lane]

    def _acknowledged(self, lane: int, sent_at: float) -> None:
        self._announced.add(lane)
        self._leases.renew(lane, sent_at)

    def _message(self, lane: int, slots: int) -> WorkerAnnounced:
        return WorkerAnnounced(
            worker=self._worker,
            partition=partition_of(self._worker),
            queues=self._served.queues[lane],
            all_queues=self._settings.queues,
            slots=slots,
            all_slots=self._settings.slots,
            tasks=self._tasks,
            host=gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            home=lane == self._home,
            policies=self._policies,
            quiet=self.is_quiet,
        )


@dataclass(frozen=True, slots=True)
class LaneLoad:
    """What the worker holds of one lane; a run whose end is reported does not count, even if its thread goes on."""

    running: int = 0
    waiting: int = 0
    started_lately: int = 0
    is_lowered: bool = False


def offers(capacity: int, prefetch: int, loads: Sequence[LaneLoad]) -> list[int]:
    """The slots to offer to each lane, in the order of the worker's queues.

    `capacity` is the number of slots without those of runs that have ended for Joblog and whose threads go on.
    """
    free = max(0, capacity - sum(load.running + load.waiting for load in loads))
    full = capacity + prefetch if capacity > 0 else 0
    offered: list[int] = []
    is_behind = False
    for load in loads:
        slots = load.running + free
        if is_behind:
            offered.append(min(full, max(0, slots - 1)))
        elif load.is_lowered:
            offered.append(min(full, slots + load.started_lately))
        else:
            offered.append(full)
        is_behind = is_behind or load.is_lowered
    return offered


class LaneBook:
    """What `offers` needs to know of the lanes, noted by the worker's loop; instants are those of `clock`.

    - lanes: in the order of the worker's queues; set anew when they change.
    """

    def __init__(self, lanes: Sequence[int], slots: int, prefetch: int, window_s: float) -> None:
        self.lanes = tuple(lanes)
        self._slots = slots
        self._prefetch = prefetch
        self._window_s = window_s
        self._lowered: set[int] = set()
        self._full_at = 0.0  # the last time at which no slot was free
        self._samples: deque[tuple[float, Counter[int]]] = deque()

    def lower(self, lane: int, now: float) -> None:
        """A job of this lane had to go back."""
        self._lowered.add(lane)
        self._full_at = now

    def offers(self, slots: Slots, now: float) -> dict[int, int]:
        """The slots to offer to each lane now."""
        running = slots.running
        capacity = self._slots - sum(run.token.is_cancelled for run in running)
        if self._lowered:
            loads = self._loads(slots, running, capacity, now)
        else:
            self._samples.clear()
            loads = [LaneLoad()] * len(self.lanes)
        return dict(zip(self.lanes, offers(capacity, self._prefetch, loads), strict=True))

    def _loads(self, slots: Slots, running: Iterable[Run], capacity: int, now: float) -> list[LaneLoad]:
        working = Counter(run.job.lane for run in running if not run.token.is_cancelled)
        waiting = Counter(run.job.lane for run in slots.waiting)
        if capacity <= working.total() + waiting.total():
            self._full_at = now
        elif now - self._full_at >= self._window_s:
            self._lowered.clear()
        lately = self._started_lately(slots.starts, now)
        return [LaneLoad(working[n], waiting[n], lately[n], n in self._lowered) for n in self.lanes]

    def _started_lately(self, starts: Counter[int], now: float) -> Counter[int]:
        """How many runs of each lane were started within the window, as exactly as the samples allow."""
        while len(self._samples) > 1 and self._samples[1][0] <= now - self._window_s:
            self._samples.popleft()
        before = self._samples[0][1] if self._samples else starts
        self._samples.append((now, starts))
        return starts - before
