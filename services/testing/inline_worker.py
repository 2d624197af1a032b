"""Runs jobs in the calling thread, by the code that a worker runs them with: arguments, context, outcome, report."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import copy_context
from copy import copy
from math import inf
from types import ModuleType
from typing import Any, Final

from joblog.services.tasks.context import Cause
from joblog.services.tasks.task import Isolation, Task, TaskRegistry
from joblog.services.worker.execution.performing import Performer
from joblog.services.worker.execution.processes import ProcessRuns
from joblog.services.worker.execution.run import KnownTask, Leases, Run, RunKey, clock
from joblog.services.worker.filters import WorkerFilter
from joblog.services.worker.reports import Endings, Reports, RunMeters
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.record_headers import Headers
from joblog.streams.contract.timestamps import EPOCH
from joblog.streams.errors import JoblogError
from joblog.streams.metrics import Meters

NAME: Final = "in-memory"
Send = Callable[[int, bytes], None]


class InlineWorker:
    """A worker with one slot, which it offers when it is asked to run something; `send` takes its reports.

    - tasks: those that it knows, by name. is_running: whether a task is being run.
    """

    def __init__(self, lanes: int, send: Send, filters: Sequence[WorkerFilter], result_bytes_max: int) -> None:
        self._lanes, self._send = lanes, send
        self.tasks: dict[str, Task[..., Any]] = {}
        self._known: dict[str, KnownTask] = {}
        self._held: dict[RunKey, Run] = {}
        self._leases = Leases(range(lanes), inf, clock())
        meters = RunMeters(Meters())
        self._endings = Endings(Reports(_Sender(send)), meters)
        self._performer = Performer(self._endings, meters, ProcessRuns(result_bytes_max), filters, result_bytes_max)

    def register(self, *sources: ModuleType | Task[..., Any]) -> None:
        """Know these tasks, and those in these modules; SettingsError if two have one name."""
        for task in TaskRegistry.of(*self.tasks.values(), *sources):
            if self.tasks.get(task.name) is not task:
                self._known[task.name] = KnownTask.of(_here(task))
                self.tasks[task.name] = task

    @property
    def is_running(self) -> bool:
        return bool(self._held)

    def announce(self, lane: int, queue: str | None) -> None:
        """Tell a lane that the worker lives, and that it has a free slot for this queue; None for no slot."""
        queues = () if queue is None else (queue,)
        in_loop = _loop_runs()
        offer = wire.WorkerAnnounced(
            worker=NAME,
            partition=0,
            queues=queues,
            all_queues=queues,
            slots=len(queues),
            all_slots=1,
            tasks=tuple(name for name, known in self._known.items() if not (known.is_async and in_loop)),
            started_at=EPOCH,
            policies={name: known.retry for name, known in self._known.items() if known.retry is not None},
        )
        self._send(lane, encode(offer))

    def check(self, task: str) -> None:
        """Raise JoblogError if the task cannot be run where this is called."""
        if self._known[task].is_async and _loop_runs():
            raise JoblogError(
                f"task {task} is async, and an event loop runs in this thread: write "
                "`await asyncio.to_thread(joblog.run_all)`, or run the jobs in a test that is not async"
            )

    def perform(self, job: wire.RunJob) -> None:
        """Run a job, and report how it ended. The context of the caller is as it was afterwards."""
        known = self._known[job.task]
        run = Run(job, known, NAME, self._held, clock(), self._leases, _Record(job))
        self._held[run.key] = run
        context = copy_context()
        if known.is_async:
            context.run(asyncio.run, self._performer.perform_async(run))
        else:
            context.run(self._performer.perform, run)

    def cancel(self, order: wire.CancelJob) -> None:
        """A job that runs was moved by a command: its token says so, and its outcome does not count."""
        run = self._held.get((order.job_id, order.lease))
        if run is not None:
            self._endings.cancel(run, f"{Cause.CANCELLED}: {order.reason}")


class WorkerBroken(JoblogError):
    """A run could not be reported as it should: an error in Joblog itself; its text is the traceback."""


class _Sender:
    """What reports are sent by."""

    def __init__(self, send: Send) -> None:
        self._report = send

    def send(self, lane: int, _key: str, value: bytes) -> None:
        self._report(lane, value)

    def send_in_order(self, lane: int, _key: str, *values: bytes) -> None:
        for value in values:
            self._report(lane, value)

    def renew(self, lane: int, _key: str, value: bytes, acknowledged: Callable[[], None]) -> None:
        self._report(lane, value)
        acknowledged()

    def park(self, _key: bytes | None, value: bytes | None, headers: Headers) -> None:
        raise WorkerBroken(f"{headers}: {value!r}")


class _Record:
    """An assignment as it came."""

    def __init__(self, job: wire.RunJob) -> None:
        self._job = job

    def topic(self) -> str:
        return "assignments"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0

    def key(self) -> bytes:
        return NAME.encode()

    def value(self) -> bytes:
        return encode(self._job)


def _here(task: Task[..., Any]) -> Task[..., Any]:
    """The same task, which runs in no process of its own."""
    here = copy(task)
    object.__setattr__(here, "isolation", Isolation.THREAD)
    return here


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
