"""The workers that a lane knows: what each offers, what it holds, and whether it is still there."""

from collections import deque
from collections.abc import Iterator

from joblog.streams.contract import wire


class WorkerSlots:
    """One worker, as one lane sees it.

    - held: the jobs of this lane that it has, with their leases.
    - seen_ms: when it last announced itself, by the elector's own clock, which nobody sets; seen_log_ms: by the
      lane's reading of the broker's clock (`Lane.heard`), None if it has not been heard since the lane was loaded.
    - gone: by which event it left, while jobs that it held are still to be elected anew.
    - written_ms: when that was last written as an event.
    """

    __slots__ = ("announced", "gone", "held", "seen_log_ms", "seen_ms", "tasks", "written_ms")

    def __init__(self, announced: wire.WorkerAnnounced, clock_ms: int) -> None:
        self.held: dict[str, int] = {}
        self.written_ms = 0
        self.gone: str | None = None
        self.seen_log_ms: int | None = None
        self.announce(announced, clock_ms)

    def announce(self, announced: wire.WorkerAnnounced, clock_ms: int) -> None:
        self.announced = announced
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
        """Note a worker's word; True if it says something else than before."""
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
        """Forget a worker; what it held is the caller's to elect anew."""
        self._leave(worker)
        return self._all.pop(worker, None)

    def serving(self, queue: str) -> deque[str]:
        """The workers of a queue, in the order of whose turn it is; the caller rotates it."""
        return self._queues.get(queue, deque())

    def release(self, worker: str | None, job_id: str) -> None:
        """The worker holds the job no more."""
        known = self._all.get(worker) if worker is not None else None
        if known is not None:
            known.held.pop(job_id, None)

    def _serve(self, queues: tuple[str, ...], worker: str) -> None:
        for queue in dict.fromkeys(queues):  # one that is named twice has one turn
            self._queues.setdefault(queue, deque()).append(worker)

    def _leave(self, worker: str) -> None:
        for queue in [queue for queue, names in self._queues.items() if worker in names]:
            self._queues[queue].remove(worker)
            if not self._queues[queue]:
                del self._queues[queue]
