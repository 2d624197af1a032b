"""The data of events, and the envelope of everything that is public."""

from typing import Any

from joblog.streams.contract.controls import BulkAction, BulkOutcome
from joblog.streams.contract.fields import Capacity, Count, Key, Priority, Rate, Share, Text, TimeoutSeconds, Version
from joblog.streams.contract.relations import LimitKind, LimitScope
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.wire.base import NO_RAW, Instant, JobId, NonNegative, QueueName, TaskName, Wire, WorkerId
from joblog.streams.contract.wire.controls import Fence
from joblog.streams.contract.wire.reports import JobException, Outcome
from msgspec import Raw


class JobEvent(Wire, frozen=True):
    """The data of every job event; which of the optional fields are set depends on the event's type.

    One struct for all types, because the elector writes and the projector reads three of these for each job; the
    models in events.py say which field belongs to which type, and a test checks every event against its model.
    """

    version: Version
    state: State
    attempt: Count
    queue: QueueName
    task: TaskName
    reason: Text | None = None
    spec: Raw | None = None
    due: str | None = None
    retry: Count = 0
    lost: Count = 0
    parent: JobId | None = None
    on: ContinueOn | None = None
    worker: WorkerId | None = None
    lease: Version | None = None
    result: Raw = NO_RAW
    result_omitted: Text | None = None
    # None, not 0, is the default that is left out: 0 is a legal duration.
    duration_ms: NonNegative | None = None
    latency_ms: NonNegative | None = None
    exception: JobException | None = None
    traversed: bool = False
    name: Key | None = None
    value: Raw = NO_RAW
    policy: Retry | None = None
    note: Text | None = None
    waits_for: Text | None = None
    priority: Priority | None = None
    progress: Share | None = None
    lines: tuple[Text, ...] = ()
    outcome: Outcome | None = None


class CommandRejected(Wire, frozen=True):
    code: Text
    reason: Text
    command: Text | None = None
    command_id: Text | None = None
    job_id: JobId | None = None
    position: Text | None = None
    existing: JobId | None = None


class WorkerEvent(Wire, frozen=True):
    worker: WorkerId
    queues: tuple[QueueName, ...]
    slots: Count
    tasks: tuple[TaskName, ...]
    host: Text
    pid: Count
    started_at: Instant
    quiet: bool = False
    by: Text | None = None
    reason: Text | None = None


class LimitChanged(Wire, frozen=True):
    kind: LimitKind
    key: Key
    capacity: Capacity | None = None
    interval_s: TimeoutSeconds | None = None
    scope: LimitScope = LimitScope.KEY
    by: Text | None = None
    reason: Text | None = None


class QueueEvent(Wire, frozen=True):
    """The data of all events of queues; the models in events.py say which field belongs to which type."""

    queue: QueueName
    by: Text | None = None
    reason: Text | None = None
    until: Instant | None = None
    drain: bool = False


class BulkStarted(Wire, frozen=True, kw_only=True):
    operation: JobId
    by: Text | None = None
    reason: Text | None = None
    action: BulkAction
    filter: dict[str, Any] = {}
    fence: Fence
    matched: Count
    rate: Rate
    queue: QueueName | None = None
    priority: Priority | None = None


class BulkAdvanced(Wire, frozen=True, kw_only=True):
    operation: JobId
    sent: Count
    cursor: JobId | None = None


class BulkEnded(Wire, frozen=True, kw_only=True):
    operation: JobId
    by: Text | None = None
    reason: Text | None = None
    outcome: BulkOutcome
    sent: Count


class ParentSought(Wire, frozen=True):
    parent: JobId
    question: Key
    until: Instant


class BatchEvent(Wire, frozen=True):
    """The data of every batch event."""

    version: Version
    state: State
    created_at: Instant
    total: Count
    created: Count
    succeeded: Count
    failed: Count
    deleted: Count
    cancelled: bool = False
    reason: Text | None = None
    description: Key | None = None
    batch: JobId | None = None
    parent: JobId | None = None
    on: ContinueOn | None = None


class CloudEvent(Wire, frozen=True):
    """The envelope, structured mode, its attributes in the order in which they are written."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    data: Any = None
