"""Runs jobs in the calling thread, by the code that a worker runs them with: arguments, context, outcome, report."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from copy import copy
from math import ceil, inf
from types import ModuleType
from typing import Any, Final, NoReturn

from joblog.services.tasks.context import Cause
from joblog.services.tasks.task import Isolation, Task, TaskRegistry
from joblog.services.testing.broker import Broker
from joblog.services.testing.timed_run import Record, TimedRun
from joblog.services.worker.execution.performing import Performer
from joblog.services.worker.execution.processes import ProcessRuns
from joblog.services.worker.execution.run import KnownTask, Leases, Run, RunKey
from joblog.services.worker.filters import WorkerFilter
from joblog.services.worker.reports import Endings, Reports, RunMeters
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.record_headers import Headers
from joblog.streams.contract.timestamps import EPOCH
from joblog.streams.errors import JoblogError
from joblog.streams.metrics import Meters

NAME: Final = "in-memory"
#: How exact the floating-point seconds of deadlines are, at least.
_EXACT_S: Final = 1e-6


class WorkerBroken(JoblogError):
    """A run could not be reported as it should: an error in Joblog itself; its text is the traceback."""


class WorkerGone(BaseException):
    """Ends a task whose worker is lost; no `except Exception` catches it, and nothing of the run is reported."""


class InlineWorker:
    """A worker with one slot, which it offers when it is asked to run something.

    After it was lost, it is another one: its `name` has a number then. Its runs are an alarm of the broker: they
    time out while time passes in them.
    """

    def __init__(self, broker: Broker, lease_ms: int, filters: Sequence[WorkerFilter], result_bytes_max: int) -> None:
        self._broker, self._lease_ms = broker, lease_ms
        self.name = NAME
        self.tasks: dict[str, Task[..., Any]] = {}
        self.is_running = False
        self._known: dict[str, KnownTask] = {}
        self._held: dict[RunKey, Run] = {}
        self._lost = 0
        self._is_silent = False
        self._leases = Leases(range(len(broker.lanes)), inf, 0.0)
        meters = RunMeters(Meters())
        self._endings = Endings(Reports(_Sender(broker.report)), meters)
        self._performer = Performer(self._endings, meters, ProcessRuns(result_bytes_max), filters, result_bytes_max)

    def register(self, *sources: ModuleType | Task[..., Any]) -> None:
        """Know these tasks, and those in these modules; SettingsError if two have one name."""
        for task in TaskRegistry.of(*self.tasks.values(), *sources):
            if self.tasks.get(task.name) is not task:
                self._known[task.name] = KnownTask.of(_here(task))
                self.tasks[task.name] = task

    # --- what it tells the lanes ---

    def renew(self) -> None:
        """The worker lives, and has no slot free until something is to be run."""
        if not self._is_silent:
            for lane in range(len(self._broker.lanes)):
                self.announce(lane, None)

    def announce(self, lane: int, queue: str | None) -> None:
        """Tell a lane that the worker lives, and that it has a free slot for this queue; None for no slot."""
        queues = () if queue is None else (queue,)
        in_loop = _loop_runs()
        offer = wire.WorkerAnnounced(
            worker=self.name,
            partition=0,
            queues=queues,
            all_queues=queues,
            slots=len(queues),
            all_slots=1,
            tasks=tuple(name for name, known in self._known.items() if not (known.is_async and in_loop)),
            started_at=EPOCH,
            policies={name: known.retry for name, known in self._known.items() if known.retry is not None},
        )
        self._broker.report(lane, encode(offer))

    # --- runs ---

    def check(self, task: str) -> None:
        """Raise JoblogError if the task cannot be run where this is called."""
        if self._known[task].is_async and _loop_runs():
            raise JoblogError(
                f"task {task} is async, and an event loop runs in this thread: write "
                "`await asyncio.to_thread(joblog.run_all)`, or run the jobs in a test that is not async"
            )

    def perform(self, job: wire.RunJob) -> None:
        """Run a job, and report how it ended. The context of the caller is as it was afterwards."""
        known, broker = self._known[job.task], self._broker
        now_s = broker.now_ms / 1000
        run = TimedRun(
            job, known, self.name, self._held, now_s, self._leases, Record(job), now_ms=lambda: broker.now_ms
        )
        self._held[run.key] = run
        context = copy_context()
        self.is_running = True
        try:
            if known.is_async:
                context.run(_run_on_loop, self._perform_async(run))
            else:
                context.run(self._performer.perform, run)
        finally:
            self.is_running = False

    async def _perform_async(self, run: Run) -> None:
        """A coroutine is cancelled where it waits next."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        run.interruptible_by(lambda: loop.call_soon_threadsafe(task.cancel))
        await self._performer.perform_async(run)

    def holds(self, job_id: str, lease: int) -> bool:
        """Whether the end of this run is still to be reported."""
        return (job_id, lease) in self._held

    # --- what ends them otherwise ---

    def cancel(self, order: wire.CancelJob) -> None:
        """A job that runs was moved by a command: its token says so, and its outcome does not count."""
        run = self._held.get((order.job_id, order.lease))
        if run is not None:
            self._endings.cancel(run, f"{Cause.CANCELLED}: {order.reason}")

    def next_ms(self) -> int | None:
        """When a run times out."""
        deadline = min((run.deadline for run in self._held.values()), default=inf)
        return None if deadline == inf else ceil(deadline * 1000)

    def look(self) -> bool:
        """Time out what runs for too long."""
        before = len(self._held)
        self._endings.time_out_late(list(self._held.values()), self._broker.now_ms / 1000 + _EXACT_S)
        return len(self._held) < before

    def lose(self) -> NoReturn:
        """The worker is gone: it reports nothing more, the lanes miss it after its lease, and another one comes."""
        self._held.clear()
        self._be_silent()
        raise WorkerGone

    def lose_lease(self) -> None:
        """The worker cannot renew: it stops what it runs, as without Kafka, and comes back as another one."""
        if not self._held:
            raise JoblogError("no job runs whose lease could be lost: call it in a task")
        for run in list(self._held.values()):
            self._endings.cancel(run, Cause.LEASE_LOST)
        self._be_silent()

    def _be_silent(self) -> None:
        self._is_silent = True
        try:
            self._broker.advance_to(self._broker.now_ms + self._lease_ms + 1)
        finally:
            self._is_silent = False
        self._lost += 1
        self.name = f"{NAME}-{self._lost + 1}"
        self.renew()


class _Sender:
    """What reports are sent by."""

    def __init__(self, send: Callable[[int, bytes], None]) -> None:
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


def _here(task: Task[..., Any]) -> Task[..., Any]:
    """The same task, which runs in no process of its own."""
    here = copy(task)
    object.__setattr__(here, "isolation", Isolation.THREAD)
    return here


def _run_on_loop(main: Coroutine[None, None, None]) -> None:
    """Run a coroutine to its end, as the loop of a worker does whatever a task of it does to the loop.

    `asyncio.run` would let a SystemExit of such a task out to the test, and cancel the rest.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(main)
        while not task.done():
            try:
                loop.run_until_complete(task)
            except SystemExit:
                continue
            except RuntimeError:  # it was stopped, or cannot run here
                if _loop_runs():
                    raise


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
