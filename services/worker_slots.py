"""The slots of a worker: which waiting run starts when, and never more at once than there are slots."""

from collections import Counter
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Protocol

from joblog.services.worker_inbox import Inbox
from joblog.services.worker_run import Run


class Executor(Protocol):
    """Runs elsewhere, at once, what it is given, and asks `Slots.following` after each run."""

    def start(self, run: Run) -> None: ...


class Slots:
    """Starts runs while slots are free; may be called from any thread.

    A slot is free again when its run has really come back. A thread whose run was cancelled or timed out
    keeps its slot: it cannot be stopped, and it still costs what it costs.
    """

    def __init__(self, count: int, queues: Sequence[str]) -> None:
        self.count = count
        self._starts: Counter[int] = Counter()
        self._inbox = Inbox(queues)
        self._running: set[Run] = set()
        self._lock = Lock()
        self._threads: Executor | None = None
        self._loop: Executor | None = None

    def connect(self, threads: Executor, loop: Executor) -> None:
        """Name the executors; they need the slots, so they are made later."""
        self._threads, self._loop = threads, loop

    def add(self, runs: Iterable[Run]) -> None:
        """Let these wait, and start what there is room for."""
        with self._lock:
            for run in runs:
                self._inbox.put(run)
            ready = self._take()
        for run in ready:
            self._start(run)

    def following(self, over: Run) -> Run | None:
        """Free the slot of a run that came back. Returns the next one if the same executor can go on with it."""
        with self._lock:
            self._running.discard(over)
            ready = self._take()
        mine: Run | None = None
        for run in ready:
            if mine is None and run.known.is_async is over.known.is_async:
                mine = run
            else:
                self._start(run)
        return mine

    def discard(self, run: Run) -> bool:
        """Take a waiting run out; false when it does not wait: then it runs, or has."""
        with self._lock:
            return self._inbox.discard(run)

    def take_older(self, arrived_before: float) -> list[Run]:
        """Take out the waiting runs that arrived before this instant (monotonic seconds)."""
        with self._lock:
            return self._inbox.take_older(arrived_before)

    @property
    def running(self) -> set[Run]:
        """A copy of what occupies a slot now."""
        with self._lock:
            return set(self._running)

    @property
    def waiting(self) -> int:
        with self._lock:
            return len(self._inbox)

    @property
    def starts(self) -> Counter[int]:
        """How many runs of each lane were ever started."""
        with self._lock:
            return Counter(self._starts)

    def _take(self) -> list[Run]:
        """Move runs from the inbox into free slots. The caller holds the lock."""
        ready: list[Run] = []
        while len(self._running) < self.count and (run := self._inbox.take()) is not None:
            self._running.add(run)
            self._starts[run.job.lane] += 1
            ready.append(run)
        return ready

    def _start(self, run: Run) -> None:
        executor = self._loop if run.known.is_async else self._threads
        assert executor is not None, "the slots were not connected to their executors"
        executor.start(run)
