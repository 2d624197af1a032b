"""What the worker writes to the log: what it offers, how each run ended, and the records that it could not handle."""

import logging
from collections.abc import Callable, Collection, Iterable
from math import inf
from typing import Any, Final, TypeVar, assert_never

from joblog.services.tasks.context import Cause
from joblog.services.tasks.queue_names import is_template
from joblog.services.tasks.task import Task
from joblog.services.worker.execution.results import Failed, Outcome, Released, Succeeded, describe, stack_of
from joblog.services.worker.execution.run import AssignmentRecord, Run, clock
from joblog.services.worker.execution.told import Taken
from joblog.services.worker.report_sender import Sender
from joblog.streams.contract import deadletters
from joblog.streams.contract.traceparent import recorded_trace
from joblog.streams.contract.wire import (
    JobException,
    RunFailed,
    RunJob,
    RunProgressed,
    RunReleased,
    RunReport,
    RunSucceeded,
    WorkerAnnounced,
    WorkerStopping,
)
from joblog.streams.errors import InternalError, JobTimeout
from joblog.streams.metrics import Meters
from msgspec.json import Encoder

log = logging.getLogger(__name__)

ROLE: Final = "worker"
OUTCOMES: Final = ("succeeded", "failed", "released", "cancelled")
#: How much of an exception's text is in the worker's log; all of it is in the job's history.
REASON_CHARACTERS_MAX: Final = 200

_JSON: Final = Encoder()
T = TypeVar("T")


