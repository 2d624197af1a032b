"""Assignments to workers, and timers. Private."""

from typing import Literal

from joblog.streams.contract.fields import Count, Lane, Text, Version
from joblog.streams.contract.wire.base import EMPTY_OBJECT, JobId, QueueName, TaskName, Wire
from msgspec import Raw


class Assignment(Wire, frozen=True, tag_field="type", kw_only=True):
    """A message of an elector to a worker; the key of its record is the worker's id."""

    job_id: JobId
    lease: Version


class RunJob(Assignment, frozen=True, kw_only=True, tag="job.run"):
    """Run this job: `spec` is the JobSpec, `parameters` those set since, `ready_ms` when it became ready."""

    attempt: Count
    lane: Count
    task: TaskName
    queue: QueueName
    spec: Raw
    parameters: Raw = EMPTY_OBJECT
    ready_ms: Count
    traceparent: str | None = None


class CancelJob(Assignment, frozen=True, kw_only=True, tag="job.cancel"):
    """Stop this run: its lease is void, and whatever it reports will be rejected."""

    reason: Text


class OrderWorker(Wire, frozen=True, tag_field="type", kw_only=True, tag="worker.order"):
    """Take no more jobs, take jobs again, or end as SIGTERM would have it."""

    what: Literal["quiet", "resume", "stop"]
    reason: Text


class ServeQueue(Wire, frozen=True, tag_field="type", kw_only=True, tag="worker.serve"):
    """Announce yourself to this lane, too: jobs of the queue wait there. Told again for as long as some come."""

    queue: QueueName
    lane: Lane


AnyAssignment = RunJob | CancelJob | OrderWorker | ServeQueue


class Timer(Wire, frozen=True):
    """A record of a delay topic: at `due_ms` (unix), report the job due if it still has this version."""

    job_id: JobId
    version: Version
    due_ms: Count
