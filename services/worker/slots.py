"""The slots of a worker: which waiting run starts when, and never more at once than there are slots.

There is no lock here. Every step is one operation on a deque or dict, which Python makes atomic: a run waits until
one thread takes it out of `_waiting`, to start it or to give it back, and a slot is free until one thread takes it
out of `_free`. All slots would contend for a lock whenever the interpreter switches threads while one holds it;
that tripled the cost of a short job.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from joblog.services.worker.execution.run import Run, RunKey


class Executor(Protocol):
    """Performs runs elsewhere; calls `Slots.start_next` before each of them and `Slots.following` after it."""

    def start(self, run: Run) -> None: ...


class Slots:
    """Starts runs while slots are free: in the order of the queues, then of arrival.

    A slot is free again when its run has returned. A thread whose run was cancelled or timed out keeps its slot:
    it cannot be stopped, and still uses what it uses.

    `add`, `withdraw` and `withdraw_older` belong to the worker's loop.
    """

    def __init__(self, count: int, queues: Sequence[str]) -> None:
        self.count = count
        self._queues: dict[str, deque[Run]] = {queue: deque() for queue in queues}
        self._in_order = tuple(self._queues.values())
        self._waiting: dict[RunKey, Run] = {}
        self._running: dict[Run, None] = {}
        self._free: deque[None] = deque([None] * count)
        self._added: Counter[int] = Counter()
        self._withdrawn: Counter[int] = Counter()
        self._threads: Executor | None = None
        self._loop: Executor | None = None
        self._fault: Callable[[Run, Exception], None] | None = None

    def connect(self, threads: Executor, loop: Executor, fault: Callable[[Run, Exception], None]) -> None:
        """Set the executors, which are made after the slots, and `fault`, which ends a run that they cannot start."""
        self._threads, self._loop, self._fault = threads, loop, fault

    def add(self, runs: Iterable[Run]) -> None:
        """Let these runs wait for a slot, and start the first one if a slot is free."""
        for run in runs:
            self._added[run.job.lane] += 1
            self._waiting[run.key] = run
            self._queues[run.job.queue].append(run)
        self.start_next()

    def start_next(self) -> None:
        """Start one more run, if one waits and a slot is free.

        Each run that was started this way starts one more before it begins. So runs that block get their
        threads one after the other, at once, and runs that are over in microseconds do not wake any.
        """
        while self._free and any(self._in_order):
            try:
                self._free.pop()
            except IndexError:
                return
            run = self._take()
            if run is not None:
                if self._start(run):
                    return
                continue
            # Meanwhile another run may have come, and found no slot because this one was taken: look again.
            self._free.append(None)

    def following(self, over: Run) -> Run | None:
        """Free the slot of a run that came back, or hand it on: to the run returned, which the caller begins."""
        self._running.pop(over, None)
        run = self._take()
        if run is None:
            self._free.append(None)
            self.start_next()
            return None
        if run.known.is_async is over.known.is_async:
            return run
        if not self._start(run):
            self.start_next()
        return None

    def withdraw(self, run: Run) -> bool:
        """Take a waiting run out; false when it does not wait: then it runs, or has."""
        if self._waiting.pop(run.key, None) is None:
            return False
        self._withdrawn[run.job.lane] += 1
        with suppress(ValueError):  # a slot has just found it, and will pass it over
            self._queues[run.job.queue].remove(run)
        return True

    def withdraw_older(self, arrived_before: float) -> list[Run]:
        """Take out the waiting runs that arrived before this instant."""
        old: list[Run] = []
        for run in list(self._waiting.values()):
            if run.arrived_at >= arrived_before:
                break
            if self.withdraw(run):
                old.append(run)
        return old

    @property
    def running(self) -> list[Run]:
        """What occupies a slot now."""
        return list(self._running)

    @property
    def waiting(self) -> list[Run]:
        return list(self._waiting.values())

    @property
    def starts(self) -> Counter[int]:
        """How many runs of each lane were ever started."""
        return self._added - self._withdrawn - Counter(run.job.lane for run in self.waiting)

    def _take(self) -> Run | None:
        """The next run to start, None if none waits. The caller has a slot for it."""
        for queue in self._in_order:
            while queue:
                try:
                    run = queue.popleft()
                except IndexError:
                    break
                if self._waiting.pop(run.key, None) is not None:
                    self._running[run] = None
                    return run
        return None

    def _start(self, run: Run) -> bool:
        """Hand a run to its executor; false if it cannot be started: it has ended, and its slot is free again."""
        executor = self._loop if run.known.is_async else self._threads
        assert executor is not None, "the slots were not connected to their executors"
        assert self._fault is not None
        try:
            executor.start(run)
        except Exception as exc:  # noqa: BLE001 - the caller may be the thread of another run
            self._running.pop(run, None)
            self._free.append(None)
            self._fault(run, exc)
            return False
        return True
