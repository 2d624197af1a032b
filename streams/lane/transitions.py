"""Which transitions there are, and how one is decided: the table, and the candidate event of each input."""

from collections.abc import Callable, Mapping
from typing import Any, Final, final

from joblog.streams.contract import wire
from joblog.streams.contract.json_text import raw, with_parameter
from joblog.streams.contract.parameters import completes_once
from joblog.streams.contract.relations import PARENT_PARAMETER
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import (
    AWAITING,
    DELETED,
    ENQUEUED,
    FAILED,
    FINAL_STATES,
    PROCESSING,
    SCHEDULED,
    SUCCEEDED,
    State,
)
from joblog.streams.contract.timestamps import format_time, time_ms
from joblog.streams.lane.extras import AFTER_BATCH, USES_UNIQUE
from joblog.streams.lane.job import Job, deleted, enqueued, failed, is_transition, new_job, scheduled
from joblog.streams.lane.parents import condition, ends, is_end, parents_of, requeued, several, told, waits_for
from joblog.streams.lane.times import ended, over_at
from msgspec import Struct, structs

#: So much of an exception's type and text is in the reason of a failure; all of it is in the exception.
FAILURE_TEXT_MAX: Final = 200
#: All parameters of a job as JSON: with its arguments they must fit into one Kafka record.
PARAMETERS_BYTES_MAX: Final = 262_144


class Assigned(Struct, frozen=True, gc=False):
    """A worker has a free slot for this job."""

    worker: str


class Lost(Struct, frozen=True, gc=False):
    """The worker that runs this job did not renew in time, or stopped without reporting the run.

    `count` when the retry policy makes that a failure; `retry` is the task's own policy, if it has one.
    """

    worker: str
    count: bool
    retry: Retry | None = None


class Expired(Struct, frozen=True, gc=False):
    """The time of this job is over: its deadline, or that within which it has to start (times.py)."""


EXPIRED: Final = Expired()


class Held(Struct, frozen=True, gc=False):
    """A worker has a free slot, but the job has to wait for this, in words."""

    waits_for: str


class ParentNoted(Struct, frozen=True, gc=False):
    """One of the job's parents ended; the others decide with it what becomes of the job. Or it was requeued."""

    parent: str
    outcome: wire.Outcome
    reason: str


@final
class Rejection(Struct, frozen=True, gc=False):
    """Why an input does not move a job: `code` for programs, `reason` for people, `existing` the job in its place."""

    code: str
    reason: str
    existing: str | None = None


#: Of a parameter that is not for others to set.
RESERVED: Final = Rejection("invalid", f"parameters that begin with {PARENT_PARAMETER} tell how parents ended")


class Election(Struct, frozen=True, gc=False):
    """What a decision depends on besides job and input: the time, and the filters that may elect another state.

    - now_ms: the time of day, unix milliseconds, which is written into events.
    - clock_ms: milliseconds of a monotonic clock, by which leases are measured.
    - watched: the candidate states for which `elect` has to be called.
    """

    now_ms: int
    clock_ms: int
    elect: Callable[[Job, wire.JobEvent, Any, int], tuple[wire.JobEvent, ...]]
    watched: frozenset[State]


ANY: Final = frozenset(State)
LIVE: Final = frozenset({AWAITING, SCHEDULED, ENQUEUED, PROCESSING})

#: In which states an input is accepted, and the candidate state it leads to (None: the state stays).
#: Creation leads to Enqueued, Scheduled (`run_at` ahead) or Awaiting (`parent`).
TRANSITIONS: Final[Mapping[type, tuple[frozenset[State], State | None]]] = {
    wire.JobDue: (frozenset({SCHEDULED}), ENQUEUED),
    wire.ParentEnded: (frozenset({AWAITING}), ENQUEUED),  # or Scheduled, or Deleted: condition not met
    ParentNoted: (frozenset({AWAITING}), None),
    wire.ParentRequeued: (frozenset({DELETED}), AWAITING),
    Assigned: (frozenset({ENQUEUED}), PROCESSING),
    Held: (frozenset({ENQUEUED}), None),
    wire.RunSucceeded: (frozenset({PROCESSING}), SUCCEEDED),
    wire.RunFailed: (frozenset({PROCESSING}), FAILED),
    wire.RunReleased: (frozenset({PROCESSING}), ENQUEUED),
    Lost: (frozenset({PROCESSING}), ENQUEUED),  # or Failed, if the policy counts it
    wire.RunProgressed: (frozenset({PROCESSING}), None),
    Expired: (LIVE, DELETED),  # or Failed, if it runs
    wire.DeleteJob: (LIVE | {FAILED}, DELETED),
    wire.RequeueJob: (ANY, ENQUEUED),
    wire.RescheduleJob: (ANY, SCHEDULED),
    wire.SetParameter: (LIVE | {FAILED}, None),
    wire.SetPriority: (LIVE | {FAILED}, None),
    wire.MoveJob: ((LIVE | {FAILED}) - {PROCESSING}, None),
}


