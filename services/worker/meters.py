"""The worker's metrics, with the labelled ones at hand: finding them costs more than counting."""

from typing import Final, cast

from joblog.services.worker.execution.run import Run
from joblog.streams.metrics import Meters
from prometheus_client import Counter, Histogram


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
