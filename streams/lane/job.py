"""What a job is, and how an event changes it.

`decide(job, input, election)` (transitions.py) returns the events that an input leads to; `evolve(job, event,
at_ms)` returns the job after an event. Both are functions of their arguments: time, ids and randomness are passed in.
An event leads to the same state wherever the job was, so the log can be folded without the rules.
"""

from collections.abc import Callable, Mapping
from sys import intern
from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.json_text import with_parameter
from joblog.streams.contract.relations import PARENT_PARAMETER
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import (
    AWAITING,
    DELETED,
    ENQUEUED,
    FAILED,
    PROCESSING,
    SCHEDULED,
    SUCCEEDED,
    ContinueOn,
    State,
)
from joblog.streams.contract.timestamps import format_time, parse_time_ms, time_ms
from joblog.streams.lane.extras import USES_BATCH, Extras, extras_of, of_batch
from msgspec import Raw, Struct, json, structs


class Job(Struct, array_like=True, gc=False):
    """A live job as its elector holds it, and as a record of the `state` topic.

    A value: `evolve` makes a new one. Fields are only ever added at the end, with a default, because older
    records are read by position.

    - spec: the JobSpec, as JSON; parameters: those set since creation, as a JSON object.
    - created_ms, ready_ms, due_ms: unix milliseconds; ready_ms is when it last became Enqueued.
      For a Failed job, due_ms is when it failed.
    - retries, lost: automatic retries spent, and runs whose worker was lost, since creation or the last
      explicit requeue.
    - lease: the version of its last job.processing event; 0 when not assigned.
    - continuations: the jobs that wait for this one.
    - extras: of the features that it uses; None for most jobs.
    """

    id: str
    queue: str
    task: str
    state: State
    version: int
    attempt: int
    priority: int
    created_ms: int
    spec: bytes
    ready_ms: int = 0
    due_ms: int = 0
    retries: int = 0
    worker: str | None = None
    lease: int = 0
    parent: str | None = None
    on: ContinueOn | None = None
    parameters: bytes = b"{}"
    continuations: tuple[tuple[str, ContinueOn], ...] = ()
    traceparent: str | None = None
    lost: int = 0
    extras: Extras | None = None


#: What copy.copy() does, without the lookup.
_copy: Final[Callable[[Job], Job]] = Job.__copy__  # type: ignore[attr-defined]


EVENT_TYPES: Final[Mapping[State, str]] = {
    AWAITING: "job.awaiting",
    SCHEDULED: "job.scheduled",
    ENQUEUED: "job.enqueued",
    PROCESSING: "job.processing",
    SUCCEEDED: "job.succeeded",
    FAILED: "job.failed",
    DELETED: "job.deleted",
}


#: What an event notes of a job whose state stays -> its type.
NOTE_TYPES: Final[Mapping[str, str]] = {
    "held": "job.held",
    "priority_set": "job.priority_set",
    "moved": "job.moved",
    "progressed": "job.progressed",
    "parent_ended": "job.parent_ended",
}


def event_type(event: wire.JobEvent) -> str:
    """The CloudEvent type that an event is written under; empty for a note that nobody writes."""
    if event.note is None:
        return EVENT_TYPES[event.state] if event.name is None else "job.parameter_set"
    return NOTE_TYPES.get(event.note, "")


def is_transition(event: wire.JobEvent) -> bool:
    """Whether an event leads to a state, be it the same one; others add to the job, and its state stays."""
    return event.name is None and event.note is None


def noted(event: wire.JobEvent) -> tuple[str, Raw]:
    """How a parent ended, as a parameter of its continuation: name and value."""
    return f"{PARENT_PARAMETER}{event.parent}", Raw(json.encode(event.outcome))


def evolve(job: Job, event: wire.JobEvent, at_ms: int) -> Job:
    """The job after an event; `at_ms` is when it happened."""
    after: Job = _copy(job)
    after.version = event.version
    if event.outcome is not None:
        after.parameters = with_parameter(job.parameters, *noted(event))
    if event.note is not None:
        _note(after, event)
        return after
    if event.name is not None:
        after.parameters = with_parameter(job.parameters, event.name, event.value)
        return after
    if job.extras is not None and job.extras.is_held:
        after.extras = structs.replace(job.extras, is_held=False)
    state = after.state = event.state
    after.attempt = event.attempt
    if state is PROCESSING:
        after.worker = event.worker
        after.lease = event.version
        return after
    after.worker = None
    after.lease = 0
    if state is ENQUEUED:
        after.ready_ms = at_ms
        after.queue = event.queue
        after.retries = event.retry
        after.lost = event.lost
    elif state is SCHEDULED:
        assert event.due is not None
        after.due_ms = parse_time_ms(event.due)
        after.retries = event.retry
    elif state is FAILED:
        after.due_ms = at_ms
    return after


