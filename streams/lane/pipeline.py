"""The one way that every transition of a lane's jobs takes.

1. decide: the table of transitions, and the elect-state filters, which are part of the election (transitions.py)
2. evolve the job and write its events
3. place it where it waits now, and take it from where it was
4. let the features act

Nobody else changes a job or writes its events. Features are handed the pipeline, so that what they decide takes the
same way.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.states import FINAL_STATES, State
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

_NONE: Final[tuple[Any, ...]] = ()


class Hooks:
    """What features want to hear of jobs, by hook and state; see lane/feature.py for what each hook means."""

    __slots__ = ("appeared", "ended", "entered", "forgotten", "left", "may_start")

    def __init__(self) -> None:
        self.appeared: tuple[JobHook, ...] = ()
        self.may_start: tuple[Callable[[Job], str | None], ...] = ()
        self.ended: tuple[JobHook, ...] = ()
        self.forgotten: tuple[JobHook, ...] = ()
        self.entered: Mapping[State, tuple[Entered, ...]] = {}
        self.left: Mapping[State, tuple[Left, ...]] = {}


class Pipeline:
    """The jobs of lane `number` of `lanes`, and the only way to move them."""

    def __init__(self, number: int, lanes: int, rules: LaneRules) -> None:
        self.number = number
        self.lanes = lanes
        self.rules = rules
        self.store = JobStore()
        self.ended = EndedJobs(rules.remembered)
        self.log_clock = LogClock()
        self.hooks = Hooks()

    def apply(self, job: Job, what: Any, cause: str, election: Election, out: LaneOutput) -> Rejection | None:
        """Let an input (a command, a report, ...) move a job, or tell why it does not."""
        decision = decide(job, what, election)
        if isinstance(decision, Rejection):
            return decision
        if job.id not in self.store.jobs:  # it is revived
            for hook in self.hooks.appeared:
                hook(job, out)
        self.move(job, self.evolved(job, decision, cause, election.now_ms, out), what, out)
        return None

    def report(self, report: Any, cause: str, election: Election, out: LaneOutput) -> None:
        """Let a report move the job that it names; one that comes too late is counted and dropped."""
        job = self.store.jobs.get(report.job_id)
        if job is None or self.apply(job, report, cause, election, out) is not None:
            out.counts["joblog_stale_reports_total", str(type(report).__struct_config__.tag)] += 1

    def evolved(self, job: Job, events: tuple[wire.JobEvent, ...], cause: str, now_ms: int, out: LaneOutput) -> Job:
        """The job after these events, which are written."""
        after = job
        for event in events:
            after = evolve(after, event, now_ms)
            out.events.append((job.id, event_type(event), f"{job.id}/{event.version}", event, cause, job.traceparent))
        return after

    def add(self, job: Job, event: wire.JobEvent, cause: str | None, out: LaneOutput) -> None:
        """Take in a job that its first event has made."""
        out.events.append((job.id, event_type(event), f"{job.id}/1", event, cause, job.traceparent))
        self.store.jobs[job.id] = job
        out.state[job.id] = job
        out.budget.spend(2, 2 * len(job.spec))
        self._place(job, out)
        for hook in self.hooks.appeared:
            hook(job, out)
        if job.state in FINAL_STATES:  # a filter elected that
            self._end(job, out)

    def move(self, before: Job, job: Job, what: Any, out: LaneOutput, *, is_taken: bool = False) -> None:
        """Take a job from where it was to where it is now; `is_taken` if it was taken from its queue before."""
        store = self.store
        is_revived = before.id not in store.jobs
        store.jobs[job.id] = job
        out.state[job.id] = job
        out.budget.spend(2, len(job.spec))
        # Also when its state stayed: what waits for it knows it by its version, which is another now.
        self._place(job, out)
        if not is_revived:
            if not is_taken:
                store.left(before)
            for hook in self.hooks.left.get(before.state, _NONE):
                hook(before, job, what, out)
        if job.state in FINAL_STATES and (is_revived or job.state is not before.state):
            self._end(job, out)

    def forget(self, job: Job, out: LaneOutput) -> None:
        """An ended job is not kept any longer."""
        del self.store.jobs[job.id]
        out.state[job.id] = None
        self.ended.add(job.id, job.state, job.version)
        for hook in self.hooks.forgotten:
            hook(job, out)

    def elect_overdue(self, most: int, election: Election, out: LaneOutput) -> None:
        """Elect scheduled jobs whose timer is late: a lost timer loses no job."""
        store = self.store
        for _ in range(most):
            entry = store.due.first(store.jobs)
            if entry is None or entry[0] + self.rules.overdue_ms > election.now_ms or out.budget.is_spent:
                return
            due_ms, job_id, version = entry
            timer = wire.JobDue(job_id=job_id, version=version)
            self.apply(store.jobs[job_id], timer, f"overdue/{due_ms}", election, out)

    def has_queue(self, queue: str) -> bool:
        """Whether the queue, or one of its shards, lives in this lane."""
        return self.rules.has_queue(queue, self.number, self.lanes)

    def _place(self, job: Job, out: LaneOutput) -> None:
        self.store.place(job)
        for hook in self.hooks.entered.get(job.state, _NONE):
            hook(job)
        if job.state is State.SCHEDULED:
            out.timers.append(wire.Timer(job.id, job.version, job.due_ms))

    def _end(self, job: Job, out: LaneOutput) -> None:
        for hook in self.hooks.ended:
            hook(job, out)
        if job.state is not State.FAILED:  # that one may be requeued: features/failed_jobs.py keeps it for a while
            self.forget(job, out)
