"""The worker's reports: how each run ended, and what the worker offers."""

import logging
from collections.abc import Callable
from typing import Final, assert_never, cast

from joblog.services.tasks.context import Cause
from joblog.services.worker.execution.results import Failed, Outcome, Released, Succeeded, describe, stack_of
from joblog.services.worker.execution.run import Run
from joblog.services.worker.report_sender import ReportSender
from joblog.streams.contract.wire import (
    JobException,
    RunFailed,
    RunJob,
    RunReleased,
    RunReport,
    RunSucceeded,
    WorkerAnnounced,
    WorkerStopping,
)
from joblog.streams.errors import JobTimeout
from joblog.streams.metrics import Meters
from msgspec.json import Encoder
from prometheus_client import Counter, Histogram

_JSON: Final = Encoder()


class Reports:
    """Writes reports into the lane they belong to; may be called from any thread."""

    def __init__(self, sender: ReportSender) -> None:
        self._sender = sender

    def ended(self, run: Run, outcome: Outcome) -> None:
        """Report the end of a run; only who claimed it may."""
        self._sender.send(run.job.lane, run.job.job_id, _JSON.encode(_report(run, outcome)))

    def refused(self, job: RunJob, worker: str, reason: str) -> None:
        """Give back at once what cannot be run here."""
        released = RunReleased(job_id=job.job_id, lease=job.lease, worker=worker, reason=reason)
        self._sender.send(job.lane, job.job_id, _JSON.encode(released))

    def unreadable(self, lane: int, report: RunFailed) -> None:
        """Report a run that never began, since its assignment could not be read."""
        self._sender.send(lane, report.job_id, _JSON.encode(report))

    def announce(self, lane: int, announced: WorkerAnnounced, acknowledged: Callable[[], None]) -> None:
        self._sender.renew(lane, announced.worker, _JSON.encode(announced), acknowledged)

    def stopping(self, lane: int, worker: str) -> None:
        self._sender.send(lane, worker, _JSON.encode(WorkerStopping(worker=worker)))


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


log = logging.getLogger(__name__)

#: So much of an exception's text is in the log of the worker; all of it is in the job's history.
REASON_CHARACTERS_MAX = 200


class RunMeters:
    """Counts runs by queue and task; both are bounded, since a worker runs only what it knows."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._on_start: Final[dict[tuple[str, str], tuple[Counter, Histogram]]] = {}
        self._on_end: Final[dict[tuple[str, str, str], tuple[Counter, Histogram]]] = {}

    def started(self, run: Run) -> None:
        labels = (run.job.queue, run.job.task)
        found = self._on_start.get(labels)
        if found is None:
            found = self._on_start[labels] = (
                cast("Counter", self._meters.child("joblog_jobs_started_total", *labels)),
                cast("Histogram", self._meters.child("joblog_job_wait_seconds", *labels)),
            )
        found[0].inc()
        found[1].observe(max(0.0, (run.started_ms - run.job.ready_ms) / 1000))

    def ended(self, run: Run, outcome: str) -> None:
        """`outcome` is succeeded, failed, released or cancelled."""
        labels = (run.job.queue, run.job.task, outcome)
        found = self._on_end.get(labels)
        if found is None:
            found = self._on_end[labels] = (
                cast("Counter", self._meters.child("joblog_jobs_finished_total", *labels)),
                cast("Histogram", self._meters.child("joblog_job_duration_seconds", *labels[:2])),
            )
        found[0].inc()
        if run.started_ms:
            found[1].observe(run.duration_ms / 1000)


class Endings:
    """What can become of a run; may be called from any thread."""

    def __init__(self, reports: Reports, meters: RunMeters) -> None:
        self._reports = reports
        self._meters = meters

    def end(self, run: Run, outcome: Outcome) -> None:
        """The run came back with this outcome; too late if it was timed out or cancelled in between."""
        if not run.claim():
            log.info("run.discarded", extra={**_facts(run), "reason": run.token.reason})
            return
        self._close(run, outcome)

    def release(self, run: Run, reason: str) -> None:
        """Give the job back, unless its end is told already."""
        if run.claim():
            self._close(run, Released(reason))

    def time_out(self, run: Run) -> None:
        """Report the failure now, and stop the run; a thread may go on, and nobody will hear of its outcome."""
        if not run.claim():
            return
        error = JobTimeout(f"the job ran longer than {run.timeout_s:g} s")
        where = stack_of(run.thread) if run.thread is not None else ""
        described = describe(error)
        run.stop(Cause.TIMEOUT)
        exception = JobException(type=described.type, message=described.message, details=where, types=described.types)
        self._close(run, Failed(exception))

    def cancel(self, run: Run, reason: str) -> None:
        """Stop the run and say nothing: its lease is void, and a report would be rejected."""
        if run.claim():
            run.stop(reason)
            self._meters.ended(run, "cancelled")
            log.info("run.cancelled", extra={**_facts(run), "reason": reason})

    def _close(self, run: Run, outcome: Outcome) -> None:
        self._reports.ended(run, outcome)
        match outcome:
            case Succeeded(omitted=None):
                self._meters.ended(run, "succeeded")
            case Succeeded(omitted=omitted):
                self._meters.ended(run, "succeeded")
                log.warning("run.result_omitted", extra={**_facts(run), "reason": omitted})
            case Failed(exception):
                self._meters.ended(run, "failed")
                said = {"error": exception.type, "reason": exception.message[:REASON_CHARACTERS_MAX]}
                log.warning("run.failed", extra={**_facts(run), **said})
            case Released(reason):
                self._meters.ended(run, "released")
                log.info("run.released", extra={**_facts(run), "reason": reason})


def _facts(run: Run) -> dict[str, object]:
    job = run.job
    return {"job_id": job.job_id, "attempt": job.attempt, "queue": job.queue, "task": job.task}