def _note(after: Job, event: wire.JobEvent) -> None:
    after.queue = event.queue
    if event.priority is not None:
        after.priority = event.priority
    if event.note == "held" and after.extras is not None:
        after.extras = structs.replace(after.extras, is_held=True)


def new_job(
    job_id: str,
    event: wire.JobEvent,
    spec: bytes,
    priority: int,
    at_ms: int,
    created: wire.CreateJob | wire.JobSpec,
) -> Job:
    """The job that its first event creates; `created` is the command or the spec, which is what `spec` says."""
    return job_with(job_id, event, spec, priority, at_ms, extras_of(created, at_ms))


def job_with(job_id: str, event: wire.JobEvent, spec: bytes, priority: int, at_ms: int, extras: Extras | None) -> Job:
    """As `new_job`, where the extras are known."""
    # Queue and task names repeat: one object of each is enough for a million jobs.
    job = Job(job_id, intern(event.queue), intern(event.task), event.state, 1, event.attempt, priority, at_ms, spec)
    job.retries, job.lost = event.retry, event.lost
    job.extras = extras
    if event.state is ENQUEUED:
        job.ready_ms = at_ms
    elif event.state is FAILED:
        job.due_ms = at_ms
    elif event.due is not None:
        job.due_ms = parse_time_ms(event.due)
    if event.on is not None:
        job.parent, job.on = event.parent, event.on
        share_batch(job)
    return job


def share_batch(job: Job) -> None:
    """Let the jobs of a batch share what they have of it: there may be a million of them."""
    extras = job.extras
    if extras is not None and extras.batch is not None:
        if extras.uses == USES_BATCH and not extras.is_held:
            extras = job.extras = of_batch(extras.batch)
        if job.parent == extras.batch:
            job.parent = extras.batch


def waits_for_start(job: Job) -> bool:
    """Whether the job waits for its own batch to start."""
    return job.state is AWAITING and job.extras is not None and job.parent == job.extras.batch


def first_event(create: wire.CreateJob, spec: bytes, now_ms: int) -> wire.JobEvent:
    """The first event of a job: Awaiting a parent, Scheduled ahead, or Enqueued."""
    facts = Raw(spec)
    due = time_ms(create.run_at) if create.run_at is not None else 0
    if create.unique is not None and create.unique.wait_s is not None:
        due = max(due, now_ms + round(create.unique.wait_s * 1000))
    if create.parent is not None or create.parents is not None:
        parent, on = (create.parent.job_id, create.parent.on) if create.parent is not None else (None, None)
        due_text = format_time(due) if due > now_ms else None
        return wire.JobEvent(1, AWAITING, 0, create.queue, create.task, None, facts, due_text, parent=parent, on=on)
    if due > now_ms:
        return wire.JobEvent(1, SCHEDULED, 0, create.queue, create.task, None, facts, format_time(due))
    return wire.JobEvent(1, ENQUEUED, 0, create.queue, create.task, None, facts)


def revived(job_id: str, snapshot: wire.Snapshot) -> Job:
    """The ended job that a snapshot describes."""
    return Job(
        job_id,
        snapshot.queue,
        snapshot.task,
        snapshot.state,
        snapshot.version,
        snapshot.attempt,
        snapshot.spec.priority if snapshot.priority is None else snapshot.priority,
        time_ms(snapshot.created_at),
        json.encode(snapshot.spec),
        parameters=json.encode(snapshot.parameters),
        extras=extras_of(snapshot.spec, time_ms(snapshot.created_at)),
    )


def enqueued(
    job: Job,
    reason: str | None,
    *,
    retries: int | None = None,
    attempt: int | None = None,
    lost: int | None = None,
    queue: str | None = None,
    policy: Retry | None = None,
) -> wire.JobEvent:
    """The event that makes a job ready; values that are not given stay as they are."""
    return wire.JobEvent(
        job.version + 1,
        ENQUEUED,
        job.attempt if attempt is None else attempt,
        queue or job.queue,
        job.task,
        reason,
        retry=job.retries if retries is None else retries,
        lost=job.lost if lost is None else lost,
        policy=policy,
    )


def scheduled(job: Job, due_ms: int, reason: str | None, *, retries: int | None = None) -> wire.JobEvent:
    """The event that schedules a job for `due_ms` (unix)."""
    return wire.JobEvent(
        job.version + 1,
        SCHEDULED,
        job.attempt,
        job.queue,
        job.task,
        reason,
        due=format_time(due_ms),
        retry=job.retries if retries is None else retries,
    )


def deleted(job: Job, reason: str | None) -> wire.JobEvent:
    """The event that deletes a job."""
    return wire.JobEvent(job.version + 1, DELETED, job.attempt, job.queue, job.task, reason)


def failed(
    job: Job, exception: wire.JobException, reason: str | None, *, policy: Retry | None = None
) -> wire.JobEvent:
    """The event that fails a job without a report of its run."""
    return wire.JobEvent(
        job.version + 1, FAILED, job.attempt, job.queue, job.task, reason, exception=exception, policy=policy
    )
