"""Sync tasks, each in a thread; process-isolated ones too, whose thread waits for the process."""

import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread

from joblog.services.worker_run import Run

log = logging.getLogger(__name__)


class ThreadExecutor:
    """Threads made when they are first needed, `count` at most, and kept.

    A thread that is done with a run asks for the next one itself: while jobs wait, nobody has to be woken.
    The threads are daemons, so that a task that ignores its cancellation cannot keep the process alive.
    """

    def __init__(
        self, count: int, perform: Callable[[Run], None], following: Callable[[Run], Run | None], name: str
    ) -> None:
        self._count = count
        self._perform = perform
        self._following = following
        self._name = name
        self._queue: SimpleQueue[Run | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._busy = 0
        self._lock = Lock()

    def start(self, run: Run) -> None:
        with self._lock:
            self._busy += 1
            if len(self._threads) < min(self._busy, self._count):
                self._threads.append(self._new_thread())
        self._queue.put(run)

    def close(self) -> None:
        """Let the threads end, each after the run it is in; returns at once."""
        with self._lock:
            for _ in self._threads:
                self._queue.put(None)

    def _new_thread(self) -> Thread:
        thread = Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            run: Run | None = first
            while run is not None:
                self._perform(run)
                run = self._following(run)
            with self._lock:
                self._busy -= 1
