"""The monitor: reads the jobs of runs from the projection, and reacts to every step.

It compares the versions in a job's history with the last one it saw, so it misses no step, however late it looks.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from joblog.projections.database import DatabaseAway
from joblog.projections.monitor.models import HistoryEntry, JobDetails
from joblog.projections.monitor.monitor import Monitor
from joblog.services.detection.manager import ManagedRun
from joblog.streams.contract.states import FINAL_STATES, State

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """One event in the history of one of a run's jobs: of the detection, or of its clean-up."""

    run_id: str
    is_cleanup: bool
    job: JobDetails
    entry: HistoryEntry


Reaction = Callable[[Step], None]


class RunMonitor:
    """Watches runs; calls the reaction to a state when a job enters it."""

    def __init__(self, monitor: Monitor, reactions: Mapping[State, Reaction]) -> None:
        self._monitor: Final = monitor
        self._reactions: Final = dict(reactions)
        self._watched: Final[dict[str, tuple[str, bool]]] = {}
        self._seen: Final[dict[str, JobDetails]] = {}

    def watch(self, run: ManagedRun) -> None:
        """Watch both jobs of a run from now on. Thread-safe."""
        self._watched[run.detection_job] = (run.run_id, False)
        self._watched[run.cleanup_job] = (run.run_id, True)

    def look(self, *, at_ended: bool = False) -> None:
        """Read the jobs, ended ones only with `at_ended`, and react to new steps in the order they happened in."""
        try:
            steps = [
                step
                for job_id in list(self._watched)
                if at_ended or job_id not in self._ended_jobs()
                for step in self._new_steps(job_id)
            ]
        except DatabaseAway as exc:
            log.warning("detection.monitor.waiting", extra={"reason": str(exc)})
            return
        for step in sorted(steps, key=lambda step: (step.entry.at, step.is_cleanup, step.entry.version)):
            if reaction := self._reactions.get(step.entry.state):
                reaction(step)

    @property
    def ended(self) -> int:
        """The number of runs of which both jobs have ended."""
        ended = self._ended_jobs()
        waiting = {run_id for job_id, (run_id, _) in self._watched.copy().items() if job_id not in ended}
        return len({run_id for run_id, _ in self._watched.copy().values()} - waiting)

    def jobs_of(self, run_id: str) -> tuple[JobDetails | None, JobDetails | None]:
        """A run's detection and clean-up as last read; None for one that is not in the projection."""
        job_ids = {is_cleanup: job_id for job_id, (run, is_cleanup) in self._watched.items() if run == run_id}
        return self._seen.get(job_ids.get(False, "")), self._seen.get(job_ids.get(True, ""))

    def _ended_jobs(self) -> set[str]:
        return {job_id for job_id, job in self._seen.items() if job.state in FINAL_STATES}

    def _new_steps(self, job_id: str) -> Iterator[Step]:
        before = self._seen.get(job_id)
        job = self._monitor.job(job_id)
        if job is None:
            return  # not projected yet
        self._seen[job_id] = job
        run_id, is_cleanup = self._watched[job_id]
        known = before.version if before is not None else 0
        for entry in reversed(job.history):
            if entry.version > known:
                yield Step(run_id, is_cleanup, job, entry)
