"""Commands: what anyone may ask Joblog to do. Values of the topic `commands`, as CloudEvents 1.0."""

from datetime import timedelta
from typing import Annotated, Final, Literal, Self

from joblog.streams.contract.controls import AnyControl
from joblog.streams.contract.fields import (
    Capacity,
    Count,
    Instant,
    JobId,
    Json,
    Key,
    Lane,
    Message,
    Priority,
    QueueName,
    StrictMessage,
    TaskName,
    Text,
    TimeoutSeconds,
    Version,
)
from joblog.streams.contract.ids import LANES_MAX
from joblog.streams.contract.relations import (
    LIMITS_MAX,
    PARENTS_MAX,
    LimitKind,
    Need,
    ParentKind,
    UniquePolicy,
    UniqueUntil,
    limit_problem,
    unique_problem,
)
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import ContinueOn, State
from pydantic import Field, model_validator

#: Versions and attempts continue from those of a snapshot, and must not overflow their columns in Postgres.
REVIVED_MAX: Final = 1_000_000_000


def _seconds(time: timedelta | float) -> float:
    return time / timedelta(seconds=1) if isinstance(time, timedelta) else time


class Parent(StrictMessage):
    """The job or batch that a continuation waits for, and how that one has to end."""

    job_id: JobId
    on: ContinueOn = ContinueOn.SUCCEEDED
    kind: ParentKind = ParentKind.JOB


class Parents(StrictMessage):
    """The jobs that a continuation waits for: all of them, or any one; and how they have to end."""

    job_ids: Annotated[tuple[JobId, ...], Field(min_length=1, max_length=PARENTS_MAX)]
    on: ContinueOn = ContinueOn.SUCCEEDED
    need: Need = Need.ALL


class Limit(StrictMessage):
    """A limit that a job shares with all others that name the same kind and key.

    - capacity: how many may run at a time, or start in `interval_s` seconds; as the last created job says.
    - tenant: those of different tenants that wait for the same limit take turns.
    """

    kind: LimitKind
    key: Key
    capacity: Capacity = 1
    interval_s: TimeoutSeconds | None = None
    tenant: Key | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if problem := limit_problem(self.kind, self.capacity, self.interval_s):
            raise ValueError(problem)
        return self


class Unique(StrictMessage):
    """A key of which one job of a queue lives at a time.

    - policy: what becomes of another one. until: how long a job has the key; period_s: of `period`, seconds.
    - wait_s: of `debounce`: how long after the last creation the job runs, seconds.

    A job ends, and lets go of its key, when it is Succeeded, Deleted or Failed; one that waits for a retry has it.
    """

    key: Key
    policy: UniquePolicy = UniquePolicy.REJECT
    until: UniqueUntil = UniqueUntil.END
    period_s: TimeoutSeconds | None = None
    wait_s: TimeoutSeconds | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if problem := unique_problem(self.policy, self.until, self.period_s, self.wait_s):
            raise ValueError(problem)
        return self

    @classmethod
    def debounced(cls, key: str, wait: timedelta | float, until: UniqueUntil = UniqueUntil.END) -> Self:
        """The job runs so long (a timedelta or seconds) after the last one was created."""
        return cls(key=key, policy=UniquePolicy.DEBOUNCE, until=until, wait_s=_seconds(wait))

    @classmethod
    def once_in(cls, period: timedelta | float, key: str, policy: UniquePolicy = UniquePolicy.REJECT) -> Self:
        """One job is created in a period (a timedelta or seconds), however early it ends."""
        return cls(key=key, policy=policy, until=UniqueUntil.PERIOD, period_s=_seconds(period))


class CreateJob(StrictMessage):
    """Create a job: Enqueued, Scheduled when `run_at` lies ahead, Awaiting when it has a `parent`.

    - deadline: it does not start, and a run of it does not last, beyond this instant.
    - expires_in_s: it is deleted if it has not started so many seconds after its creation.
    - batch: the batch that it belongs to.

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
    parents: Parents | None = None
    limits: Annotated[tuple[Limit, ...], Field(max_length=LIMITS_MAX)] = ()
    unique: Unique | None = None
    batch: JobId | None = None
    deadline: Instant | None = None
    expires_in_s: TimeoutSeconds | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.parent is not None and self.parents is not None:
            raise ValueError("parents has no effect with parent: name all of them in parents")
        return self


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
    parents: Parents | None = None
    limits: Annotated[tuple[Limit, ...], Field(max_length=LIMITS_MAX)] = ()
    unique: Unique | None = None
    batch: JobId | None = None
    deadline: Instant | None = None
    expires_in_s: TimeoutSeconds | None = None


class Snapshot(StrictMessage):
    """What a projection knows of an ended job: enough to revive it when its elector no longer remembers it.

    `priority`: as it was changed since its creation, if it was.
    """

    version: Annotated[Version, Field(le=REVIVED_MAX)]
    state: State
    attempt: Annotated[Count, Field(le=REVIVED_MAX)]
    task: TaskName
    queue: QueueName
    created_at: Instant
    spec: JobSpec
    parameters: dict[Key, Json] = {}
    priority: Priority | None = None


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


#: The lanes in which jobs are added to a batch.
Lanes = Annotated[tuple[Lane, ...], Field(max_length=LANES_MAX)]


class CreateBatch(StrictMessage):
    """Create a batch, whose jobs are created in the same transaction, each with the batch's id as its `batch`.

    - lanes: those in which its first jobs are created; each gets a `batch.mark` behind them. jobs: how many they are.
    - parent: what the batch waits for. Its jobs, and inner batches, wait with it if the batch is their `parent`.
    - batch: the outer batch, if it is part of one.
    """

    type: Literal["batch.create"] = "batch.create"
    batch_id: JobId
    description: Key | None = None
    lanes: Lanes = ()
    jobs: Count = 0
    parent: Parent | None = None
    batch: JobId | None = None


class AttachToBatch(StrictMessage):
    """Add jobs to a batch, even to one that has ended; `addition` is an id of its own, to tell a repetition by."""

    type: Literal["batch.attach"] = "batch.attach"
    batch_id: JobId
    addition: JobId
    lanes: Lanes = ()
    jobs: Count = 0


class MarkBatch(StrictMessage):
    """All that a create or attach command adds to the batch in one lane stands before this in `commands`.

    `mark_id` names the lane, and is always the same for that lane of that addition.
    """

    type: Literal["batch.mark"] = "batch.mark"
    batch_id: JobId
    mark_id: JobId


class CancelBatch(StrictMessage):
    """Delete the jobs of a batch that have not started, and those to come; with `running`, the running ones, too."""

    type: Literal["batch.cancel"] = "batch.cancel"
    batch_id: JobId
    running: bool = False
    reason: Text | None = None


AnyBatchCommand = CreateBatch | AttachToBatch | MarkBatch | CancelBatch


class SetPriority(Change):
    """Change the priority of a job that has not ended, or Failed; its state stays."""

    type: Literal["job.set_priority"] = "job.set_priority"
    priority: Priority


class MoveJob(Change):
    """Move a job to another queue of the lane that its id names; its state stays. Not while it is Processing."""

    type: Literal["job.move"] = "job.move"
    queue: QueueName


Command = Annotated[
    CreateJob
    | DeleteJob
    | RequeueJob
    | RescheduleJob
    | SetParameter
    | SetPriority
    | MoveJob
    | AnyControl
    | AnyBatchCommand,
    Field(discriminator="type"),
]
