"""The worker's reports: how each run ended, and what the worker offers."""

from collections.abc import Callable
from typing import Final, assert_never

from joblog.services.worker.execution.run import Failed, Outcome, Released, Run, Succeeded
from joblog.services.worker.reporting.outbox import Outbox
from joblog.streams.contract.wire import (
    RunFailed,
    RunJob,
    RunReleased,
    RunReport,
    RunSucceeded,
    WorkerAnnounced,
    WorkerStopping,
)
from msgspec.json import Encoder

_JSON: Final = Encoder()


class Reports:
    """Writes reports into the lane they belong to; may be called from any thread."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def ended(self, run: Run, outcome: Outcome) -> None:
        """Report the end of a run; only who claimed it may."""
        self._outbox.send(run.job.lane, run.job.job_id, _JSON.encode(_report(run, outcome)))

    def refused(self, job: RunJob, worker: str, reason: str) -> None:
        """Give back at once what cannot be run here."""
        released = RunReleased(job_id=job.job_id, lease=job.lease, worker=worker, reason=reason)
        self._outbox.send(job.lane, job.job_id, _JSON.encode(released))

    def unreadable(self, lane: int, report: RunFailed) -> None:
        """Report a run that never began, since its assignment could not be read."""
        self._outbox.send(lane, report.job_id, _JSON.encode(report))

    def announce(self, lane: int, announced: WorkerAnnounced, acknowledged: Callable[[], None]) -> None:
        self._outbox.renew(lane, announced.worker, _JSON.encode(announced), acknowledged)

    def stopping(self, lane: int, worker: str) -> None:
        self._outbox.send(lane, worker, _JSON.encode(WorkerStopping(worker=worker)))


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
