"""The child process of a process-isolated run: it performs what its worker sends, and ends when its worker ends."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from importlib import import_module
from multiprocessing import parent_process, util
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_sentinel
from threading import Lock, Thread
from types import FrameType
from typing import Any, Final, TypeAlias

import msgspec
from joblog.services.tasks.context import CURRENT, CancellationToken, JobContext
from joblog.services.tasks.task import Task, TaskRegistry
from joblog.services.worker.execution.arguments import ArgumentReader, read_call
from joblog.services.worker.execution.results import Failed, Succeeded, describe, keepable, success_of
from joblog.streams.contract.wire import RunJob

#: Signals for the worker that reach its children often, too: a terminal sends them to all of its processes, and a
#: service manager to a whole control group.
FROM_OUTSIDE: Final = (signal.SIGTERM, signal.SIGINT)
#: How a worker ends a child.
END: Final = signal.SIGUSR2

#: Of a run: the task's module and name, the assignment as JSON, the worker's id, the longest result in bytes.
Request: TypeAlias = tuple[str, str, bytes, str, int]
#: What a child answers when it has a request; its last answer is how the run ended.
BEGUN: Final = b"begun"
Ended: TypeAlias = Succeeded | Failed


class Progressed(msgspec.Struct, frozen=True, tag="progressed"):
    """The run says how much of its work is done."""

    progress: float
    text: str | None


class Logged(msgspec.Struct, frozen=True, tag="logged"):
    """The run logs a line, or several."""

    text: str


class Listens(msgspec.Struct, frozen=True, tag="listens"):
    """The run was asked to stop, and looks at its token: it may take a while."""


Said: TypeAlias = Succeeded | Failed | Progressed | Logged | Listens


class Voice:
    """Sends what a child says; for any of its threads. As JSON, so that nothing a task made is unpickled."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send
        self._lock = Lock()
        self._run: object = None

    def say(self, said: Said) -> None:
        self.send(msgspec.json.encode(said))

    def send(self, message: bytes) -> None:
        with self._lock:
            self._send(message)

    def say_in(self, run: object, said: Said) -> None:
        """Say this if it is this run that goes on: the worker would take it for something of the next one."""
        message = msgspec.json.encode(said)
        with self._lock:
            if run is self._run:
                self._send(message)

    def begin(self, run: object) -> None:
        """What `say_in` is asked to say is of this run now; None for the end of a run."""
        with self._lock:
            self._run = run


class _Listener:
    """Hears one run until its end, and not a thread that it has left behind."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        voice.begin(self)

    def progressed(self, progress: float, text: str | None) -> None:
        self._voice.say_in(self, Progressed(progress, None if text is None else keepable(text)))

    def logged(self, text: str) -> None:
        self._voice.say_in(self, Logged(keepable(text)))


class _Context(JobContext):
    """The run of a child, which knows whether its task looks at the token, and how to cancel a coroutine."""

    __slots__ = ("_token", "cancel_task", "is_heard")

    def __init__(self, job: RunJob, worker: str, voice: Voice) -> None:
        super().__init__(job, worker, None, _Listener(voice))
        self.is_heard = False
        self.cancel_task: Callable[[], object] | None = None

    @property
    def cancellation(self) -> CancellationToken:
        self.is_heard = True
        return self._token

    @cancellation.setter
    def cancellation(self, token: CancellationToken) -> None:
        self._token = token

    def stop(self, reason: str) -> bool:
        """Ask the run to stop; false if its task does not listen."""
        self._token.cancel(reason)
        if self.cancel_task is not None:
            self.cancel_task()
            return True
        return self.is_heard


class _Runs:
    """The runs of a child, one after another."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._context: _Context | None = None

    def perform(self, module: str, name: str, job: bytes, worker: str, result_bytes_max: int) -> Ended:
        try:
            found, arguments = _known(module, name)
            assigned = msgspec.json.decode(job, type=RunJob)
            context = self._context = _Context(assigned, worker, self._voice)
            CURRENT.set(context)
            args, kwargs = arguments.read(read_call(assigned.spec), context)
            value = found.function(*args, **kwargs)
            return success_of(
                asyncio.run(_cancellable(value, context)) if found.is_async else value, result_bytes_max
            )
        except BaseException as exc:  # noqa: BLE001 - whatever ends the task is its outcome, SystemExit too
            return Failed(describe(exc, frames_skipped=1))
        finally:
            self._voice.begin(None)

    def listen(self, orders: "Connection[bytes, bytes]") -> None:
        """Wait for the order to stop the run; there is one in the life of a child."""
        try:
            reason = orders.recv_bytes().decode()
        except (EOFError, OSError):
            return
        if self._context is not None and self._context.stop(reason):
            self._voice.say(Listens())
        else:
            os.kill(os.getpid(), END)


async def _cancellable(value: Awaitable[Any], context: _Context) -> Any:
    """Await a task's coroutine so that an order to stop cancels it."""
    task = asyncio.current_task()
    assert task is not None
    context.cancel_task = partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)
    context.cancellation.raise_if_cancelled()
    return await value


def serve_runs(
    connection: "Connection[bytes, bytes]", orders: "Connection[bytes, bytes]", set_up: Callable[[], object] | None
) -> None:
    """The child: performs one run after another, until the worker closes the connection."""
    set_up_child(set_up)
    voice = Voice(connection.send_bytes)
    runs = _Runs(voice)
    Thread(target=runs.listen, args=(orders,), name="orders", daemon=True).start()
    pid = os.getpid()
    while True:
        try:
            request = connection.recv_bytes()
        except EOFError:
            return
        voice.send(BEGUN)
        ended = runs.perform(*msgspec.msgpack.decode(request, type=Request))
        if os.getpid() != pid:  # a fork that the task did not end: the run goes on in its parent
            os._exit(1)
        voice.say(ended)


def run_in_child(module: str, name: str, job: bytes, worker: str, result_bytes_max: int) -> bytes:
    """One run, as a child performs it, and what it says."""
    said: list[bytes] = []
    voice = Voice(said.append)
    voice.say(_Runs(voice).perform(module, name, job, worker, result_bytes_max))
    return said[-1]


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
