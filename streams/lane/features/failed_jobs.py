"""Failed jobs are kept for a while, since they are the ones that people requeue.

The feature has no records: that a job is Failed, and since when, is in the job's own record.
"""

from collections.abc import Callable, Mapping
from typing import Any

from joblog.streams.contract.states import FAILED, State
from joblog.streams.lane.feature import Feature
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election
from joblog.streams.lane.waiting import Waiting


class FailedJobs(Feature):
    """The Failed jobs of a lane, oldest first, as many and for as long as the rules say."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self.waiting = Waiting(FAILED)

    def entered(self) -> Mapping[State, Callable[[Job], None]]:
        return {FAILED: lambda job: self.waiting.add((job.due_ms, job.id, job.version))}

    def left(self) -> Mapping[State, Callable[[Job, Job, Any, LaneOutput], None]]:
        return {FAILED: lambda *_: self.waiting.left(self.pipeline.store.jobs)}

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """Forget the oldest while there are too many, and those that are too old, as many as a transaction takes."""
        rules, jobs = self.pipeline.rules, self.pipeline.store.jobs
        while (
            not out.budget.is_spent
            and (entry := self.waiting.first(jobs))
            and (len(self.waiting) > rules.failed_kept or entry[0] + rules.failed_ms < election.now_ms)
        ):
            self.pipeline.forget(jobs[self.waiting.pop()[1]], out)
            out.budget.spend(1, 0)