class Reports:
    """Writes reports into the lane they belong to; may be called from any thread."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def ended(self, run: Run, outcome: Outcome) -> None:
        """Report the end of a run, after what it said last; only who claimed it may."""
        report, told = _JSON.encode(_report(run, outcome)), run.told
        if told is None:
            self._sender.send(run.job.lane, run.job.job_id, report)
            return
        with told.sending:
            said = told.take(clock())
            before = () if said is None else (_JSON.encode(_progressed(run, said)),)
            self._sender.send_in_order(run.job.lane, run.job.job_id, *before, report)

    def progressed(self, run: Run, said: Taken) -> None:
        """Report what a run said of itself."""
        self._sender.send(run.job.lane, run.job.job_id, _JSON.encode(_progressed(run, said)))

    def refused(self, job: RunJob, worker: str, reason: str) -> None:
        """Give back at once what cannot be run here."""
        released = RunReleased(job_id=job.job_id, lease=job.lease, worker=worker, reason=reason)
        self._sender.send(job.lane, job.job_id, _JSON.encode(released))

    def failed(self, lane: int, report: RunFailed) -> None:
        """Report a run that never began."""
        self._sender.send(lane, report.job_id, _JSON.encode(report))

    def announce(self, lane: int, announced: WorkerAnnounced, acknowledged: Callable[[], None]) -> None:
        self._sender.renew(lane, announced.worker, _JSON.encode(announced), acknowledged)

    def stopping(self, lane: int, worker: str) -> None:
        self._sender.send(lane, worker, _JSON.encode(WorkerStopping(worker=worker)))

    def park(self, record: AssignmentRecord, code: str, reason: str) -> None:
        """Send an assignment to the dead letters, as it came."""
        place = (record.topic() or "", record.partition() or 0, record.offset() or 0)
        headers = deadletters.headers(code, reason, ROLE, *place)
        self._sender.park(deadletters.key(record.key()), deadletters.value(record.value()), headers)


def _progressed(run: Run, said: Taken) -> RunProgressed:
    job = run.job
    return RunProgressed(job_id=job.job_id, lease=job.lease, worker=run.worker, **said._asdict())


def _report(run: Run, outcome: Outcome) -> RunReport:
    job, worker = run.job, run.worker
    match outcome:
        case Succeeded(result, omitted):
            return RunSucceeded(
                job_id=job.job_id,
                lease=job.lease,
                worker=worker,
                result=result,
                result_omitted=omitted,
                duration_ms=run.duration_ms,
                started_ms=run.started_ms,
            )
        case Failed(exception):
            return RunFailed(
                job_id=job.job_id,
                lease=job.lease,
                worker=worker,
                exception=exception,
                duration_ms=run.duration_ms,
                started_ms=run.started_ms,
                retry=run.known.retry,
            )
        case Released(reason):
            return RunReleased(
                job_id=job.job_id, lease=job.lease, worker=worker, reason=reason, started=run.started_ms > 0
            )
        case _:
            assert_never(outcome)


class RunMeters:
    """Counts runs by queue and task; both are bounded, since a worker runs only what it knows.

    Whoever runs a job only notes what there is to count, which is one step for all threads; `flush` counts it.
    """

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        #: Seconds from ready to start, by queue and task.
        self._waits: Final[dict[tuple[str, str], list[float]]] = {}
        #: Seconds from start to end, None without a start, by queue, task and outcome.
        self._durations: Final[dict[tuple[str, str, str], list[float | None]]] = {}
        #: Of the last run whose trace is recorded: its seconds, and the trace's id for an exemplar.
        self._traced_waits: Final[dict[tuple[str, str], tuple[float, str]]] = {}
        self._traced_runs: Final[dict[tuple[str, str, str], tuple[float, str]]] = {}

    def show(self, tasks: Iterable[Task[..., Any]]) -> None:
        """Export the counters of these tasks in their own queues, before anything ran."""
        for task in tasks:
            if is_template(task.queue):
                continue
            self._meters.show("joblog_jobs_started_total", task.queue, task.name)
            for outcome in OUTCOMES:
                self._meters.show("joblog_jobs_finished_total", task.queue, task.name, outcome)

    def started(self, run: Run) -> None:
        job = run.job
        labels = (job.queue, job.task)
        noted = self._waits.get(labels)
        if noted is None:
            noted = self._waits.setdefault(labels, [])
        wait = max(0.0, (run.started_ms - job.ready_ms) / 1000)
        noted.append(wait)
        if job.traceparent is not None and (trace := recorded_trace(job.traceparent)) is not None:
            self._traced_waits[labels] = (wait, trace)

    def ended(self, run: Run, outcome: str) -> None:
        """`outcome` is one of OUTCOMES."""
        labels = (run.job.queue, run.job.task, outcome)
        noted = self._durations.get(labels)
        if noted is None:
            noted = self._durations.setdefault(labels, [])
        took = run.duration_ms / 1000 if run.started_ms else None
        noted.append(took)
        traceparent = run.job.traceparent
        if took is not None and traceparent is not None and (trace := recorded_trace(traceparent)) is not None:
            self._traced_runs[labels] = (took, trace)

    def flush(self) -> None:
        """Count what was noted. One thread at a time may call it."""
        for labels, waits in list(self._waits.items()):
            if noted := _taken(waits):
                self._meters.inc("joblog_jobs_started_total", *labels, by=len(noted))
                trace = self._traced_waits.pop(labels, None)
                self._meters.observe_all("joblog_job_wait_seconds", noted, *labels, trace=trace)
        for (queue, task, outcome), durations in list(self._durations.items()):
            if ended := _taken(durations):
                self._meters.inc("joblog_jobs_finished_total", queue, task, outcome, by=len(ended))
                took = [duration for duration in ended if duration is not None]
                trace = self._traced_runs.pop((queue, task, outcome), None)
                self._meters.observe_all("joblog_job_duration_seconds", took, queue, task, trace=trace)

    def parked(self, code: str) -> None:
        """An assignment went to the dead letters, for the reason that the code names."""
        self._meters.inc("joblog_quarantined_records_total", ROLE, code)


def _taken(noted: list[T]) -> list[T]:
    """What a list holds now, taken out of it; other threads may append meanwhile."""
    taken = noted[:]
    del noted[: len(taken)]
    return taken


class Endings:
    """The ends of runs: each is claimed by one caller, counted once and reported once. For any thread; never raises.

    Whatever goes wrong in here, a run that was claimed is reported: nobody else can do that any more, and the
    elector would wait for it as long as the worker renews its lease.
    """

    def __init__(self, reports: Reports, meters: RunMeters) -> None:
        self._reports = reports
        self._meters = meters

    def end(self, run: Run, outcome: Outcome) -> None:
        """The run came back with this outcome; too late if it was timed out or cancelled in between."""
        if run.claim():
            self._close(run, outcome)
        else:
            log.info("run.discarded", extra={**_facts(run), "reason": run.token.reason})

    def release(self, run: Run, reason: str) -> None:
        """Give the job back, unless its end has been reported."""
        if run.claim():
            self._close(run, Released(reason))

    def time_out(self, run: Run) -> None:
        """Report the failure now, and stop the run. A thread may go on; what it returns is discarded."""
        if run.claim():
            error = describe(JobTimeout(f"the job ran longer than {run.timeout_s:g} s"))
            where = stack_of(run.thread) if run.thread is not None else ""
            run.stop(Cause.TIMEOUT)
            self._close(run, Failed(JobException(error.type, error.message, where, error.types)))

    def time_out_late(self, running: Collection[Run], now: float) -> float:
        """Time out what ran too long; returns when the next run will have."""
        for run in running:
            if run.deadline <= now:
                self.time_out(run)
        return min((run.deadline for run in running if run.deadline > now), default=inf)

    def cancel(self, run: Run, reason: str) -> None:
        """Stop the run and report nothing: its lease is void, and a report would be rejected."""
        if run.claim():
            run.stop(reason)
            try:
                self._meters.ended(run, "cancelled")
            except Exception:  # as in `_close`
                log.exception("run.not_counted", extra=_facts(run))
            log.info("run.cancelled", extra={**_facts(run), "reason": reason})

    def fault(self, run: Run, error: BaseException) -> None:
        """An error that nobody foresaw, outside of the task: park the run's assignment, and fail it."""
        if run.claim():
            self._close_after_fault(run, error)

    def _close(self, run: Run, outcome: Outcome) -> None:
        try:
            self._reports.ended(run, outcome)
        except Exception as exc:  # noqa: BLE001 - an outcome that cannot be written, or a fault of ours
            self._close_after_fault(run, exc)
            return
        try:
            self._note(run, outcome)
        except Exception:  # the run is reported, and the caller has more to do than to count
            log.exception("run.not_counted", extra=_facts(run))

    def _note(self, run: Run, outcome: Outcome) -> None:
        match outcome:
            case Succeeded(omitted=omitted):
                self._meters.ended(run, "succeeded")
                if omitted is not None:
                    log.warning("run.result_omitted", extra={**_facts(run), "reason": omitted})
            case Failed(exception):
                self._meters.ended(run, "failed")
                error = {"error": exception.type, "reason": exception.message[:REASON_CHARACTERS_MAX]}
                log.warning("run.failed", extra={**_facts(run), **error})
            case Released(reason):
                self._meters.ended(run, "released")
                log.info("run.released", extra={**_facts(run), "reason": reason})

    def _close_after_fault(self, run: Run, error: BaseException) -> None:
        try:
            self.park(run.record, error, _facts(run))
        except Exception:  # the report matters more
            log.exception("run.not_parked", extra=_facts(run))
        try:
            self._reports.ended(run, Failed(describe(error)))
            self._meters.ended(run, "failed")
        except Exception:  # all that is left to do is to say so
            log.exception("run.not_reported", extra=_facts(run))

    def park(self, record: AssignmentRecord, error: BaseException, facts: dict[str, object]) -> None:
        """Send an assignment that led to an error of the worker's own to the dead letters, with the traceback."""
        log.error("worker.internal_error", exc_info=error, extra={**facts, "position": position_of(record)})
        details = describe(error).details[-deadletters.REASON_CHARACTERS_MAX :]
        self._reports.park(record, InternalError.code, details)
        self._meters.parked(InternalError.code)


def position_of(record: AssignmentRecord) -> str:
    """Where a record was, for logs."""
    return f"{record.topic()}/{record.partition()}@{record.offset()}"


def _facts(run: Run) -> dict[str, object]:
    job = run.job
    return {"job_id": job.job_id, "attempt": job.attempt, "queue": job.queue, "task": job.task}
