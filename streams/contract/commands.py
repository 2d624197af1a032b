"""Commands: what anyone may ask Joblog to do. Values of the topic `commands`, as CloudEvents 1.0."""

from typing import Annotated, Final, Literal

from joblog.streams.contract.fields import (
    Count,
    Instant,
    JobId,
    Json,
    Key,
    Message,
    Priority,
    QueueName,
    StrictMessage,
    TaskName,
    Text,
    TimeoutSeconds,
    Version,
)
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import ContinueOn, State
from pydantic import Field

#: Versions and attempts continue from those of a snapshot, and must not overflow their columns in Postgres.
REVIVED_MAX: Final = 1_000_000_000


class Parent(StrictMessage):
    """The job that a continuation waits for, and how that one has to end."""

    job_id: JobId
    on: ContinueOn = ContinueOn.SUCCEEDED


class CreateJob(StrictMessage):
    """Create a job: Enqueued, Scheduled when `run_at` lies ahead, Awaiting when it has a `parent`.

    Without a `job_id` the job's id is made from queue and `idempotency_key`, or else from the CloudEvent's
    `source` and `id`, so that the same event sent twice is the same job.
    """

    type: Literal["job.create"] = "job.create"
    task: TaskName
    args: tuple[Json, ...] = ()
    kwargs: dict[str, Json] = {}
    queue: QueueName = "default"
    job_id: JobId | None = None
    idempotency_key: Key | None = None
    priority: Priority = 0
    run_at: Instant | None = None
    parent: Parent | None = None
    retry: RetryPolicy | None = None
    timeout_s: TimeoutSeconds | None = None
    parameters: dict[Key, Json] = {}


class Change(StrictMessage):
    """What commands on an existing job share.

    `expected_state` and `expected_version` are optimistic concurrency: when the job is elsewhere, the command
    is rejected and nothing happens. `reason` goes into the job's history.
    """

    job_id: JobId
    expected_state: State | None = None
    expected_version: Version | None = None
    reason: Text | None = None


class JobSpec(Message):
    """What a job was created with; part of its first event, and never changed."""

    args: tuple[Json, ...] = ()
    kwargs: dict[str, Json] = {}
    priority: Priority = 0
    retry: RetryPolicy | None = None
    timeout_s: TimeoutSeconds | None = None
    parameters: dict[Key, Json] = {}
    parent: Parent | None = None
    idempotency_key: Key | None = None


class Snapshot(StrictMessage):
    """What a projection knows of an ended job: enough to revive it when its elector no longer remembers it."""

    version: Annotated[Version, Field(le=REVIVED_MAX)]
    state: State
    attempt: Annotated[Count, Field(le=REVIVED_MAX)]
    task: TaskName
    queue: QueueName
    created_at: Instant
    spec: JobSpec
    parameters: dict[Key, Json] = {}


class DeleteJob(Change):
    """Delete a job wherever it is; a running one is cancelled. A Failed one may need a snapshot."""

    type: Literal["job.delete"] = "job.delete"
    snapshot: Snapshot | None = None


class RequeueJob(Change):
    """Put a job into its queue now, from any state; retries begin anew. An ended one may need a snapshot."""

    type: Literal["job.requeue"] = "job.requeue"
    queue: QueueName | None = None
    snapshot: Snapshot | None = None


class RescheduleJob(Change):
    """Move a job to another instant, from any state."""

    type: Literal["job.reschedule"] = "job.reschedule"
    run_at: Instant
    snapshot: Snapshot | None = None


class SetParameter(Change):
    """Set one of a job's parameters to a JSON value."""

    type: Literal["job.set_parameter"] = "job.set_parameter"
    name: Key
    value: Json


Command = Annotated[CreateJob | DeleteJob | RequeueJob | RescheduleJob | SetParameter, Field(discriminator="type")]
