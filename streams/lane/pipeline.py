"""The pipeline: every transition of a lane's jobs goes through it.

1. decide: the table of transitions, and the elect-state filters, which are part of the election (transitions.py)
2. evolve the job and write its events
3. place the job where it waits now, and remove it from where it waited before
4. call the features that asked for it: by the job's state, or because they follow this job

Nothing else changes a job or writes its events. Features get the pipeline, so their decisions go through it too.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, Final, Protocol

from joblog.streams.contract import wire
from joblog.streams.contract.states import FAILED, FINAL_STATES, SCHEDULED, State
from joblog.streams.lane.ended_jobs import EndedJobs
from joblog.streams.lane.job import Job, event_type, evolve
from joblog.streams.lane.log_clock import LogClock
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.store import JobStore
from joblog.streams.lane.transitions import Election, Rejection, decide

Entered = Callable[[Job], None]
Left = Callable[[Job, Job, Any, LaneOutput], None]
JobHook = Callable[[Job, LaneOutput], None]

#: Called with the job before (None if it was created) and after, and the input that moved it.
Moved = Callable[[Job | None, Job, Any, Election, LaneOutput], None]
Creating = Callable[[Job, str, Election, LaneOutput], Rejection | None]
Changing = Callable[[Job, Any, Election], Rejection | None]
MayStart = Callable[[Job, Election, LaneOutput], str | None]

_NONE: Final[tuple[Any, ...]] = ()
#: Queue names whose lane is remembered; any client may send any name.
QUEUES_KNOWN_MAX: Final = 10_000


class Follower(Protocol):
    """What acts on single jobs: those for which it called `Pipeline.follow`."""

    def appeared(self, job: Job, out: LaneOutput) -> None: ...
    def ended(self, job: Job, out: LaneOutput) -> None: ...
    def forgotten(self, job: Job, out: LaneOutput) -> None: ...


def _nothing(_uses: int) -> tuple[Any, ...]:
    return _NONE


class Hooks:
    """What features declared for all jobs, by hook and state; lane/feature.py says what each hook means."""

    __slots__ = ("changing", "created", "creating", "entered", "left", "may_start", "moved")

    def __init__(self) -> None:
        self.created: Mapping[State, tuple[JobHook, ...]] = {}
        self.entered: Mapping[State, tuple[Entered, ...]] = {}
        self.left: Mapping[State, tuple[Left, ...]] = {}
        #: By the bits of what a job uses: all that are to be called for such a job.
        self.moved: Callable[[int], tuple[Moved, ...]] = _nothing
        self.may_start: Callable[[int], tuple[MayStart, ...]] = _nothing
        self.creating: Callable[[int], tuple[Creating, ...]] = _nothing
        self.changing: Callable[[int], tuple[Changing, ...]] = _nothing


class Pipeline:
    """The jobs of lane `number` of `lanes`, and the only way to move them.

    - has_queue: whether a queue, or one of its shards, lives in this lane. Jobs of any other one may be here, too.
    """

    def __init__(self, number: int, lanes: int, rules: LaneRules) -> None:
        self.number = number
        self.lanes = lanes
        self.rules = rules
        self.ended = EndedJobs(rules.remembered)
        self.log_clock = LogClock()
        self.hooks = Hooks()
        self.has_queue: Callable[[str], bool] = lru_cache(QUEUES_KNOWN_MAX)(
            partial(rules.has_queue, lane=number, lanes=lanes)
        )
        self.store = JobStore(self.has_queue)
        self._jobs = self.store.jobs
        self._followers: dict[str, tuple[Follower, ...]] = {}

    def apply(self, job: Job, what: Any, cause: str, election: Election, out: LaneOutput) -> Rejection | None:
        """Let an input (a command, a report, ...) move a job; returns why it does not."""
        decision = decide(job, what, election)
        if type(decision) is Rejection:
            return decision
        if job.id not in self._jobs:  # it is revived
            self.ended.remove(job.id)
            for follower in self._followers.get(job.id, _NONE):
                follower.appeared(job, out)
        self.move(job, self.evolved(job, decision, cause, election.now_ms, out), what, election, out)
        return None

    def report(self, report: Any, cause: str, election: Election, out: LaneOutput) -> None:
        """Let a report move the job that it names; one that comes too late is counted and dropped."""
        job = self._jobs.get(report.job_id)
        if job is None or self.apply(job, report, cause, election, out) is not None:
            out.counts["joblog_stale_reports_total", str(type(report).__struct_config__.tag)] += 1

    def evolved(self, job: Job, events: tuple[wire.JobEvent, ...], cause: str, now_ms: int, out: LaneOutput) -> Job:
        """Write these events; returns the job after them."""
        after, job_id, write = job, job.id, out.events.append
        for event in events:
            after = evolve(after, event, now_ms)
            write((job_id, event_type(event), f"{job_id}/{event.version}", event, cause, job.traceparent))
        return after

    def add(self, job: Job, event: wire.JobEvent, cause: str | None, election: Election, out: LaneOutput) -> None:
        """Take in a job that its first event created."""
        job_id = job.id
        out.events.append((job_id, event_type(event), f"{job_id}/1", event, cause, job.traceparent))
        self._jobs[job_id] = job
        out.state[job_id] = job
        out.created.append(job)
        out.budget.spend(2, 2 * len(job.spec))
        self._place(job, out)
        for hook in self.hooks.created.get(job.state, _NONE):
            hook(job, out)
        if job_id in self._followers:
            for follower in self._followers[job_id]:
                follower.appeared(job, out)
        if job.extras is not None:
            for moved in self.hooks.moved(job.extras.uses):
                moved(None, job, None, election, out)
        if job.state in FINAL_STATES:  # a filter elected that
            self._end(job, out)

    def move(
        self, before: Job, job: Job, what: Any, election: Election, out: LaneOutput, *, is_taken: bool = False
    ) -> None:
        """Move a job from where it was to where it is now; `is_taken` if it was already taken from its queue."""
        job_id, jobs = job.id, self._jobs
        is_revived = job_id not in jobs
        jobs[job_id] = job
        out.state[job_id] = job
        out.budget.spend(2, len(job.spec))
        if job.retries > before.retries:
            out.counts["joblog_job_retries_total", job.queue, job.task] += 1
        # Also when its state stayed: where it waits it is known by its version, which has changed.
        self._place(job, out)
        if not is_revived:
            if not is_taken:
                self.store.left(before)
            for hook in self.hooks.left.get(before.state, _NONE):
                hook(before, job, what, out)
        if job.extras is not None:
            for moved in self.hooks.moved(job.extras.uses):
                moved(before, job, what, election, out)
        if job.state in FINAL_STATES and (is_revived or job.state is not before.state):
            self._end(job, out)

    def forget(self, job: Job, out: LaneOutput) -> None:
        """Drop an ended job; its id is remembered."""
        job_id = job.id
        del self._jobs[job_id]
        out.state[job_id] = None
        self.ended.add(job_id, job.state, job.version)
        if job_id in self._followers:
            for follower in self._followers.pop(job_id):
                follower.forgotten(job, out)

    def follow(self, job_id: str, follower: Follower) -> None:
        """Call the follower when this job appears, ends and is forgotten, which ends the following."""
        known = self._followers.get(job_id, _NONE)
        if follower not in known:
            self._followers[job_id] = (*known, follower)

    def unfollow(self, job_id: str, follower: Follower) -> None:
        """No longer call the follower for this job."""
        rest = tuple(one for one in self._followers.pop(job_id, _NONE) if one is not follower)
        if rest:
            self._followers[job_id] = rest

    def elect_overdue(self, most: int, election: Election, out: LaneOutput) -> None:
        """Enqueue at most this many scheduled jobs whose timer is late, so that a lost timer loses no job."""
        store = self.store
        for _ in range(most):
            entry = store.due.first(store.jobs)
            if entry is None or entry[0] + self.rules.overdue_ms > election.now_ms or out.budget.is_spent:
                return
            due_ms, job_id, version = entry
            timer = wire.JobDue(job_id=job_id, version=version)
            self.apply(store.jobs[job_id], timer, f"overdue/{due_ms}", election, out)
            out.counts["joblog_jobs_overdue_total",] += 1

    def _place(self, job: Job, out: LaneOutput) -> None:
        self.store.place(job)
        for hook in self.hooks.entered.get(job.state, _NONE):
            hook(job)
        if job.state is SCHEDULED:
            out.timers.append(wire.Timer(job.id, job.version, job.due_ms))

    def _end(self, job: Job, out: LaneOutput) -> None:
        out.ended.append(job)
        for follower in self._followers.get(job.id, _NONE):
            follower.ended(job, out)
        if job.state is not FAILED:  # that one may be requeued: features/failed_jobs.py keeps it for a while
            self.forget(job, out)
