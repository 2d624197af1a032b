"""All messages as msgspec structs, the form in which electors, workers and projectors compute with them.

The pydantic models of commands.py and events.py define the public messages. These structs are their twins for the
path that every job takes: decoding one costs 0.6 µs where the model costs 4.8 µs. What a struct accepts, its model
accepts too, with the same meaning (tests/contract/test_twins.py); what a struct refuses is read again by the model,
which accepts more spellings and names what is wrong. Reports, assignments and timers are private, and exist as
structs only.
"""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from joblog.streams.contract.controls import FENCES_MAX, BulkAction, BulkOutcome
from joblog.streams.contract.fields import (
    LINES_MAX,
    Capacity,
    Count,
    Key,
    Lane,
    Priority,
    Rate,
    Share,
    Text,
    TimeoutSeconds,
    Version,
)
from joblog.streams.contract.ids import LANES_MAX
from joblog.streams.contract.relations import (
    LIMITS_MAX,
    PARENTS_MAX,
    LimitKind,
    LimitScope,
    Need,
    ParentKind,
    UniquePolicy,
    UniqueUntil,
)
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import ContinueOn, State
from msgspec import Meta, Raw, Struct

Instant = Annotated[datetime, Meta(tz=True)]
NonNegative = Annotated[float, Meta(ge=0)]
#: As many as their column in Postgres holds.
Slots = Annotated[int, Meta(ge=0, le=2**31 - 1)]

#: Names have patterns, and matching one costs more than decoding the whole message: codec.py does it for commands and
#: for those reports whose names are written again, once for each name it sees.
JobId: TypeAlias = str
QueueName: TypeAlias = str
TaskName: TypeAlias = str
WorkerId: TypeAlias = str

NO_RAW = Raw(b"null")
EMPTY_ARRAY = Raw(b"[]")
EMPTY_OBJECT = Raw(b"{}")


class Wire(Struct, frozen=True, omit_defaults=True, gc=False):
    """The base of all structs: frozen, written without defaults, not tracked by the garbage collector."""


class Outside(Wire, frozen=True, forbid_unknown_fields=True):
    """A message from outside, or a part of one."""


# --- commands ---


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


#: What a run logged, in one report.
Lines = Annotated[tuple[Text, ...], Meta(max_length=LINES_MAX)]
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


Lanes = Annotated[tuple[Lane, ...], Meta(max_length=LANES_MAX)]


class BatchCommand(Outside, frozen=True, kw_only=True):
    batch_id: JobId

    @property
    def job_id(self) -> str:
        """The id that names its lane."""
        return self.batch_id


