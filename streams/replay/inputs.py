"""Which input led to an event of a job: told by the event, the job before it, and the event's cause."""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.states import State
from joblog.streams.contract.timestamps import EPOCH, parse_time_ms
from joblog.streams.lane.filters import policy_of
from joblog.streams.lane.job import Job
from joblog.streams.lane.parents import several
from joblog.streams.lane.transitions import EXPIRED, Assigned, Held, Lost, ParentNoted
from joblog.streams.replay.stored import ReadEvent
from msgspec import json

#: The causes that electors name: a report's place, or what the passing of time brought. Commands have ids.
_by_elector: Final = re.compile(
    r"(?:reports/\d+@|overdue/|lease/|gone/|deadline/)\d+|started/[0-9a-f-]{36}"
).fullmatch
_by_deadline: Final = re.compile(r"deadline/\d+").fullmatch
_spec: Final = json.Decoder(wire.JobSpec).decode


def by_elector(cause: str) -> bool:
    """Whether an event's cause is no command, but a report, or the passing of time."""
    return _by_elector(cause) is not None


def creation_of(job_id: str, event: ReadEvent, spec: bytes) -> wire.CreateJob:
    """The command that created a job."""
    created = _spec(spec)
    return wire.CreateJob(
        event.task,
        created.args,
        created.kwargs,
        event.queue,
        job_id,
        created.idempotency_key,
        created.priority,
        None if event.due is None else EPOCH + timedelta(milliseconds=parse_time_ms(event.due)),
        created.parent,
        created.retry,
        created.timeout_s,
        parents=created.parents,
        limits=created.limits,
        unique=created.unique,
        batch=created.batch,
        deadline=created.deadline,
        expires_in_s=created.expires_in_s,
    )


def input_of(job: Job, event: ReadEvent, cause: str) -> Any:
    """The input that led from this job to this event; None if no input does."""
    if event.note is not None:
        return _noted(job, event)
    if _by_deadline(cause):
        return EXPIRED
    if event.name is not None:
        return wire.SetParameter(job_id=job.id, name=event.name, value=event.value, reason=event.reason)
    found = (_BY_ELECTOR if by_elector(cause) else _BY_COMMAND).get(event.state) or _BY_WORKER.get(event.state)
    return None if found is None else found(job, event)


def _noted(job: Job, event: ReadEvent) -> Any:
    """What led to an event that leaves the job in its state."""
    if event.outcome is not None and event.parent is not None:
        return ParentNoted(event.parent, event.outcome, event.reason or "")
    found = _NOTED.get(event.note or "")
    return None if found is None else found(job, event)


def _progressed(job: Job, event: ReadEvent) -> wire.RunProgressed:
    return wire.RunProgressed(
        job_id=job.id,
        lease=job.lease,
        worker=job.worker or "",
        progress=event.progress,
        text=event.reason,
        lines=event.lines,
    )


def _succeeded(job: Job, event: ReadEvent) -> wire.RunSucceeded:
    return wire.RunSucceeded(**_run(job, event), result=event.result, result_omitted=event.result_omitted)


def _failed(job: Job, event: ReadEvent) -> Any:
    if event.lease is None or event.exception is None:
        return _loss(job, event)
    return wire.RunFailed(**_run(job, event), exception=event.exception, retry=event.policy)


def _requeued(job: Job, event: ReadEvent) -> wire.RequeueJob:
    queue = event.queue if event.queue != job.queue else None
    return wire.RequeueJob(job_id=job.id, queue=queue, reason=event.reason)


def _rescheduled(job: Job, event: ReadEvent) -> wire.RescheduleJob:
    run_at = EPOCH + timedelta(milliseconds=parse_time_ms(event.due or ""))
    return wire.RescheduleJob(job_id=job.id, run_at=run_at, reason=event.reason)


def _run(job: Job, event: ReadEvent) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "lease": event.lease,
        "worker": event.worker,
        "duration_ms": event.duration_ms or 0.0,
        "started_ms": job.ready_ms + round(event.latency_ms or 0),
    }


def _made_ready(job: Job, event: ReadEvent) -> Any:
    if job.state is State.SCHEDULED:
        return wire.JobDue(job_id=job.id, version=job.version)
    if job.state is State.AWAITING:
        return _parent_ended(job, event)
    if event.lost > job.lost:
        return _loss(job, event)
    started = event.attempt == job.attempt
    return wire.RunReleased(
        job_id=job.id, lease=job.lease, worker=job.worker or "", reason=event.reason or "", started=started
    )


def _loss(job: Job, event: ReadEvent) -> Lost:
    policy = policy_of(job, event.policy)
    return Lost(job.worker or "", policy.count_lost or job.lost >= policy.lost_max, event.policy)


def _parent_ended(job: Job, event: ReadEvent) -> wire.ParentEnded:
    run, told, parents = event.state is not State.DELETED, event.outcome or wire.Outcome(None), several(job)
    return wire.ParentEnded(
        job_id=job.id,
        parent=event.parent or ((job.parent or "") if parents is None else parents.job_ids[0]),
        state=State.DELETED if event.parent is not None and not run else told.state,
        run=run,
        reason=event.reason or "",
        result=told.result,
        exception=told.exception,
        omitted=told.omitted,
    )


#: By what an event notes of a job whose state stays.
_NOTED: Final[Mapping[str, Callable[[Job, ReadEvent], Any]]] = {
    "priority_set": lambda job, event: wire.SetPriority(
        job_id=job.id, priority=event.priority or 0, reason=event.reason
    ),
    "held": lambda _job, event: Held(event.waits_for or ""),
    "progressed": _progressed,
    "moved": lambda job, event: wire.MoveJob(job_id=job.id, queue=event.queue, reason=event.reason),
}
#: By the state that an event leads to: what workers report, what else electors find, what commands say.
_BY_WORKER: Final[Mapping[State, Callable[[Job, ReadEvent], Any]]] = {
    State.PROCESSING: lambda _job, event: Assigned(event.worker or ""),
    State.SUCCEEDED: _succeeded,
    State.FAILED: _failed,
}
_BY_ELECTOR: Final[Mapping[State, Callable[[Job, ReadEvent], Any]]] = {
    State.ENQUEUED: _made_ready,
    State.SCHEDULED: _parent_ended,
    State.DELETED: _parent_ended,
    State.AWAITING: lambda job, event: wire.ParentRequeued(job_id=job.id, parent=event.parent or ""),
}
_BY_COMMAND: Final[Mapping[State, Callable[[Job, ReadEvent], Any]]] = {
    State.ENQUEUED: _requeued,
    State.SCHEDULED: _rescheduled,
    State.DELETED: lambda job, event: wire.DeleteJob(job_id=job.id, reason=event.reason),
}
