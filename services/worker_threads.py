"""Sync tasks, each in a thread; process-isolated ones too, whose thread waits for the process."""

from collections import deque
from collections.abc import Callable
from itertools import count
from queue import SimpleQueue
from threading import Thread

from joblog.services.worker_run import Run
from joblog.services.worker_slots import Slots


class ThreadExecutor:
    """Threads made when no other is free, and kept. One that is done with a run takes the next one itself.

    They are daemons, so that a task that ignores its cancellation cannot keep the process alive.
    """

    def __init__(self, slots: Slots, perform: Callable[[Run], None]) -> None:
        self._slots = slots
        self._perform = perform
        self._queue: SimpleQueue[Run | None] = SimpleQueue()
        self._free: deque[None] = deque()  # one entry for each thread that waits, or is about to
        self._numbers = count()
        self._threads: list[Thread] = []

    def start(self, run: Run) -> None:
        """Wake a thread that is free, or make one; as many as slots, since one that is not free yet soon is."""
        try:
            self._free.pop()
        except IndexError:
            if len(self._threads) < self._slots.count:
                self._new_thread()
        self._queue.put(run)

    def close(self) -> None:
        """Let the threads end, each after the run it is in; returns at once."""
        for _ in self._threads:
            self._queue.put(None)

    def _new_thread(self) -> None:
        thread = Thread(target=self._work, name=f"slot-{next(self._numbers)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            self._slots.start_next()
            run: Run | None = first
            while run is not None:
                self._perform(run)
                run = self._slots.following(run)
            self._free.append(None)
