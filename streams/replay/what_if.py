"""One job through another retry policy or other filters: what would have become of it.

The real rules decide, with the inputs that the log recorded: the outcomes of the runs in their order, each as long
after the one before as the policy then says, and what came from outside at its time. A command is left out when the
job would have ended otherwise before it came; the end of a parent comes when and as the parent would have ended, and
the begin of the job's batch, and its cancellation, as well. Runs beyond those that are recorded are assumed: to end
as `Beyond` says, and to last as long as the last recorded one.
"""

from collections.abc import Callable
from enum import StrEnum
from sys import maxsize
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.lane.filters import FilterChain, policy_of
from joblog.streams.lane.job import Job, evolve, first_event, is_transition, new_job
from joblog.streams.lane.times import over_at
from joblog.streams.lane.transitions import (
    EXPIRED,
    Assigned,
    Election,
    Lost,
    Rejection,
    decide,
    elected_first,
)
from joblog.streams.replay.around import Around
from joblog.streams.replay.history import Cancelled, End, History, Outside, Run, note_end
from msgspec import Struct, json, structs

#: So many transitions of one job are followed: a filter may send it in circles.
TRANSITIONS_MAX: Final = 10_000
_WORKER: Final = "what-if"
_READY: Final = frozenset({State.ENQUEUED, State.SCHEDULED, State.PROCESSING})

_spec: Final = json.Decoder(wire.JobSpec).decode


class Beyond(StrEnum):
    """How a run is assumed to end that was never made."""

    AS_RECORDED = "as-recorded"  # as the last recorded run of the job ended
    FAIL = "fail"
    SUCCEED = "succeed"


class Otherwise(Struct):
    """What would have become of a job; fields as in History.

    - assumed: runs beyond those that are recorded. is_cut: it was not followed to its end.
    - is_unknown: its parent's other end would have let it run, or may have, and the log has no such run.
    """

    job: Job
    retries: int = 0
    waited_ms: int = 0
    starts: list[int] = []
    assumed: int = 0
    is_cut: bool = False
    is_unknown: bool = False
    ends: list[End] = []


class WhatIf:
    """Another policy (None: each job's own) and other filters."""

    def __init__(self, chain: FilterChain, retry: Retry | None = None, beyond: Beyond = Beyond.AS_RECORDED) -> None:
        self._chain, self._retry, self._beyond = chain, retry, beyond

    def of(self, history: History, around: Around | None = None) -> Otherwise:
        """The job as it would be; `around`: if what it depends on is not as it is recorded."""
        if around is None:
            return self._followed(history)
        found = self._followed(around.after(history))
        found.is_unknown = _is_unknown(history, found.job.state, around)
        return found

    def _followed(self, history: History) -> Otherwise:
        spec, create = history.spec, history.create
        if self._retry is not None:
            spec = json.encode(structs.replace(_spec(spec), retry=self._retry))
            create = structs.replace(create, retry=self._retry)
        event = first_event(create, spec, history.created_ms)
        if event.state in self._chain.watched:
            election = self._election(history.created_ms)
            event = elected_first(history.job.id, event, create, election)
        job = new_job(history.job.id, event, spec, create.priority, history.created_ms, create)
        course = _Course(history, job, self._election, self._beyond)
        for _ in range(TRANSITIONS_MAX):
            if not course.go_on():
                return course.result
        course.result.is_cut = True
        return course.result

    def _election(self, now_ms: int) -> Election:
        return Election(now_ms, 0, self._chain.elect, self._chain.watched)


def _is_unknown(history: History, state: State, around: Around) -> bool:
    """Whether a job that never ran would have, or may have."""
    if state is State.AWAITING:
        return around.is_unknown
    return state in _READY and not history.starts and history.job.state is not state


