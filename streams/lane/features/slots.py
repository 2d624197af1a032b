"""The workers of a lane: what each offers, which jobs it holds, and when it was last heard of."""

from collections import deque
from collections.abc import Iterator

from joblog.streams.contract import wire
from joblog.streams.lane.transitions import Assigned


class WorkerSlots:
    """One worker, as one lane sees it.

    - assigned: the input that starts a job on it.
    - held: the jobs of this lane that it has, with their leases.
    - seen_ms: when it last announced itself, by the elector's monotonic clock; seen_log_ms: by the lane's reading of
      the broker's clock (`Lane.heard`), None if it has not announced itself since the lane was loaded.
    - gone: the event with which it left, while jobs that it held are still to be elected anew.
    - written_ms: when its last event was written.
    - told_ms: of queues and lanes, when it was last told to serve the queue there.
    - suspect: the job among them that may be what kills workers (SUSPECT_LOSSES in workers.py), None if none is.
    """

    __slots__ = (
        *("announced", "assigned", "gone", "held", "seen_log_ms", "seen_ms", "suspect", "tasks", "told_ms"),
        "written_ms",
    )

    def __init__(self, announced: wire.WorkerAnnounced, clock_ms: int) -> None:
        self.held: dict[str, int] = {}
        self.suspect: str | None = None
        self.told_ms: dict[tuple[str, int], int] = {}
        self.written_ms = 0
        self.gone: str | None = None
        self.seen_log_ms: int | None = None
        self.announce(announced, clock_ms)

    def announce(self, announced: wire.WorkerAnnounced, clock_ms: int) -> None:
        self.announced = announced
        self.assigned = Assigned(announced.worker)
        self.tasks = frozenset(announced.tasks)
        self.seen_ms = clock_ms
        self.gone = None

    @property
    def room(self) -> int:
        """How many more jobs of this lane it will take."""
        return self.announced.slots - len(self.held) if self.gone is None else 0


class WorkerRegistry:
    """The workers of one lane."""

    __slots__ = ("_all", "_queues")

    def __init__(self) -> None:
        self._all: dict[str, WorkerSlots] = {}
        self._queues: dict[str, deque[str]] = {}

    def __iter__(self) -> Iterator[tuple[str, WorkerSlots]]:
        return iter(list(self._all.items()))

    def __len__(self) -> int:
        return len(self._all)

    def get(self, worker: str) -> WorkerSlots | None:
        return self._all.get(worker)

    def announce(self, announced: wire.WorkerAnnounced, clock_ms: int) -> tuple[WorkerSlots, bool]:
        """Note a worker's announcement; True if it differs from the last one."""
        known = self._all.get(announced.worker)
        if known is None:
            known = self._all[announced.worker] = WorkerSlots(announced, clock_ms)
            self._serve(announced.queues, announced.worker)
            return known, True
        before = known.announced
        known.announce(announced, clock_ms)
        if before.queues != announced.queues:
            self._leave(announced.worker)
            self._serve(announced.queues, announced.worker)
        return known, before != announced

    def remove(self, worker: str) -> WorkerSlots | None:
        """Forget a worker; the caller has to elect its jobs anew."""
        self._leave(worker)
        return self._all.pop(worker, None)

    def serving(self, queue: str) -> deque[str]:
        """The workers of a queue; the first is next to get a job, and the caller rotates them."""
        return self._queues.get(queue, deque())

    def release(self, worker: str | None, job_id: str) -> None:
        """Note that the worker no longer holds the job."""
        known = self._all.get(worker) if worker is not None else None
        if known is not None:
            known.held.pop(job_id, None)
            if known.suspect == job_id:
                known.suspect = None

    def _serve(self, queues: tuple[str, ...], worker: str) -> None:
        for queue in dict.fromkeys(queues):  # a queue that is named twice counts once
            self._queues.setdefault(queue, deque()).append(worker)

    def _leave(self, worker: str) -> None:
        for queue in [queue for queue, names in self._queues.items() if worker in names]:
            self._queues[queue].remove(worker)
            if not self._queues[queue]:
                del self._queues[queue]
