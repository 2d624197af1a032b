"""Jobs with a deadline, or a time within which they have to start: each is ended when its time is over.

The feature has no records: the times are in the jobs' own. None starts too late, since the feature is asked before;
those that wait or run are ended by the tick after their time, some hundreds a tick.
"""

from heapq import heapify, heappop, heappush
from typing import Any, ClassVar, Final

from joblog.streams.lane.extras import USES_TIMES
from joblog.streams.lane.feature import Feature
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.times import over_at
from joblog.streams.lane.transitions import EXPIRED, Election

#: Jobs ended in one tick; there are ten a second.
ENDED_MAX: Final = 500
#: Stale entries that may be kept however few jobs have a time: fewer are not worth a search.
STALE_MIN: Final = 64


class Times(Feature):
    """When each job that has a time is over: a heap, with lazy deletion.

    An entry is stale if its job has another time by now, or none. It is dropped when it comes first, or with all
    others when they are more than half, so jobs that end long before their deadline take no memory until then.
    """

    uses: ClassVar = USES_TIMES

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self._heap: list[tuple[int, str]] = []
        self._over_at: dict[str, int] = {}

    def __len__(self) -> int:
        """How many entries are kept, with the stale ones."""
        return len(self._heap)

    def found(self, job: Job, clock_ms: int) -> None:
        self._note(job)

    def moved(self, before: Job | None, job: Job, what: Any, election: Election, out: LaneOutput) -> None:
        self._note(job)

    def may_start(self, job: Job, election: Election, out: LaneOutput) -> str | None:
        at_ms = over_at(job)
        if not at_ms or at_ms > election.now_ms:
            return None
        self._end(job, at_ms, election, out)
        return "its time is over"

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        heap, jobs = self._heap, self.pipeline.store.jobs
        for _ in range(ENDED_MAX):
            if not heap or heap[0][0] > election.now_ms or out.budget.is_spent:
                return
            at_ms, job_id = heappop(heap)
            if self._over_at.get(job_id) == at_ms:
                del self._over_at[job_id]
                self._end(jobs[job_id], at_ms, election, out)

    def _end(self, job: Job, at_ms: int, election: Election, out: LaneOutput) -> None:
        if self.pipeline.apply(job, EXPIRED, f"deadline/{at_ms}", election, out) is None:
            out.counts["joblog_jobs_expired_total", job.queue, job.task] += 1

    def _note(self, job: Job) -> None:
        at_ms = over_at(job)
        if self._over_at.get(job.id, 0) == at_ms:
            return
        if at_ms:
            self._over_at[job.id] = at_ms
            heappush(self._heap, (at_ms, job.id))
        else:
            del self._over_at[job.id]
        if len(self._heap) > STALE_MIN + 2 * len(self._over_at):
            self._heap = [(at_ms, job_id) for job_id, at_ms in self._over_at.items()]
            heapify(self._heap)
