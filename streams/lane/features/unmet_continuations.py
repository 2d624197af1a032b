"""Continuations that were deleted because their condition was not met: they wait again if their parent is requeued.

They are kept, as many as Failed jobs, in records of their own, since an ended job is otherwise forgotten. The lane
of the parent is told, and reports back when the parent is requeued (former_continuations.py). One that somebody has
moved meanwhile, or that is no longer kept, stays as it is.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import AWAITING, FINAL_STATES, State
from joblog.streams.lane.feature import Feature, ReportHandler
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.parents import ends, is_met, parents_of, requeued, several
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election, ParentNoted, by_condition
from msgspec import msgpack

UNMET_KEY: Final = "unmet:"


class UnmetContinuations(Feature):
    """The deleted continuations of a lane that may come back, the oldest first; its records are these jobs."""

    prefix: ClassVar = UNMET_KEY
    decoder: ClassVar = msgpack.Decoder(tuple[Job])

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self.jobs: dict[str, Job] = {}

    def load(self, key: str, value: Any, clock_ms: int) -> None:
        (self.jobs[key],) = value

    def loaded(self, clock_ms: int) -> None:
        for job_id in self.jobs:
            self.pipeline.follow(job_id, self)

    def reports(self) -> Mapping[type, ReportHandler]:
        return {wire.ParentRequeued: self._parent_requeued}

    def left(self) -> Mapping[State, Callable[[Job, Job, Any, LaneOutput], None]]:
        return {AWAITING: self._keep_unmet}

    def _keep_unmet(self, before: Job, job: Job, what: Any, out: LaneOutput) -> None:
        if isinstance(what, ParentNoted):
            state, parents = what.outcome.state, several(job)
            if parents is not None and state in FINAL_STATES and not is_met(parents.on, state):
                self._tell(what.parent, job, out)
        elif by_condition(before, what) and job.state is State.DELETED:
            self.pipeline.follow(job.id, self)
            self.jobs[job.id] = job
            out.state[UNMET_KEY + job.id] = (job,)  # not as itself: it would be taken for a live one
            if several(job) is None:
                self._tell(what.parent, job, out)

    def _tell(self, parent: str, job: Job, out: LaneOutput) -> None:
        """Tell the lane of a parent whose end did not meet the job's condition."""
        said = wire.ContinuationUnmet(job_id=parent, child=job.id)
        out.reports.append((lane_of_job(parent), parent, said))

    def forgotten(self, job: Job, out: LaneOutput) -> None:
        if job.id in self.jobs:
            self.pipeline.follow(job.id, self)  # to hear of it when it comes back

    def appeared(self, job: Job, out: LaneOutput) -> None:
        """It is live again, whoever did that."""
        if self.jobs.pop(job.id, None) is not None:
            out.state[UNMET_KEY + job.id] = None

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """Forget the oldest while there are too many."""
        self.forget_oldest(self.jobs, self.pipeline.rules.failed_kept, out)

    def _parent_requeued(self, report: wire.ParentRequeued, cause: str, election: Election, out: LaneOutput) -> None:
        """Let a continuation wait again, and tell the lanes of its parents that it does."""
        jobs, job_id = self.pipeline.store.jobs, report.job_id
        if not self._waits_again(report, cause, election, out):
            out.counts["joblog_stale_reports_total", "parent.requeued"] += 1
            return
        again = jobs.get(job_id)
        if again is not None and again.state is AWAITING:
            ended = ends(again)
            for parent, on in parents_of(again).items():
                if parent not in ended:
                    link = wire.ContinuationAdded(job_id=parent, child=job_id, on=on)
                    out.reports.append((lane_of_job(parent), parent, link))

    def _waits_again(self, report: wire.ParentRequeued, cause: str, election: Election, out: LaneOutput) -> bool:
        pipeline, job = self.pipeline, self.jobs.get(report.job_id)
        if job is not None:
            return self._may_come_back(job, election) and pipeline.apply(job, report, cause, election, out) is None
        job = pipeline.store.jobs.get(report.job_id)
        if job is None:
            return False
        # It waits for others of its parents, and has noted how this one had ended.
        note = ParentNoted(report.parent, wire.Outcome(State.ENQUEUED), requeued(report.parent))
        return pipeline.apply(job, note, cause, election, out) is None

    def _may_come_back(self, job: Job, election: Election) -> bool:
        """Whether a requeue would be accepted; another job may have its unique key by now."""
        if job.extras is None:
            return True
        again = wire.RequeueJob(job_id=job.id)
        return all(asked(job, again, election) is None for asked in self.pipeline.hooks.changing(job.extras.uses))
