"""Sync tasks, each in a thread. Process-isolated ones, too: their thread waits for the process."""

import logging
from collections import deque
from collections.abc import Callable
from itertools import count
from queue import SimpleQueue
from threading import Thread

from joblog.services.worker.execution.run import Run
from joblog.services.worker.slots import Slots

log = logging.getLogger(__name__)


class ThreadExecutor:
    """Threads, which are made when no other is free, and kept. After a run a thread takes the next one itself.

    They are daemons, so that a task that ignores its cancellation cannot keep the process alive. The first one is
    made in the constructor: a worker that cannot have any should not take jobs. If there can be no more, runs wait.
    """

    def __init__(self, slots: Slots, perform: Callable[[Run], None]) -> None:
        self._slots = slots
        self._perform = perform
        self._queue: SimpleQueue[Run | None] = SimpleQueue()
        self._free: deque[None] = deque()  # one entry for each thread that waits, or will in a moment
        self._short: deque[None] = deque()  # one entry for each run in the queue that found no such thread
        self._numbers = count()
        self._threads: list[Thread] = []
        self._new_thread()
        self._free.append(None)

    def start(self, run: Run) -> None:
        """Wake a free thread, or make one, up to the number of slots."""
        try:
            self._free.pop()
        except IndexError:
            if not self._grow():
                self._short.append(None)
        self._queue.put(run)

    def close(self) -> None:
        """Let the threads end, each after the run it is in; returns at once."""
        for _ in self._threads:
            self._queue.put(None)

    def _grow(self) -> bool:
        """Make a thread, unless there are as many as slots or the system allows no more."""
        if len(self._threads) >= self._slots.count:
            return False
        try:
            self._new_thread()
        except RuntimeError as exc:  # a limit of the system or of the container
            log.warning("worker.no_thread", extra={"reason": str(exc), "threads": len(self._threads)})
            return False
        return True

    def _new_thread(self) -> None:
        thread = Thread(target=self._work, name=f"slot-{next(self._numbers)}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            self._slots.start_next()
            run: Run | None = first
            while run is not None:
                self._perform_one(run)
                run = self._slots.following(run)
                if run is not None and self._short:  # those were started before it
                    self.start(run)
                    run = None
            self._become_free()

    def _perform_one(self, run: Run) -> None:
        try:
            self._perform(run)
        except BaseException:  # the thread and the slot serve others after this run
            log.exception("run.broken", extra={"job_id": run.job.job_id})

    def _become_free(self) -> None:
        """Take a run that found no thread, or wait for the next one."""
        try:
            self._short.pop()
        except IndexError:
            self._free.append(None)