def decide(job: Job, what: Any, election: Election) -> tuple[wire.JobEvent, ...] | Rejection:
    """The events that an input (a command, a report, or one of the classes above) leads to, or why there are none."""
    heard_in, propose = _RULES[type(what)]
    if job.state not in heard_in:
        return Rejection("wrong_state", f"{_name(what)} is not heard in state {job.state}")
    candidate = propose(job, what, election.now_ms)
    if type(candidate) is Rejection:
        return candidate
    if candidate.state in election.watched and is_transition(candidate):
        return election.elect(job, candidate, what, election.now_ms)
    return (candidate,)


def elected_first(job_id: str, event: wire.JobEvent, create: wire.CreateJob, election: Election) -> wire.JobEvent:
    """The first event of a job after the filters; the job that they see has version 0."""
    assert event.spec is not None
    job = new_job(job_id, event, bytes(event.spec), create.priority, election.now_ms, create)
    job.version = 0
    (elected,) = election.elect(job, event, create, election.now_ms)  # no Failed candidate: no traversed one
    return elected


def _name(what: Any) -> str:
    return str(getattr(type(what), "type", None) or type(what).__struct_config__.tag or type(what).__name__)


def _on_due(job: Job, what: wire.JobDue, _now_ms: int) -> wire.JobEvent | Rejection:
    if what.version != job.version:
        return Rejection("stale", f"version {what.version} is past, the job is at {job.version}")
    return enqueued(job, "Triggered by its schedule")


def _on_parent_ended(job: Job, what: wire.ParentEnded, now_ms: int) -> wire.JobEvent | Rejection:
    """For one of several parents, the job has noted before how it ended."""
    parents = several(job)
    if parents is None:
        if what.parent != job.parent:
            return Rejection("stale", "the job waits for another parent")
        run, outcome = what.run, told(job, what) if what.state in FINAL_STATES else None  # else a batch begins
    else:
        found = condition(parents, ends(job))
        if what.parent not in parents.job_ids or found == "wait":
            return Rejection("stale", "the job waits for other parents")
        run, outcome = found == "run", None
    if not run:
        event = deleted(job, what.reason)
        return structs.replace(event, parent=what.parent) if by_condition(job, what) else event
    event = scheduled(job, job.due_ms, what.reason) if job.due_ms > now_ms else enqueued(job, what.reason)
    return event if outcome is None else structs.replace(event, parent=what.parent, outcome=outcome)


def by_condition(job: Job, what: Any) -> bool:
    """Whether the input is an end of a job, and not of a batch, and so may be undone by a requeue of that job."""
    if not isinstance(what, wire.ParentEnded) or what.state not in FINAL_STATES:
        return False
    return job.extras is None or not (job.extras.uses & AFTER_BATCH or job.parent == job.extras.batch is not None)


def _on_parent_requeued(job: Job, what: wire.ParentRequeued, now_ms: int) -> wire.JobEvent | Rejection:
    """A continuation that was deleted waits again; of several parents, this one has not ended any more."""
    parents = parents_of(job)
    if what.parent not in parents:
        return Rejection("stale", "the job waits for other parents")
    reason, due = requeued(what.parent), format_time(job.due_ms) if job.due_ms > now_ms else None
    event = wire.JobEvent(job.version + 1, AWAITING, job.attempt, job.queue, job.task, reason, due=due)
    outcome = None if several(job) is None else wire.Outcome(ENQUEUED)
    return structs.replace(event, parent=what.parent, on=parents[what.parent], outcome=outcome)


