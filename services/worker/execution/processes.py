"""Process-isolated tasks: each run in a child process, which can be killed in the middle of it."""

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from multiprocessing import parent_process
from multiprocessing.connection import wait as wait_for_sentinel
from multiprocessing.context import SpawnContext, SpawnProcess
from threading import Lock, Thread
from types import FrameType
from typing import Any, Final, TypeAlias

import msgspec
from joblog.services.tasks.context import CURRENT, JobContext
from joblog.services.tasks.task import Task, TaskRegistry
from joblog.services.worker.execution.arguments import ArgumentReader, read_call
from joblog.services.worker.execution.results import Failed, Succeeded, describe, success_of
from joblog.services.worker.execution.run import Run
from joblog.streams.contract.wire import RunJob
from joblog.streams.errors import SettingsError, TaskError
from pebble import ProcessExpired, ProcessPool
from pebble.common.process import process_exit

#: How exactly the beginning of a run in a child process is noticed, in seconds.
BEGIN_POLL_S: Final = 0.02
#: What a worker that is told to stop hears, and its children often too: all of a terminal, all of a control group.
FROM_OUTSIDE: Final = (signal.SIGTERM, signal.SIGINT)
#: How a worker ends a child.
END: Final = signal.SIGUSR2

Ended: TypeAlias = Succeeded | Failed
_ENDED: Final[msgspec.json.Decoder[Ended]] = msgspec.json.Decoder(Ended)


class ProcessEnded(TaskError):
    """The process of a run ended before the run: a crash, a kill, `os._exit`, no memory left."""


class RunProcess(SpawnProcess):
    """A child that its worker can end, and nobody else: when all are told to stop, runs have their grace time."""

    def start(self) -> None:
        # The child inherits the mask, and lifts it when it has its handlers (set_up_child).
        before = signal.pthread_sigmask(signal.SIG_BLOCK, FROM_OUTSIDE)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def terminate(self) -> None:
        """Called by pebble to end a run that was cancelled or ran too long; it kills where this does not help."""
        if self.pid is not None and self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, END)


class RunProcesses(SpawnContext):
    """Processes are spawned, not forked: a fork would copy locks that threads of this process hold."""

    Process = RunProcess


class ProcessRuns:
    """A pool of as many processes as there are slots, made with the first run that needs it.

    `set_up` is called first in each of them; it has to be one that can be pickled.
    """

    def __init__(self, count: int, result_bytes_max: int, set_up: Callable[[], object] | None = None) -> None:
        self._count = count
        self._result_bytes_max = result_bytes_max
        self._set_up = set_up
        self._pool: ProcessPool | None = None
        self._lock = Lock()

    def perform(self, run: Run, timeout_s: float | None) -> Ended:
        """Run it and wait for its end. The time-out counts from the beginning in the child, not in the queue.

        Raises ProcessEnded, and CancelledError once the run was interrupted.
        """
        where = (run.known.task.function.__module__, run.known.task.name)
        args = (*where, msgspec.json.encode(run.job), run.worker, self._result_bytes_max)
        future = self._living_pool().schedule(run_in_child, args=args)
        run.interruptible_by(future.cancel)
        while not future.running() and not future.done():
            wait([future], BEGIN_POLL_S)
        run.begin()
        run.limit(timeout_s)
        try:
            return _ENDED.decode(future.result())
        except ProcessExpired as exc:
            raise ProcessEnded(f"the process of the run ended with exit code {exc.exitcode}") from exc
        except BrokenProcessPool as exc:
            raise ProcessEnded(f"the process of the run was lost: {exc}") from exc

    def close(self) -> None:
        """End all processes, whatever they do."""
        with self._lock:
            if self._pool is not None:
                _stop(self._pool)
                self._pool.join()
                self._pool = None

    def _living_pool(self) -> ProcessPool:
        with self._lock:
            if self._pool is not None and not self._pool.active:  # a process died while it was idle
                _stop(self._pool)
                self._pool = None
            if self._pool is None:
                self._pool = ProcessPool(
                    self._count, initializer=set_up_child, initargs=(self._set_up,), context=RunProcesses()
                )
            return self._pool


def _stop(pool: ProcessPool) -> None:
    stop: Callable[[], None] = pool.stop
    stop()


def check_importable(task: Task[..., Any]) -> None:
    """SettingsError unless a child process can find the task where its function was written."""
    module = task.function.__module__
    if module == "__main__":
        raise SettingsError(f"task {task.name} is to run in a process: move it out of the main script")
    if all(found is not task for found in TaskRegistry.of(import_module(module))):
        raise SettingsError(f"task {task.name} is to run in a process: {module} must hold it by a name of its own")


def run_in_child(module: str, name: str, job: bytes, worker: str, result_bytes_max: int) -> bytes:
    """One run, in the child; its end travels as JSON, so that nothing a task made is unpickled."""
    ended: Ended
    try:
        found, arguments = _known(module, name)
        assigned = msgspec.json.decode(job, type=RunJob)
        context = JobContext(assigned, worker)
        CURRENT.set(context)
        args, kwargs = arguments.read(read_call(assigned.spec), context)
        value = found.function(*args, **kwargs)
        ended = success_of(asyncio.run(value) if found.is_async else value, result_bytes_max)
    except BaseException as exc:  # noqa: BLE001 - whatever ends the task is its outcome, SystemExit too
        ended = Failed(describe(exc, frames_skipped=1))
    return msgspec.json.encode(ended)


@lru_cache
def _known(module: str, name: str) -> tuple[Task[..., Any], ArgumentReader]:
    found = TaskRegistry.of(import_module(module)).get(name)
    return found, ArgumentReader(found)


def set_up_child(set_up: Callable[[], object] | None) -> None:
    """Make this process one for runs; called in it before the first."""
    end_with_parent()
    signal.signal(END, process_exit)
    signal.signal(signal.SIGTERM, _pass_over)
    # What a task forks ends by signals as ever, also by one that comes while it is being forked: Python forgets
    # what its handlers had not seen yet.
    os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals, after_in_child=_end_by_signals)
    _let_signals()
    if set_up is not None:
        set_up()


def _pass_over(_number: int, _frame: FrameType | None) -> None:
    """Not SIG_IGN, which the programs that a task starts would inherit."""


def _hold_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, FROM_OUTSIDE)


def _let_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FROM_OUTSIDE)


def _end_by_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(END, signal.SIG_DFL)
    _let_signals()


def end_with_parent() -> None:
    """Let this process end when the worker is gone, even in the middle of a run: nobody would hear of it."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait_for_sentinel([parent.sentinel])
        os._exit(1)

    Thread(target=watch, name="end-with-parent", daemon=True).start()
