"""The child process of a process-isolated run: it performs what its worker sends, and ends when its worker ends."""

import asyncio
import os
import signal
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from multiprocessing import parent_process, util
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_sentinel
from threading import Thread
from types import FrameType
from typing import Any, Final, TypeAlias

import msgspec
from joblog.services.tasks.context import CURRENT, JobContext
from joblog.services.tasks.task import Task, TaskRegistry
from joblog.services.worker.execution.arguments import ArgumentReader, read_call
from joblog.services.worker.execution.results import Failed, Succeeded, describe, success_of
from joblog.streams.contract.wire import RunJob

#: Signals for the worker that reach its children often, too: a terminal sends them to all of its processes, and a
#: service manager to a whole control group.
FROM_OUTSIDE: Final = (signal.SIGTERM, signal.SIGINT)
#: How a worker ends a child.
END: Final = signal.SIGUSR2

#: Of a run: the task's module and name, the assignment as JSON, the worker's id, the longest result in bytes.
Request: TypeAlias = tuple[str, str, bytes, str, int]
#: What a child answers when it has a request; its second answer is how the run ended.
BEGUN: Final = b"begun"
Ended: TypeAlias = Succeeded | Failed


def serve_runs(connection: "Connection[bytes, bytes]", set_up: Callable[[], object] | None) -> None:
    """The child: performs one run after another, until the worker closes the connection."""
    set_up_child(set_up)
    while True:
        try:
            request = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(BEGUN)
        connection.send_bytes(run_in_child(*msgspec.msgpack.decode(request, type=Request)))


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
