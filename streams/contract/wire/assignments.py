"""Assignments to workers, and timers. Private."""

from joblog.streams.contract.fields import Count, Text, Version
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
    """Take no more jobs, and if `stop` is set, end as SIGTERM would have it."""

    stop: bool
    reason: Text


AnyAssignment = RunJob | CancelJob | OrderWorker


class Timer(Wire, frozen=True):
    """A record of a delay topic: at `due_ms` (unix), report the job due if it still has this version."""

    job_id: JobId
    version: Version
    due_ms: Count
