"""Process-isolated tasks: each run in a child process, which can be killed in the middle of it.

Each child has a connection of its own and performs one run at a time, so the death of a child concerns no other run.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from importlib import import_module
from math import inf
from multiprocessing import Pipe
from multiprocessing.context import SpawnProcess
from threading import Lock
from typing import Any, Final

import msgspec
from joblog.services.tasks.task import Task, TaskRegistry
from joblog.services.worker.execution.child import (
    BEGUN,
    END,
    FROM_OUTSIDE,
    Ended,
    Listens,
    Logged,
    Progressed,
    Said,
    serve_runs,
)
from joblog.services.worker.execution.results import Failed, Succeeded
from joblog.services.worker.execution.run import Run
from joblog.streams.errors import SettingsError, TaskError

log = logging.getLogger(__name__)

#: What a child gets to end in, before it is killed.
STOP_S: Final = 3.0
#: What a run gets in addition that looks at its token, to end by itself.
LISTEN_S: Final = 5.0
#: How often a thread that waits for its child looks whether it lives. The end of the connection does not show that
#: if the task has forked, since the fork holds the connection open.
LOOK_S: Final = 0.1
#: How many processes may die before they have begun a run, until that is the run's failure.
STARTS_MAX: Final = 3

_SAID: Final[msgspec.json.Decoder[Said]] = msgspec.json.Decoder(Said)


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
        its_orders, self._orders = Pipe(duplex=False)
        self.process = RunProcess(target=serve_runs, args=(its_end, its_orders, set_up), name="joblog-run")
        try:
            self.process.start()
        finally:
            its_end.close()
            its_orders.close()
        self._lock = Lock()
        self._run: Run | None = None
        self._stopped_at: float | None = None
        #: When it is told to end, and when it is killed.
        self._ends_at = self._killed_at = inf

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
            while True:
                if self._stopped_at is not None:
                    self._hurry(time.monotonic())
                if self._connection.poll(LOOK_S):
                    return self._connection.recv_bytes()
                if not self.process.is_alive() and not self._connection.poll(0):
                    raise EOFError
        except OSError as exc:
            raise EOFError from exc

    def release(self) -> None:
        """The run is over; from now on `stop` does nothing."""
        with self._lock:
            self._run = None

    def _hurry(self, now: float) -> None:
        if now > self._killed_at:
            self.process.kill()
        elif now > self._ends_at:
            self._ends_at = inf
            self.process.terminate()

    def stop(self, run: Run) -> None:
        """Let the run's token fire; does nothing in the next run. For any thread.

        If the task does not look at its token, the process ends. If it does, it gets `LISTEN_S` for that.
        """
        with self._lock:
            if self._run is run and self._stopped_at is None:
                self._stopped_at = time.monotonic()
                self._killed_at = self._stopped_at + STOP_S
                try:
                    self._orders.send_bytes((run.token.reason or "").encode())
                except OSError:
                    self.process.terminate()

    def listens(self) -> None:
        """The run looks at its token."""
        assert self._stopped_at is not None
        self._ends_at = self._stopped_at + LISTEN_S
        self._killed_at = self._ends_at + STOP_S

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
        self._orders.close()
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
            (
                task.function.__module__,
                task.name,
                msgspec.json.encode(run.job),
                run.worker,
                run.result_bytes_max(self._result_bytes_max),
            )
        )
        child = self._begun(run, request)
        try:
            run.begin()
            run.limit(timeout_s)
            return self._heard_out(run, child)
        except EOFError as exc:
            raise self._ended(child) from exc
        finally:
            self._give_back(child)

    def _heard_out(self, run: Run, child: _Child) -> Ended:
        """Pass on what the run says, until it has ended."""
        while True:
            match _SAID.decode(child.receive()):
                case Progressed(progress, text):
                    run.progressed(progress, text)
                case Logged(text):
                    run.logged(text)
                case Listens():
                    child.listens()
                case Succeeded() | Failed() as ended:
                    return ended

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
                while child.receive() != BEGUN:  # what a fork says that an earlier run has left behind
                    pass
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
