"""Which input led to an event of a job: told by the event, the job before it, and the event's cause."""

import re
from datetime import timedelta
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.states import State
from joblog.streams.contract.timestamps import EPOCH, parse_time_ms
from joblog.streams.lane.filters import policy_of
from joblog.streams.lane.job import Job
from joblog.streams.lane.transitions import Assigned, Lost
from joblog.streams.replay.stored import ReadEvent
from msgspec import json

#: The causes that electors name: a report's place, or what the passing of time brought. Commands have ids.
_is_elector: Final = re.compile(r"(?:reports/\d+@|overdue/|lease/|gone/)\d+").fullmatch
_spec: Final = json.Decoder(wire.JobSpec).decode


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
    )


def input_of(job: Job, event: ReadEvent, cause: str) -> Any:
    """The input that led from this job to this event; None if no input does."""
    if event.name is not None:
        return wire.SetParameter(job_id=job.id, name=event.name, value=event.value, reason=event.reason)
    match event.state:
        case State.PROCESSING:
            return Assigned(event.worker or "")
        case State.SUCCEEDED:
            return wire.RunSucceeded(
                **_run(job, event), result=event.result, result_omitted=event.result_omitted
            )
        case State.FAILED if event.lease is None:
            return _loss(job, event)
        case State.FAILED:
            assert event.exception is not None
            return wire.RunFailed(**_run(job, event), exception=event.exception, retry=event.policy)
        case State.ENQUEUED if _is_elector(cause):
            return _made_ready(job, event)
        case State.SCHEDULED | State.DELETED if _is_elector(cause):
            return _parent_ended(job, event)
        case State.ENQUEUED:
            queue = event.queue if event.queue != job.queue else None
            return wire.RequeueJob(job_id=job.id, queue=queue, reason=event.reason)
        case State.SCHEDULED:
            due = EPOCH + timedelta(milliseconds=parse_time_ms(event.due or ""))
            return wire.RescheduleJob(job_id=job.id, run_at=due, reason=event.reason)
        case State.DELETED:
            return wire.DeleteJob(job_id=job.id, reason=event.reason)
        case _:
            return None


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
    run = event.state is not State.DELETED
    return wire.ParentEnded(
        job_id=job.id, parent=job.parent or "", state=None, run=run, reason=event.reason or ""
    )
