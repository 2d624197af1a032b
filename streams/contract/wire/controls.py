"""Commands on queues, workers, limits and many jobs at once."""

from typing import Annotated, Any, ClassVar

from joblog.streams.contract.controls import FENCES_MAX, BulkAction, BulkOutcome
from joblog.streams.contract.fields import Capacity, Count, Key, Priority, Rate, Text, TimeoutSeconds
from joblog.streams.contract.relations import LimitKind, LimitScope
from joblog.streams.contract.wire.base import Instant, JobId, Outside, QueueName, WorkerId
from msgspec import Meta


class Control(Outside, frozen=True, kw_only=True):
    #: These commands name no job.
    job_id: ClassVar[None] = None
    by: Text | None = None
    reason: Text | None = None


class PauseQueue(Control, frozen=True, kw_only=True):
    type: ClassVar[str] = "queue.pause"
    queue: QueueName
    until: Instant | None = None


class DrainQueue(Control, frozen=True, kw_only=True):
    type: ClassVar[str] = "queue.drain"
    queue: QueueName
    until: Instant | None = None


class ResumeQueue(Control, frozen=True, kw_only=True):
    type: ClassVar[str] = "queue.resume"
    queue: QueueName


class QuietWorker(Control, frozen=True, kw_only=True):
    type: ClassVar[str] = "worker.quiet"
    worker: WorkerId


class ResumeWorker(Control, frozen=True, kw_only=True):
    type: ClassVar[str] = "worker.resume"
    worker: WorkerId


class StopWorker(Control, frozen=True, kw_only=True):
    type: ClassVar[str] = "worker.stop"
    worker: WorkerId


class SetLimit(Control, frozen=True, kw_only=True):
    type: ClassVar[str] = "limit.set"
    kind: LimitKind
    key: Key
    capacity: Capacity | None = None
    interval_s: TimeoutSeconds | None = None
    scope: LimitScope = LimitScope.KEY


Fence = Annotated[tuple[Count, ...], Meta(min_length=1, max_length=FENCES_MAX)]


class StartBulk(Control, frozen=True, kw_only=True):
    type: ClassVar[str] = "bulk.start"
    operation: JobId
    action: BulkAction
    filter: dict[str, Any] = {}
    fence: Fence
    matched: Count
    rate: Rate
    queue: QueueName | None = None
    priority: Priority | None = None


class AdvanceBulk(Control, frozen=True, kw_only=True):
    type: ClassVar[str] = "bulk.advance"
    operation: JobId
    before: Count
    sent: Count
    cursor: JobId | None = None
    outcome: BulkOutcome | None = None


class CancelBulk(Control, frozen=True, kw_only=True):
    type: ClassVar[str] = "bulk.cancel"
    operation: JobId


AnyControl = (
    PauseQueue
    | DrainQueue
    | ResumeQueue
    | QuietWorker
    | ResumeWorker
    | StopWorker
    | StartBulk
    | AdvanceBulk
    | CancelBulk
    | SetLimit
)
