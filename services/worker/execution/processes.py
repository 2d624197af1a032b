"""Process-isolated tasks: each run in a child process, which can be killed in the middle of it."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import lru_cache, partial
from importlib import import_module
from multiprocessing import Pipe, parent_process, util
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_sentinel
from multiprocessing.context import SpawnProcess
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

log = logging.getLogger(__name__)

#: Signals for the worker that reach its children often, too: a terminal sends them to all of its processes, and a
#: service manager to a whole control group.
FROM_OUTSIDE: Final = (signal.SIGTERM, signal.SIGINT)
#: How a worker ends a child; it kills what has not ended after `STOP_S`.
END: Final = signal.SIGUSR2
STOP_S: Final = 3.0
#: How often a thread that waits for its child looks whether it lives. The end of the connection does not show that
#: if the task has forked, since the fork holds the connection open.
LOOK_S: Final = 0.1
#: So many processes may die before they have begun a run; the next one to die is the run's failure.
STARTS_MAX: Final = 3

Ended: TypeAlias = Succeeded | Failed
_ENDED: Final[msgspec.json.Decoder[Ended]] = msgspec.json.Decoder(Ended)
_BEGUN: Final = b"begun"


class ProcessEnded(TaskError):
    """The process of a run ended before the run: a crash, a kill, `os._exit`, no memory left."""


class RunProcess(SpawnProcess):
    """A child that only its worker ends: when all processes are told to stop, runs have their grace time.

    Processes are spawned, not forked: a fork would copy locks that threads of the worker hold.
    """

    def start(self) -> None:
        # The child inherits the mask, and lifts it when it has its handlers (set_up_child).
        before = signal.pthread_sigmask(signal.SIG_BLOCK, FROM_OUTSIDE)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def terminate(self) -> None:
        """Let the process end in order; no error if it has ended."""
        if self.pid is not None and self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, END)


class _Child:
    """A process for one run at a time, with a connection of its own: its death concerns no other run."""

    def __init__(self, set_up: Callable[[], object] | None) -> None:
        self._connection, its_end = Pipe()
        self.process = RunProcess(target=serve_runs, args=(its_end, set_up), name="joblog-run")
        try:
            self.process.start()
        finally:
            its_end.close()
        self._lock = Lock()
        self._run: Run | None = None
        self._stopped_at: float | None = None

    @property
    def is_reusable(self) -> bool:
        return self._stopped_at is None and self.process.is_alive()

    @property
    def is_stopped(self) -> bool:
        return self._stopped_at is not None

    def send(self, run: Run, request: bytes) -> None:
        """Ask for a run; raises EOFError when the process is over."""
        with self._lock:
            self._run = run
        try:
            self._connection.send_bytes(request)
        except OSError as exc:
            raise EOFError from exc

    def receive(self) -> bytes:
        """Wait for the next message of the process; raises EOFError when it is over without one."""
        try:
            while not self._connection.poll(LOOK_S):
                if not self.process.is_alive() and not self._connection.poll(0):
                    raise EOFError
                if self._stopped_at is not None and time.monotonic() - self._stopped_at > STOP_S:
                    self.process.kill()
            return self._connection.recv_bytes()
        except OSError as exc:
            raise EOFError from exc

    def release(self) -> None:
        """The run is over; from now on `stop` does nothing."""
        with self._lock:
            self._run = None

    def stop(self, run: Run) -> None:
        """End the process in the middle of this run; does nothing in the next one. For any thread."""
        with self._lock:
            if self._run is run:
                self._stopped_at = time.monotonic()
                self.process.terminate()

    def abandon(self) -> None:
        """End the process, whatever it does."""
        with self._lock:
            self._stopped_at = time.monotonic()
        self.process.terminate()

    def end(self, timeout_s: float) -> None:
        """Wait for the end of the process, and kill it after `timeout_s`."""
        self.process.join(max(timeout_s, 0))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def close(self) -> int | None:
        """End the process and the connection; returns the exit code."""
        self.process.terminate()
        self.end(STOP_S)
        self._connection.close()
        return self.process.exitcode


class ProcessRuns:
    """Performs runs in processes: one for each run that goes on, made when none is idle, and kept.

    `set_up` is called first in each of them; it has to be one that can be pickled.
    """

    def __init__(self, result_bytes_max: int, set_up: Callable[[], object] | None = None) -> None:
        self._result_bytes_max = result_bytes_max
        self._set_up = set_up
        self._lock = Lock()
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._is_closed = False

    def perform(self, run: Run, timeout_s: float | None) -> Ended:
        """Run it and wait for its end. The time-out counts from the beginning in the child, not from its start.

        Raises ProcessEnded, and CancelledError once the run was interrupted.
        """
        task = run.known.task
        request = msgspec.msgpack.encode(
            (task.function.__module__, task.name, msgspec.json.encode(run.job), run.worker, self._result_bytes_max)
        )
        child = self._begun(run, request)
        try:
            run.begin()
            run.limit(timeout_s)
            return _ENDED.decode(child.receive())
        except EOFError as exc:
            raise self._ended(child) from exc
        finally:
            self._give_back(child)

    def close(self) -> None:
        """End all processes, whatever they do."""
        with self._lock:
            self._is_closed = True
            children = [*self._idle, *self._busy]
            self._idle.clear()
        for child in children:
            child.abandon()
        deadline = time.monotonic() + STOP_S
        for child in children:
            child.end(deadline - time.monotonic())

    def _begun(self, run: Run, request: bytes) -> _Child:
        """A child that has begun the run. One that dies before that does not concern the run: there are others."""
        for _ in range(STARTS_MAX):
            child = self._taken()
            try:
                child.send(run, request)
                run.interruptible_by(partial(child.stop, run))
                child.receive()
            except EOFError as exc:
                error = self._ended(child)
                self._give_back(child)
                if isinstance(error, CancelledError):
                    raise error from exc
                log.warning("run.process_lost", extra={"job_id": run.job.job_id, "reason": str(error)})
            except BaseException:
                self._give_back(child)
                raise
            else:
                return child
        raise error

    def _taken(self) -> _Child:
        with self._lock:
            if self._is_closed:
                raise CancelledError("the worker has ended")
            while self._idle:
                child = self._idle.pop()
                if child.is_reusable:
                    self._busy.add(child)
                    return child
                child.close()
        made = _Child(self._set_up)
        with self._lock:
            if not self._is_closed:
                self._busy.add(made)
                return made
        made.close()
        raise CancelledError("the worker has ended")

    def _give_back(self, child: _Child) -> None:
        child.release()
        with self._lock:
            self._busy.discard(child)
            if child.is_reusable and not self._is_closed:
                self._idle.append(child)
                return
        child.close()

    def _ended(self, child: _Child) -> Exception:
        """Why a child is over that did not answer."""
        was_stopped = child.is_stopped
        exitcode = child.close()
        if was_stopped:
            return CancelledError("the run was stopped")
        return ProcessEnded(f"the process of the run ended with exit code {exitcode}")


def check_importable(task: Task[..., Any]) -> None:
    """SettingsError unless a child process can find the task where its function was written."""
    module = task.function.__module__
    if module == "__main__":
        raise SettingsError(f"task {task.name} is to run in a process: move it out of the main script")
    if all(found is not task for found in TaskRegistry.of(import_module(module))):
        raise SettingsError(f"task {task.name} is to run in a process: {module} must hold it by a name of its own")


def serve_runs(connection: "Connection[bytes, bytes]", set_up: Callable[[], object] | None) -> None:
    """The child: performs one run after another, until the worker closes the connection."""
    set_up_child(set_up)
    while True:
        try:
            request = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(_BEGUN)
        connection.send_bytes(run_in_child(*msgspec.msgpack.decode(request, type=_Request)))


_Request: TypeAlias = tuple[str, str, bytes, str, int]


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
    signal.signal(END, _end)
    for number in FROM_OUTSIDE:
        signal.signal(number, _ignore)
    # What a task forks ends by signals as usual, also by one that comes while it is being forked: Python drops
    # signals that its handlers have not seen at a fork.
    os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals, after_in_child=_end_by_signals)
    _let_signals()
    if set_up is not None:
        set_up()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Not SIG_IGN, which the programs that a task starts would inherit."""


def _end(number: int, _frame: FrameType | None) -> None:
    """End this process with what multiprocessing does at an end; a task could catch a SystemExit."""
    util._exit_function()  # type: ignore[attr-defined]
    os._exit(number)


def _hold_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, FROM_OUTSIDE)


def _let_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FROM_OUTSIDE)


def _end_by_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(END, signal.SIG_DFL)
    _let_signals()


def end_with_parent() -> None:
    """Let this process end when the worker has ended, even in the middle of a run that nobody could report."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait_for_sentinel([parent.sentinel])
        os._exit(1)

    Thread(target=watch, name="end-with-parent", daemon=True).start()
