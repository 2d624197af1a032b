"""The ends of runs: each is claimed by one, counted once and reported at most once."""

import logging

from joblog.services.tasks.context import Cause
from joblog.services.worker.execution.failures import describe, stack_of
from joblog.services.worker.execution.run import Failed, Outcome, Released, Run, Succeeded
from joblog.services.worker.meters import RunMeters
from joblog.services.worker.reporting.reporting import Reports
from joblog.streams.contract.wire import JobException
from joblog.streams.errors import JobTimeout

log = logging.getLogger(__name__)

#: So much of an exception's text is in the log of the worker; all of it is in the job's history.
REASON_CHARACTERS_MAX = 200


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