def _on_parent_noted(job: Job, what: ParentNoted, _now_ms: int) -> wire.JobEvent | Rejection:
    if waits_for(job, what.parent) is not is_end(what.outcome.state) or what.parent not in parents_of(job):
        return Rejection("stale", "the job knows that already, or does not wait for this parent")
    return wire.JobEvent(
        job.version + 1,
        job.state,
        job.attempt,
        job.queue,
        job.task,
        what.reason,
        parent=what.parent,
        note="parent_ended",
        outcome=what.outcome,
    )


def _on_assigned(job: Job, what: Assigned, _now_ms: int) -> wire.JobEvent | Rejection:
    version = job.version + 1
    return wire.JobEvent(version, PROCESSING, job.attempt + 1, job.queue, job.task, worker=what.worker, lease=version)


def _on_held(job: Job, what: Held, _now_ms: int) -> wire.JobEvent | Rejection:
    return wire.JobEvent(
        job.version + 1, ENQUEUED, job.attempt, job.queue, job.task, note="held", waits_for=what.waits_for
    )


def _holds(job: Job, what: wire.RunReport) -> bool:
    return what.lease == job.lease and what.worker == job.worker


_OLD_LEASE: Final = Rejection("stale", "the report's lease is past")


def _on_succeeded(job: Job, what: wire.RunSucceeded, _now_ms: int) -> wire.JobEvent | Rejection:
    if not _holds(job, what):
        return _OLD_LEASE
    return wire.JobEvent(
        job.version + 1,
        SUCCEEDED,
        job.attempt,
        job.queue,
        job.task,
        worker=what.worker,
        lease=what.lease,
        result=what.result,
        result_omitted=what.result_omitted,
        duration_ms=what.duration_ms,
        latency_ms=_latency(job, what.started_ms),
    )


def _on_failed(job: Job, what: wire.RunFailed, _now_ms: int) -> wire.JobEvent | Rejection:
    if not _holds(job, what):
        return _OLD_LEASE
    return wire.JobEvent(
        job.version + 1,
        FAILED,
        job.attempt,
        job.queue,
        job.task,
        f"{what.exception.type[:FAILURE_TEXT_MAX]}: {what.exception.message[:FAILURE_TEXT_MAX]}",
        worker=what.worker,
        lease=what.lease,
        duration_ms=what.duration_ms,
        latency_ms=_latency(job, what.started_ms),
        exception=what.exception,
        policy=what.retry,
    )


def _latency(job: Job, started_ms: int) -> float:
    # The worker's clock may lag behind the elector's: a latency is never negative.
    ms = started_ms - job.ready_ms
    return float(ms) if ms > 0 else 0.0


def _on_released(job: Job, what: wire.RunReleased, _now_ms: int) -> wire.JobEvent | Rejection:
    if not _holds(job, what):
        return _OLD_LEASE
    return enqueued(job, what.reason, attempt=job.attempt if what.started else job.attempt - 1)


def _on_lost(job: Job, what: Lost, _now_ms: int) -> wire.JobEvent | Rejection:
    if what.worker != job.worker:
        return _OLD_LEASE
    reason = f"Worker {what.worker} was lost"
    if what.count:
        lost = wire.JobException("joblog.WorkerLost", reason, "", ("joblog.WorkerLost",))
        return failed(job, lost, reason, policy=what.retry)
    return enqueued(job, reason, lost=job.lost + 1, policy=what.retry)


def _on_progressed(job: Job, what: wire.RunProgressed, _now_ms: int) -> wire.JobEvent | Rejection:
    if not _holds(job, what):
        return _OLD_LEASE
    return wire.JobEvent(
        job.version + 1,
        PROCESSING,
        job.attempt,
        job.queue,
        job.task,
        what.text,
        note="progressed",
        progress=what.progress,
        lines=what.lines,
    )


def _on_expired(job: Job, _what: Expired, now_ms: int) -> wire.JobEvent | Rejection:
    at_ms = over_at(job)
    if not at_ms or at_ms > now_ms:
        return Rejection("stale", "the job still has time")
    return ended(job)