class CreateBatch(BatchCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "batch.create"
    description: Key | None = None
    lanes: Lanes = ()
    jobs: Count = 0
    parent: Parent | None = None
    batch: JobId | None = None


class AttachToBatch(BatchCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "batch.attach"
    addition: JobId
    lanes: Lanes = ()
    jobs: Count = 0


class MarkBatch(BatchCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "batch.mark"
    mark_id: JobId

    @property
    def job_id(self) -> str:
        return self.mark_id


class CancelBatch(BatchCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "batch.cancel"
    running: bool = False
    reason: Text | None = None


class SetPriority(Change, frozen=True, kw_only=True):
    type: ClassVar[str] = "job.set_priority"
    priority: Priority


class MoveJob(Change, frozen=True, kw_only=True):
    type: ClassVar[str] = "job.move"
    queue: QueueName


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


#: Commands on a job that are decided alike.
AnyChange = DeleteJob | RequeueJob | RescheduleJob | SetParameter | SetPriority | MoveJob
AnyControl = (
    PauseQueue | DrainQueue | ResumeQueue | QuietWorker | StopWorker | StartBulk | AdvanceBulk | CancelBulk | SetLimit
)
AnyBatchCommand = CreateBatch | AttachToBatch | MarkBatch | CancelBatch
Command = CreateJob | AnyChange | AnyControl | AnyBatchCommand


class Received(Wire, frozen=True):
    """A command as it arrived: `id`, `source` and `traceparent` of its CloudEvent, and its data."""

    id: str
    source: str
    command: Command
    traceparent: str | None = None


# --- reports ---


class JobException(Wire, frozen=True):
    type: Text
    message: str = ""
    details: str = ""
    types: tuple[Text, ...] = ()


class Report(Wire, frozen=True, tag_field="type", kw_only=True):
    """A message of a worker, the delays process or another lane to an elector: a JSON object with its `type`."""


class RunReport(Report, frozen=True, kw_only=True):
    """A worker's report on a run; one with an old lease is rejected."""

    job_id: JobId
    lease: Version
    worker: WorkerId


class RunSucceeded(RunReport, frozen=True, kw_only=True, tag="run.succeeded"):
    """The run ended well. `started_ms` is the worker's clock at its start, unix milliseconds, for the latency."""

    result: Raw = NO_RAW
    result_omitted: Text | None = None
    duration_ms: NonNegative
    started_ms: Count


class RunFailed(RunReport, frozen=True, kw_only=True, tag="run.failed"):
    """The run raised, timed out, or its arguments did not fit. `retry` is the task's own policy, if it has one."""

    exception: JobException
    duration_ms: NonNegative
    started_ms: Count
    retry: Retry | None = None


class RunReleased(RunReport, frozen=True, kw_only=True, tag="run.released"):
    """The worker gives the job back without an outcome; no retry is spent.

    `started` tells whether the run had begun: then its attempt number is not given again.
    """

    reason: Text
    started: bool = False


class RunProgressed(RunReport, frozen=True, kw_only=True, tag="run.progressed"):
    """What the run has said of itself since the last such report: `progress` with its `text`, and log `lines`."""

    progress: Share | None = None
    text: Text | None = None
    lines: Lines = ()


class JobDue(Report, frozen=True, kw_only=True, tag="job.due"):
    """The time for which a job was scheduled has come; stale when the job has another version by now."""

    job_id: JobId
    version: Version


class WorkerAnnounced(Report, frozen=True, kw_only=True, tag="worker.announced"):
    """A worker is alive and offers its slots to one lane; sent every few seconds, and whenever it changes.

    - partition: the partition of `assignments` that it reads.
    - queues: those it works in this lane, in its order of preference; all_queues: all it works.
    - slots: jobs it will hold of this lane at once, prefetched ones included.
    - policies: the retry policies of those tasks that have one of their own.
    - home: whether this lane writes the worker's events.
    - quiet: it was told to take no more jobs.
    """

    worker: WorkerId
    partition: Count
    queues: tuple[QueueName, ...]
    all_queues: tuple[QueueName, ...]
    slots: Slots
    all_slots: Slots
    tasks: tuple[TaskName, ...]
    host: Text = ""
    pid: Count = 0
    started_at: Instant
    home: bool = False
    policies: dict[TaskName, Retry] = {}
    quiet: bool = False


class WorkerStopping(Report, frozen=True, kw_only=True, tag="worker.stopping"):
    """A worker leaves a lane, after it finished or gave back what it held."""

    worker: WorkerId


class ContinuationAdded(Report, frozen=True, kw_only=True, tag="continuation.added"):
    """From the lane of a continuation, a job or a batch, to that of its parent: report when `job_id` so ends."""

    job_id: JobId
    child: JobId
    on: ContinueOn


class Outcome(Wire, frozen=True):
    """How a parent ended (None: nobody knows), what it has for continuations, and why some of that is left out."""

    state: State | None
    result: Raw = NO_RAW
    exception: JobException | None = None
    omitted: Text | None = None


class ContinuationUnmet(Report, frozen=True, kw_only=True, tag="continuation.unmet"):
    """From the lane of a continuation to that of its parent: the end of `job_id` was not what `child` waits for."""

    job_id: JobId
    child: JobId


class ParentRequeued(Report, frozen=True, kw_only=True, tag="parent.requeued"):
    """From the lane of a parent to that of a continuation whose condition its end had not met: wait again."""

    job_id: JobId
    parent: JobId


class ParentEnded(Report, frozen=True, kw_only=True, tag="parent.ended"):
    """From the lane of a parent to that of its continuation: run, or be deleted. The rest is as in Outcome."""

    job_id: JobId
    parent: JobId
    state: State | None
    run: bool
    reason: Text
    result: Raw = NO_RAW
    exception: JobException | None = None
    omitted: Text | None = None


class LimitReport(Report, frozen=True, kw_only=True):
    """What the lane of a job and the owner of a limit tell each other (streams/lane/limits)."""

    job_id: JobId


class LimitAsked(LimitReport, frozen=True, kw_only=True, tag="limit.asked"):
    """To the owner: the job waits for the limit. `epoch` and `ask` are repeated in the answer."""

    limit: Limit
    epoch: Count
    ask: Count
    priority: Priority
    created_ms: Count


class LimitStarted(LimitReport, frozen=True, kw_only=True, tag="limit.started"):
    """To the owner: the job started with its permit, by an event of this time (unix milliseconds)."""

    limit: Limit
    at_ms: Count


class LimitReleased(LimitReport, frozen=True, kw_only=True, tag="limit.released"):
    """To the owner: the job does not wait any more, does not use its permit, or has ended."""

    kind: LimitKind
    key: Key


class LimitGranted(LimitReport, frozen=True, kw_only=True, tag="limit.granted"):
    """From the owner: the job may start, by an event that is not earlier than `from_ms`."""

    kind: LimitKind
    key: Key
    epoch: Count
    ask: Count
    from_ms: Count


class LimitWaits(LimitReport, frozen=True, kw_only=True, tag="limit.waits"):
    """From the owner: the job has to wait; `waits_for` says for what, in words."""

    kind: LimitKind
    key: Key
    epoch: Count
    ask: Count
    waits_for: Text


class LimitsForgotten(Report, frozen=True, kw_only=True, tag="limits.forgotten"):
    """To an owner: what this lane asked for, and has not started, is void.

    With `rebuild` it answers that LimitsRebuilt, after one LimitStarted for each job that runs.
    """

    lane: Count
    rebuild: Count = 0


class LimitsRebuilt(Report, frozen=True, kw_only=True, tag="limits.rebuilt"):
    """From an owner that was rebuilt: say which jobs run, and that what you asked for is void; and ask again."""

    lane: Count
    rebuild: Count


class BatchAwaited(Report, frozen=True, kw_only=True, tag="batch.awaited"):
    """The same, where the parent `job_id` is a batch."""

    job_id: JobId
    child: JobId
    on: ContinueOn


class BatchCounted(Report, frozen=True, kw_only=True, tag="batch.counted"):
    """From a lane to that of a batch: all that the batch's jobs have come to there so far.

    - number: counts these reports of a lane from 1. marks: how many additions are complete in it.
    - asks: jobs wait there for the batch to start.
    """

    job_id: JobId
    lane: Lane
    number: Version
    created: Count
    succeeded: Count
    failed: Count
    deleted: Count
    marks: Count
    asks: bool = False


class BatchTold(Report, frozen=True, kw_only=True, tag="batch.told"):
    """From the lane of a batch to those where its jobs are: it has started, is cancelled, or is forgotten."""

    job_id: JobId
    what: Literal["started", "cancelled", "forgotten"]
    running: bool = False
    reason: Text = ""


AnyReport = (
    RunSucceeded
    | RunFailed
    | RunReleased
    | RunProgressed
    | JobDue
    | WorkerAnnounced
    | WorkerStopping
    | ContinuationAdded
    | ParentEnded
    | ContinuationUnmet
    | ParentRequeued
    | LimitAsked
    | LimitStarted
    | LimitReleased
    | LimitGranted
    | LimitWaits
    | LimitsForgotten
    | LimitsRebuilt
    | BatchAwaited
    | BatchCounted
    | BatchTold
)

# --- events ---


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


# --- assignments and timers ---


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
