"""Around one run: read its arguments, call its task, and turn what happens into an outcome."""

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Sequence
from typing import Final

from joblog.services.tasks.context import CURRENT, Cause, JobCancelled, JobContext
from joblog.services.tasks.scopes import ordered
from joblog.services.tasks.task import ArgumentsError, Isolation
from joblog.services.worker.execution.arguments import TaskCall, read_call
from joblog.services.worker.execution.processes import ProcessRuns
from joblog.services.worker.execution.results import (
    Failed,
    Outcome,
    Released,
    Succeeded,
    describe,
    success_of,
    type_name,
)
from joblog.services.worker.execution.run import Run
from joblog.services.worker.filters import WorkerFilter
from joblog.services.worker.reports import Endings, RunMeters

#: Why a run goes back that was about to start.
LEASE_OVER: Final = "the lease was over before the job could start"


class _Forks:
    """How often this process, and those that it was forked from, were forked."""

    count = 0

    @classmethod
    def add(cls) -> None:
        cls.count += 1


os.register_at_fork(after_in_child=_Forks.add)

_CANCELLATIONS: Final = (JobCancelled, asyncio.CancelledError, concurrent.futures.CancelledError)


class Performer:
    """Performs runs in the thread, or asyncio task, that calls it; never raises.

    Both methods take the same steps: begin, filters before, arguments, call, result, filters after, end.
    """

    def __init__(
        self,
        endings: Endings,
        meters: RunMeters,
        processes: ProcessRuns,
        filters: Sequence[WorkerFilter],
        result_bytes_max: int,
    ) -> None:
        self._endings = endings
        self._meters = meters
        self._processes = processes
        self._filters: tuple[WorkerFilter, ...] = ordered(filters)
        self._result_bytes_max = result_bytes_max

    def perform(self, run: Run) -> None:
        """A sync run, or the wait for one in a process of its own."""
        try:
            self._perform(run)
        except BaseException as exc:  # noqa: BLE001 - an error of ours; the run has to be reported all the same
            self._endings.fault(run, exc)

    async def perform_async(self, run: Run) -> None:
        """An async run, on the event loop."""
        try:
            await self._perform_async(run)
        except BaseException as exc:  # noqa: BLE001 - as above
            self._endings.fault(run, exc)

    def _perform(self, run: Run) -> None:
        if not run.begin():
            self._endings.release(run, LEASE_OVER)
            return
        context, forks = self._begin(run), _Forks.count
        outcome: Outcome
        try:
            call = self._prepare(run, context)
            if run.known.task.isolation is Isolation.PROCESS:
                outcome = self._processes.perform(run, call.timeout_s)
                if run.token.reason == Cause.SHUTDOWN and _is_cancelled(outcome):
                    outcome = _ON_SHUTDOWN
            else:
                run.thread = threading.get_ident()
                run.limit(call.timeout_s)
                args, kwargs = run.known.arguments.read(call, context)
                value = run.known.task.function(*args, **kwargs)
                outcome = success_of(value, run.result_bytes_max(self._result_bytes_max))
        except BaseException as exc:  # noqa: BLE001 - whatever ends a task is its outcome, SystemExit too
            outcome = _outcome_of(exc, run)
        _end_fork(forks)
        self._end(run, context, outcome)

    async def _perform_async(self, run: Run) -> None:
        if not run.begin():
            self._endings.release(run, LEASE_OVER)
            return
        context, forks = self._begin(run), _Forks.count
        outcome: Outcome
        try:
            call = self._prepare(run, context)
            run.limit(call.timeout_s)
            args, kwargs = run.known.arguments.read(call, context)
            value = await run.known.task.function(*args, **kwargs)
            outcome = success_of(value, run.result_bytes_max(self._result_bytes_max))
        except BaseException as exc:  # noqa: BLE001 - as above; a cancelled task ends here as well
            outcome = _outcome_of(exc, run)
        _end_fork(forks)
        self._end(run, context, outcome)

    def _begin(self, run: Run) -> JobContext:
        self._meters.started(run)
        context = JobContext(run.job, run.worker, run.token, run)
        CURRENT.set(context)
        return context

    def _prepare(self, run: Run, context: JobContext) -> TaskCall:
        run.token.raise_if_cancelled()
        for each in self._filters_of(run):
            each.before_run(context)
        return read_call(run.job.spec)

    def _end(self, run: Run, context: JobContext, outcome: Outcome) -> None:
        run.thread = None
        if not isinstance(outcome, Released):
            outcome = self._after(context, outcome, self._filters_of(run))
        self._endings.end(run, outcome)

    def _filters_of(self, run: Run) -> tuple[WorkerFilter, ...]:
        """Those of the worker, then those of the task."""
        own = run.known.filters
        return (*self._filters, *own) if own else self._filters

    def _after(
        self, context: JobContext, outcome: Succeeded | Failed, filters: tuple[WorkerFilter, ...]
    ) -> Succeeded | Failed:
        for each in reversed(filters):
            try:
                each.after_run(context, outcome)
            except BaseException as exc:  # noqa: BLE001 - a filter's error is the outcome of the run, SystemExit too
                outcome = Failed(describe(exc, frames_skipped=1))
        return outcome


def _end_fork(forks: int) -> None:
    """End this process if it is a fork that the task did not end: it would go on as this worker, with its jobs."""
    if forks != _Forks.count:
        os._exit(1)


_ON_SHUTDOWN: Final = Released("released on shutdown")
_CANCELLED_NAMES: Final = frozenset(type_name(kind) for kind in _CANCELLATIONS)


def _is_cancelled(outcome: Succeeded | Failed) -> bool:
    """Whether a task in a process ended as its token asked it to."""
    return isinstance(outcome, Failed) and not _CANCELLED_NAMES.isdisjoint(outcome.exception.types)


def _outcome_of(error: BaseException, run: Run) -> Outcome:
    if run.token.reason == Cause.SHUTDOWN and isinstance(error, _CANCELLATIONS):
        return _ON_SHUTDOWN
    described = describe(error, frames_skipped=1)
    if isinstance(error, ArgumentsError):  # the traceback would show this file only
        described = type(described)(type=described.type, message=described.message, types=described.types)
    return Failed(described)
