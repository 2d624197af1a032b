"""Commands on jobs: to create one, and to change one."""

from typing import Annotated, Any, ClassVar

from joblog.streams.contract.fields import Capacity, Count, Key, Priority, Text, TimeoutSeconds, Version
from joblog.streams.contract.relations import (
    LIMITS_MAX,
    PARENTS_MAX,
    LimitKind,
    Need,
    ParentKind,
    UniquePolicy,
    UniqueUntil,
)
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.wire.base import (
    EMPTY_ARRAY,
    EMPTY_OBJECT,
    Instant,
    JobId,
    Outside,
    QueueName,
    TaskName,
    Wire,
)
from msgspec import Meta, Raw


class Parent(Outside, frozen=True):
    job_id: JobId
    on: ContinueOn = ContinueOn.SUCCEEDED
    kind: ParentKind = ParentKind.JOB


class Parents(Outside, frozen=True):
    job_ids: Annotated[tuple[JobId, ...], Meta(min_length=1, max_length=PARENTS_MAX)]
    on: ContinueOn = ContinueOn.SUCCEEDED
    need: Need = Need.ALL


class Limit(Outside, frozen=True):
    kind: LimitKind
    key: Key
    capacity: Capacity = 1
    interval_s: TimeoutSeconds | None = None
    tenant: Key | None = None


class Unique(Outside, frozen=True):
    key: Key
    policy: UniquePolicy = UniquePolicy.REJECT
    until: UniqueUntil = UniqueUntil.END
    period_s: TimeoutSeconds | None = None
    wait_s: TimeoutSeconds | None = None


Limits = Annotated[tuple[Limit, ...], Meta(max_length=LIMITS_MAX)]


class CreateJob(Outside, frozen=True):
    type: ClassVar[str] = "job.create"
    task: TaskName
    args: Raw = EMPTY_ARRAY
    kwargs: Raw = EMPTY_OBJECT
    queue: QueueName = "default"
    job_id: JobId | None = None
    idempotency_key: Key | None = None
    priority: Priority = 0
    run_at: Instant | None = None
    parent: Parent | None = None
    retry: Retry | None = None
    timeout_s: TimeoutSeconds | None = None
    parameters: dict[Key, Raw] = {}
    parents: Parents | None = None
    limits: Limits = ()
    unique: Unique | None = None
    batch: JobId | None = None
    deadline: Instant | None = None
    expires_in_s: TimeoutSeconds | None = None


class Change(Outside, frozen=True, kw_only=True):
    job_id: JobId
    expected_state: State | None = None
    expected_version: Version | None = None
    reason: Text | None = None


class JobSpec(Wire, frozen=True):
    args: Raw = EMPTY_ARRAY
    kwargs: Raw = EMPTY_OBJECT
    priority: Priority = 0
    retry: Retry | None = None
    timeout_s: TimeoutSeconds | None = None
    parameters: Raw = EMPTY_OBJECT
    parent: Parent | None = None
    idempotency_key: Key | None = None
    parents: Parents | None = None
    limits: Limits = ()
    unique: Unique | None = None
    batch: JobId | None = None
    deadline: Instant | None = None
    expires_in_s: TimeoutSeconds | None = None


class Snapshot(Outside, frozen=True):
    version: Version
    state: State
    attempt: Count
    task: TaskName
    queue: QueueName
    created_at: Instant
    spec: JobSpec
    parameters: dict[Key, Raw] = {}
    priority: Priority | None = None


class DeleteJob(Change, frozen=True, kw_only=True):
    type: ClassVar[str] = "job.delete"
    snapshot: Snapshot | None = None


class RequeueJob(Change, frozen=True, kw_only=True):
    type: ClassVar[str] = "job.requeue"
    queue: QueueName | None = None
    snapshot: Snapshot | None = None


class RescheduleJob(Change, frozen=True, kw_only=True):
    type: ClassVar[str] = "job.reschedule"
    run_at: Instant
    snapshot: Snapshot | None = None


class SetParameter(Change, frozen=True, kw_only=True):
    type: ClassVar[str] = "job.set_parameter"
    name: Key
    value: Any


class SetPriority(Change, frozen=True, kw_only=True):
    type: ClassVar[str] = "job.set_priority"
    priority: Priority


class MoveJob(Change, frozen=True, kw_only=True):
    type: ClassVar[str] = "job.move"
    queue: QueueName


#: Commands on a job that are decided alike.
AnyChange = DeleteJob | RequeueJob | RescheduleJob | SetParameter | SetPriority | MoveJob