def _expected(job: Job, what: wire.Change) -> Rejection | None:
    if what.expected_state is not None and what.expected_state is not job.state:
        return Rejection("wrong_state", f"expected state {what.expected_state}, the job is {job.state}")
    if what.expected_version is not None and what.expected_version != job.version:
        return Rejection("wrong_version", f"expected version {what.expected_version}, the job is at {job.version}")
    return None


def _completed(job: Job) -> Rejection | None:
    if job.state is SUCCEEDED and completes_once(job.spec, job.parameters):
        return Rejection("completed", "the job has Succeeded, and its parameter Completion says that it runs once")
    return None


def _on_delete(job: Job, what: wire.DeleteJob, _now_ms: int) -> wire.JobEvent | Rejection:
    return _expected(job, what) or deleted(job, what.reason)


def _on_requeue(job: Job, what: wire.RequeueJob, _now_ms: int) -> wire.JobEvent | Rejection:
    if unexpected := _expected(job, what) or _completed(job):
        return unexpected
    return enqueued(job, what.reason, retries=0, lost=0, queue=what.queue)


def _on_reschedule(job: Job, what: wire.RescheduleJob, now_ms: int) -> wire.JobEvent | Rejection:
    if unexpected := _expected(job, what) or _completed(job):
        return unexpected
    return scheduled(job, max(time_ms(what.run_at), now_ms), what.reason, retries=0)


def _on_set_parameter(job: Job, what: wire.SetParameter, _now_ms: int) -> wire.JobEvent | Rejection:
    if unexpected := _expected(job, what):
        return unexpected
    if what.name.startswith(PARENT_PARAMETER):
        return RESERVED
    value = raw(what.value)
    size = len(with_parameter(job.parameters, what.name, value))
    if size > PARAMETERS_BYTES_MAX:
        return Rejection(
            "too_large", f"the parameters would have {size} bytes as JSON, more than {PARAMETERS_BYTES_MAX}"
        )
    return wire.JobEvent(
        job.version + 1,
        job.state,
        job.attempt,
        job.queue,
        job.task,
        what.reason,
        name=what.name,
        value=value,
    )


def _on_set_priority(job: Job, what: wire.SetPriority, _now_ms: int) -> wire.JobEvent | Rejection:
    return _expected(job, what) or _noted(job, what, "priority_set", priority=what.priority)


def _on_move(job: Job, what: wire.MoveJob, _now_ms: int) -> wire.JobEvent | Rejection:
    if unexpected := _expected(job, what):
        return unexpected
    if job.extras is not None and job.extras.uses & USES_UNIQUE:
        return Rejection(
            "unique", f"its unique key belongs to the queue {job.queue}: delete it, and create another one"
        )
    return _noted(job, what, "moved", queue=what.queue)


def _noted(
    job: Job, what: wire.Change, note: str, *, queue: str | None = None, priority: int | None = None
) -> wire.JobEvent:
    """An event that leaves the job in its state."""
    version, queue = job.version + 1, queue or job.queue
    return wire.JobEvent(version, job.state, job.attempt, queue, job.task, what.reason, note=note, priority=priority)


_PROPOSALS: Final[Mapping[type, Callable[[Job, Any, int], wire.JobEvent | Rejection]]] = {
    wire.JobDue: _on_due,
    wire.ParentEnded: _on_parent_ended,
    ParentNoted: _on_parent_noted,
    wire.ParentRequeued: _on_parent_requeued,
    Assigned: _on_assigned,
    Held: _on_held,
    wire.RunSucceeded: _on_succeeded,
    wire.RunFailed: _on_failed,
    wire.RunReleased: _on_released,
    Lost: _on_lost,
    wire.RunProgressed: _on_progressed,
    Expired: _on_expired,
    wire.DeleteJob: _on_delete,
    wire.RequeueJob: _on_requeue,
    wire.RescheduleJob: _on_reschedule,
    wire.SetParameter: _on_set_parameter,
    wire.SetPriority: _on_set_priority,
    wire.MoveJob: _on_move,
}

_RULES: Final = {kind: (heard_in, _PROPOSALS[kind]) for kind, (heard_in, _) in TRANSITIONS.items()}
