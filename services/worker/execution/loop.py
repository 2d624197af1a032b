"""Async tasks, all on one asyncio event loop in a thread of its own.

Jobs of many kinds share the loop, so what one of them does to it must not end the others: a task that it has made
may raise SystemExit, which asyncio lets through to whoever runs the loop, and it may stop the loop, or cancel all
tasks in it. The loop goes on until the worker closes it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from threading import Event, Lock, Thread
from typing import Final

from joblog.services.worker.execution.run import Run
from joblog.services.worker.slots import Slots

log = logging.getLogger(__name__)

CLOSE_S: Final = 1.0


class LoopExecutor:
    """Runs each job as an asyncio task; thread and loop begin with `open`, or with the first job."""

    def __init__(self, slots: Slots, perform: Callable[[Run], Coroutine[None, None, None]]) -> None:
        self._slots = slots
        self._perform = perform
        self._lock = Lock()
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closing = False
        self._pending: deque[Run] = deque()
        self._is_woken = False
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Start the thread now, so that a worker that cannot have it fails before it takes a job."""
        self._started_loop()

    def start(self, run: Run) -> None:
        loop = self._started_loop()
        self._pending.append(run)
        # One wake-up for many jobs: each costs a system call.
        if not self._is_woken:
            self._is_woken = True
            loop.call_soon_threadsafe(self._begin_pending)

    def close(self) -> None:
        """Cancel what still runs and end the loop; does not wait for a task that blocks the loop."""
        with self._lock:
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            self._is_closing = True
            loop.call_soon_threadsafe(loop.stop)
            thread.join(CLOSE_S)

    def _started_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                ready = Event()
                self._thread = Thread(target=self._serve, args=(ready,), name="slots-async", daemon=True)
                self._thread.start()
                ready.wait()
            assert self._loop is not None
            return self._loop

    def _serve(self, ready: Event) -> None:
        """Run the loop until `close`; the tasks that are left are cancelled then."""
        with asyncio.Runner() as runner:
            loop = self._loop = runner.get_loop()
            ready.set()
            while not self._is_closing:
                try:
                    loop.run_forever()
                except BaseException:  # SystemExit or KeyboardInterrupt, which a task of a run has raised
                    log.exception("worker.loop_left")

    def _begin_pending(self) -> None:
        self._is_woken = False
        while self._pending:
            self._slots.start_next()
            self._begin(self._pending.popleft())

    def _begin(self, run: Run) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._perform(run), name=f"{run.known.task.name} {run.job.job_id}")
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, run))
        run.interruptible_by(partial(loop.call_soon_threadsafe, task.cancel))

    def _ended(self, run: Run, task: asyncio.Task[None]) -> None:
        """Start the next job. Called for a task that was cancelled before its first step, too."""
        self._tasks.discard(task)
        run.interrupt = None
        if task.cancelled() and not (run.token.is_cancelled or self._is_closing):
            self._begin(run)  # another run has cancelled it, not the worker: it would never be reported
            return
        following = self._slots.following(run)
        if following is not None:
            self._begin(following)