class _Course:
    """The course that one job takes; `_next` is the place of the recorded step that comes next."""

    def __init__(self, history: History, job: Job, election: Callable[[int], Election], beyond: Beyond) -> None:
        self._history, self._election, self._beyond = history, election, beyond
        self._now_ms = history.created_ms
        self._next = 0
        self._run: Run | None = None
        self._cancelled: Cancelled | None = None
        self.result = Otherwise(job, starts=[], ends=[])
        self._note_end()

    def go_on(self) -> bool:
        """Take the next input; False when there is none."""
        return self._advance() or (not self._history.is_open and self._expire(maxsize))

    def _expire(self, before_ms: int) -> bool:
        """End the job if its time is over before this instant."""
        at_ms = over_at(self.result.job)
        if not 0 < at_ms <= before_ms:
            return False
        self._now_ms = max(self._now_ms, at_ms)
        return self._apply(EXPIRED)

    def _advance(self) -> bool:
        outside, state = self._outside(), self.result.job.state
        if state in FINAL_STATES:
            return self._after_the_end(outside)
        if state is State.SCHEDULED:
            return self._due(outside)
        if state is State.ENQUEUED:
            return self._start(outside)
        if state is State.PROCESSING and self._run is not None and self._run.outcome is not None:
            return self._end(self._run, outside)
        return outside is not None and self._from_outside(outside)  # it waits for a parent or a command

    def _due(self, outside: Outside | None) -> bool:
        job = self.result.job
        if outside is not None and (outside.at_ms < job.due_ms or outside.due_ms == job.due_ms):
            return self._from_outside(outside)
        if outside is None and self._history.is_open and self._runs_are_over():
            return False
        if self._expire(max(job.due_ms, self._now_ms)):
            return True
        self._now_ms = max(job.due_ms, self._now_ms)
        return self._apply(wire.JobDue(job_id=job.id, version=job.version))

    def _end(self, run: Run, outside: Outside | None) -> bool:
        end_ms = self._now_ms + run.lasted_ms
        if outside is not None and outside.at_ms < end_ms:
            return self._from_outside(outside)
        if self._expire(end_ms):
            return True
        self._now_ms = end_ms
        return self._apply(self._outcome(run.outcome))

    def _outside(self) -> Outside | None:
        """What comes next from outside."""
        later = self._history.steps[self._next :]
        return next((step for step in later if isinstance(step, Outside)), None)

    def _runs_are_over(self) -> bool:
        steps = self._history.steps
        return self._next >= len(steps) or not isinstance(steps[self._next], Run)

    def _from_outside(self, outside: Outside) -> bool:
        """Runs that are recorded before it are left out: there was no time for them."""
        self._next = self._history.steps.index(outside, self._next) + 1
        self._now_ms = max(self._now_ms, outside.at_ms)
        if isinstance(outside.what, Cancelled):
            return self._cancel(outside.what)
        return self._apply(outside.what)

    def _cancel(self, what: Cancelled) -> bool:
        """The job is deleted, as its lane does: at once, or when it would start again; a Failed one stays."""
        self._cancelled = what
        state = self.result.job.state
        if state in FINAL_STATES or (state is State.PROCESSING and not what.running):
            return True
        return self._apply(wire.DeleteJob(job_id=self.result.job.id, reason=what.reason))

    def _after_the_end(self, outside: Outside | None) -> bool:
        if outside is None:
            return False
        if outside.before is self.result.job.state:
            return self._from_outside(outside)
        self._next = self._history.steps.index(outside, self._next) + 1
        if isinstance(outside.what, Cancelled):
            self._cancelled = outside.what
        return True

    def _start(self, outside: Outside | None) -> bool:
        if self._cancelled is not None:
            return self._cancel(self._cancelled)
        is_queued = outside is not None and (outside.what == EXPIRED or outside.before is State.ENQUEUED)
        if outside is not None and is_queued and self._runs_are_over():
            return self._from_outside(outside)  # until then no worker took it
        run = self._recorded_run() or self._assumed_run(outside)
        if run is None:
            return outside is not None and self._from_outside(outside)
        start_ms = self._now_ms + run.waited_ms
        if outside is not None and (
            outside.at_ms < start_ms or (outside.at_ms == start_ms and self._runs_are_over())
        ):
            return self._from_outside(outside)
        if self._expire(start_ms):
            return True
        if self._runs_are_over():
            self.result.assumed += 1
        else:
            self._next += 1
        self._now_ms = start_ms
        self._run = run
        self._apply(Assigned(_WORKER))
        if self.result.job.state is State.PROCESSING:
            self.result.starts.append(start_ms)
        return True

    def _recorded_run(self) -> Run | None:
        step = None if self._runs_are_over() else self._history.steps[self._next]
        return step if isinstance(step, Run) else None

    def _assumed_run(self, outside: Outside | None) -> Run | None:
        """A run that was never made; None for a job that had not ended, since its time may not have come yet.

        If it waited for others, which would have ended otherwise, its time has come.
        """
        if self._history.is_open and self._history.job.state is not State.AWAITING and outside is None:
            return None
        before = self._history.steps[: self._next]
        known = [step for step in before if isinstance(step, Run) and step.outcome is not None]
        ended = [step for step in known if not isinstance(step.outcome, wire.RunReleased)]
        last = ended[-1] if ended else None
        match self._beyond:
            case Beyond.AS_RECORDED if last is not None:
                return last
            case Beyond.SUCCEED:
                return Run(0, last.lasted_ms if last else 0, self._made_up(wire.RunSucceeded))
            case Beyond.FAIL:
                if last is not None and not isinstance(last.outcome, wire.RunSucceeded):
                    return last
                nothing = wire.JobException("joblog.Assumed", "assumed to fail", "", ("joblog.Assumed",))
                return Run(0, last.lasted_ms if last else 0, self._made_up(wire.RunFailed, exception=nothing))
            case _:
                return None

    def _made_up(self, kind: type[Any], **fields: Any) -> Any:
        job_id = self.result.job.id
        return kind(job_id=job_id, lease=1, worker=_WORKER, duration_ms=0.0, started_ms=0, **fields)

    def _outcome(self, recorded: Any) -> Any:
        """The recorded outcome as that of the present run."""
        job = self.result.job
        if isinstance(recorded, Lost):
            own = recorded.retry or self._history.policy
            policy = policy_of(job, own)
            return Lost(job.worker or "", policy.count_lost or job.lost >= policy.lost_max, own)
        told = structs.replace(recorded, lease=job.lease, worker=job.worker or "")
        return structs.replace(told, retry=self._history.policy) if isinstance(told, wire.RunFailed) else told

    def _apply(self, what: Any) -> bool:
        """Let the input move the job; one that is refused changes nothing, as in a lane."""
        job = self.result.job
        decision = decide(job, what, self._election(self._now_ms))
        if not isinstance(decision, Rejection):
            before = job
            for event in decision:
                before, job = job, evolve(job, event, self._now_ms)
            if len(decision) > 1 and job.retries > before.retries:
                self.result.retries += 1
                if job.state is State.SCHEDULED:
                    self.result.waited_ms += job.due_ms - self._now_ms
            self.result.job = job
            if is_transition(decision[-1]):
                self._note_end()
        return True

    def _note_end(self) -> None:
        note_end(self.result.ends, self._now_ms, self.result.job.state)
