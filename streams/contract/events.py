"""Events: every fact that a job or worker leaves in the log, and nothing else.

Values of the topic `events`, as CloudEvents 1.0 whose `type` is the class's wire name, whose `subject` is the
job (or worker) and whose `data` are the fields below.
"""

from typing import Annotated, Literal, Self

from joblog.streams.contract.commands import JobSpec
from joblog.streams.contract.controls import FENCES_MAX, BulkAction, BulkOutcome
from joblog.streams.contract.fields import (
    Capacity,
    Count,
    Instant,
    JobId,
    Json,
    Key,
    Message,
    Priority,
    QueueName,
    Rate,
    Share,
    TaskName,
    Text,
    TimeoutSeconds,
    Version,
    WorkerId,
)
from joblog.streams.contract.relations import LimitKind, LimitScope
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import ContinueOn, State
from pydantic import Field, model_validator


class JobException(Message):
    """Why a run failed.

    - type: the exception's type with its module.
    - types: the type and its bases, most special first.
    - message: its text; details: the formatted traceback, its last lines when it was too long.
    """

    type: Text
    message: str = ""
    details: str = ""
    types: tuple[Text, ...] = ()


class JobEvent(Message):
    """What all events of a job carry.

    - version: counts a job's events from 1 without gaps.
    - state: the state the job is in after this event.
    - attempt: runs started so far that count (a released run does not).
    """

    version: Version
    state: State
    attempt: Count
    queue: QueueName
    task: TaskName
    reason: Text | None = None


class FirstEvent(JobEvent):
    """An event that may be a job's first one, and then carries what it was created with."""

    spec: JobSpec | None = None


class Outcome(Message):
    """How a parent ended, as its continuation was told, and can read in its run.

    - state: None if nobody knows it: it was never created, or ended too long ago. No final one if it was requeued.
    - omitted: why result or exception are left out although there may be some.
    """

    state: State | None
    result: Json = None
    exception: JobException | None = None
    omitted: Text | None = None


class JobEnqueued(FirstEvent):
    """The job is ready for a worker.

    `retry` counts the automatic retries spent so far, `lost` the runs whose worker was lost; both since the
    job's creation or its last explicit requeue. `policy` is the task's own retry policy, if the run of a lost worker
    was repeated by it. Of a continuation, `parent` has ended with `outcome`.
    """

    type: Literal["job.enqueued"] = "job.enqueued"
    state: Literal[State.ENQUEUED] = State.ENQUEUED
    retry: Count = 0
    lost: Count = 0
    policy: RetryPolicy | None = None
    parent: JobId | None = None
    outcome: Outcome | None = None


class JobScheduled(FirstEvent):
    """The job waits for an instant, `due`; `retry` counts the automatic retries spent, this one included.

    Of a continuation, `parent` has ended with `outcome`.
    """

    type: Literal["job.scheduled"] = "job.scheduled"
    state: Literal[State.SCHEDULED] = State.SCHEDULED
    due: Instant
    retry: Count = 0
    parent: JobId | None = None
    outcome: Outcome | None = None


class JobAwaiting(FirstEvent):
    """The job waits for its parent to end, and after that until `due`, if that still lies ahead.

    Without `parent` and `on` it waits for several, which its spec names. One that was deleted waits again when its
    parent is requeued; of one with several, `parent` is that one, and `outcome` says that it has not ended.
    """

    type: Literal["job.awaiting"] = "job.awaiting"
    state: Literal[State.AWAITING] = State.AWAITING
    parent: JobId | None = None
    on: ContinueOn | None = None
    due: Instant | None = None
    outcome: Outcome | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.parent is None) is not (self.on is None):
            raise ValueError("parent and on: both or neither")
        return self


class JobProcessing(JobEvent):
    """The job was assigned to a worker; `lease` fences whatever an earlier worker may still report."""

    type: Literal["job.processing"] = "job.processing"
    state: Literal[State.PROCESSING] = State.PROCESSING
    worker: WorkerId
    lease: Version


class JobSucceeded(JobEvent):
    """The run ended well.

    - duration_ms: from start to end of the run, by the worker's monotonic clock.
    - latency_ms: from the job's (last) becoming ready to the run's start.
    - result_omitted: why there is no result although the task returned one.
    """

    type: Literal["job.succeeded"] = "job.succeeded"
    state: Literal[State.SUCCEEDED] = State.SUCCEEDED
    worker: WorkerId
    lease: Version
    result: Json = None
    result_omitted: Text | None = None
    duration_ms: float = Field(ge=0)
    latency_ms: float = Field(ge=0)


class JobFailed(FirstEvent):
    """A run failed.

    - traversed: a filter elected another state after it: the next event of the job.
    - policy: the task's own retry policy, if it has one: it decides for jobs that bring none.
    """

    type: Literal["job.failed"] = "job.failed"
    state: Literal[State.FAILED] = State.FAILED
    exception: JobException
    worker: WorkerId | None = None
    lease: Version | None = None
    duration_ms: float = Field(default=0, ge=0)
    latency_ms: float = Field(default=0, ge=0)
    traversed: bool = False
    policy: RetryPolicy | None = None


class JobDeleted(FirstEvent):
    """The job will not run (again). Of a continuation, `parent` is the one whose end did not meet the condition."""

    type: Literal["job.deleted"] = "job.deleted"
    state: Literal[State.DELETED] = State.DELETED
    parent: JobId | None = None


class JobParameterSet(JobEvent):
    """One of the job's parameters was set; its state stays."""

    type: Literal["job.parameter_set"] = "job.parameter_set"
    name: Key
    value: Json = None


class JobHeld(JobEvent):
    """A worker is free, but the job has to wait; its state stays. `waits_for` says for what, in words."""

    type: Literal["job.held"] = "job.held"
    note: Literal["held"] = "held"
    waits_for: Text


class JobPrioritySet(JobEvent):
    """The priority of the job was changed; its state stays."""

    type: Literal["job.priority_set"] = "job.priority_set"
    note: Literal["priority_set"] = "priority_set"
    priority: Priority


class JobMoved(JobEvent):
    """The job was moved to another queue, `queue`; its state stays."""

    type: Literal["job.moved"] = "job.moved"
    note: Literal["moved"] = "moved"


class JobProgressed(JobEvent):
    """What a run said of itself; the job's state stays.

    - progress: how much of its work is done, 0 to 1; None if that was not said.
    - lines: what it logged since the last such event. reason: what it said of its progress.
    """

    type: Literal["job.progressed"] = "job.progressed"
    note: Literal["progressed"] = "progressed"
    progress: Share | None = None
    lines: tuple[Text, ...] = ()


class JobParentEnded(JobEvent):
    """One of several parents ended; the job's state stays, until its condition is met, or cannot be met any more.

    An `outcome` that is no end says that the parent was requeued.
    """

    type: Literal["job.parent_ended"] = "job.parent_ended"
    note: Literal["parent_ended"] = "parent_ended"
    parent: JobId
    outcome: Outcome


class CommandRejected(Message):
    """A command that could not be done, and why.

    - code: one word for metrics and programs, such as `unknown_job`, `wrong_state`, `duplicate`, `invalid`.
    - command: the command's type as it came; command_id its CloudEvent id; both None if unreadable.
    - position: where it lies in the log, `topic/partition@offset`.
    - existing: the job that is there in place of the one that was to be created (codes `existing`, `not_unique`).
    """

    type: Literal["command.rejected"] = "command.rejected"
    code: Text
    reason: Text
    command: Text | None = None
    command_id: Text | None = None
    job_id: JobId | None = None
    position: Text | None = None
    existing: JobId | None = None


class WorkerEvent(Message):
    """What all events of a worker carry; they are written by the elector of the worker's home lane."""

    worker: WorkerId
    queues: tuple[QueueName, ...] = ()
    slots: Count = 0
    tasks: tuple[TaskName, ...] = ()
    host: Text = ""
    pid: Count = 0
    started_at: Instant
    quiet: bool = False


class WorkerStarted(WorkerEvent):
    """A worker announced itself, or announced other queues, slots or tasks than before."""

    type: Literal["worker.started"] = "worker.started"


class WorkerAlive(WorkerEvent):
    """A worker renews its lease; written once a minute."""

    type: Literal["worker.alive"] = "worker.alive"


class WorkerStopped(WorkerEvent):
    """A worker stopped in order."""

    type: Literal["worker.stopped"] = "worker.stopped"


class WorkerLost(WorkerEvent):
    """A worker did not renew its lease in time; its jobs are elected again."""

    type: Literal["worker.lost"] = "worker.lost"


class WorkerOrdered(WorkerEvent):
    """What events of an order to a worker say besides: who gave it, and why."""

    by: Text | None = None
    reason: Text | None = None


class WorkerQuieted(WorkerOrdered):
    """A worker was told to take no more jobs."""

    type: Literal["worker.quieted"] = "worker.quieted"


class WorkerResumed(WorkerOrdered):
    """A worker was told to take jobs again."""

    type: Literal["worker.resumed"] = "worker.resumed"


class WorkerStopOrdered(WorkerOrdered):
    """A worker was told to stop in order; `worker.stopped` follows."""

    type: Literal["worker.stop_ordered"] = "worker.stop_ordered"


class LimitChanged(Message):
    """A limit has this capacity, and interval, from now on, whatever jobs say; without a capacity, as jobs say."""

    type: Literal["limit.changed"] = "limit.changed"
    kind: LimitKind
    key: Key
    capacity: Capacity | None = None
    interval_s: TimeoutSeconds | None = None
    scope: LimitScope = LimitScope.KEY
    by: Text | None = None
    reason: Text | None = None


class ParentSought(Message):
    """Jobs wait for a job of which its lane knows nothing; a projector that has its row tells the lane how it ended.

    - question: what the answer has to repeat. until: when the lane gives the parent up.
    """

    type: Literal["parent.sought"] = "parent.sought"
    parent: JobId
    question: Key
    until: Instant


class QueueEvent(Message):
    """What all events of a queue carry; each lane in which it lives writes its own."""

    queue: QueueName
    by: Text | None = None
    reason: Text | None = None


class QueuePaused(QueueEvent):
    """No more jobs of the queue start in this lane, for good or until an instant; `drain`: `queue.drained` comes."""

    type: Literal["queue.paused"] = "queue.paused"
    until: Instant | None = None
    drain: bool = False


class QueueDrained(QueueEvent):
    """The queue is paused, and none of its jobs runs in this lane any more."""

    type: Literal["queue.drained"] = "queue.drained"


class QueueResumed(QueueEvent):
    """Jobs of the queue start again in this lane: by a command, or because the instant has come."""

    type: Literal["queue.resumed"] = "queue.resumed"


class BulkStarted(Message):
    """A bulk operation begins; see the command `bulk.start`."""

    type: Literal["bulk.started"] = "bulk.started"
    operation: JobId
    by: Text | None = None
    reason: Text | None = None
    action: BulkAction
    filter: dict[str, Json] = {}
    fence: Annotated[tuple[Count, ...], Field(min_length=1, max_length=FENCES_MAX)]
    matched: Count
    rate: Rate
    queue: QueueName | None = None
    priority: Priority | None = None


class BulkAdvanced(Message):
    """So many commands were sent, the last one for the job `cursor`."""

    type: Literal["bulk.advanced"] = "bulk.advanced"
    operation: JobId
    sent: Count
    cursor: JobId | None = None


class BulkEnded(Message):
    """A bulk operation ended, after so many commands; `by` and `reason` are set if that was by a command."""

    type: Literal["bulk.ended"] = "bulk.ended"
    operation: JobId
    by: Text | None = None
    reason: Text | None = None
    outcome: BulkOutcome
    sent: Count


class BatchEvent(Message):
    """What all events of a batch carry: all of it, as it is after the event; their subject is the batch's id.

    - version: counts a batch's events from 1 without gaps.
    - state: Awaiting until what it waits for has ended, Processing until all its jobs and inner batches have, then
      Succeeded if all of them succeeded, Failed if one failed, else Deleted.
    - total: how many jobs and inner batches were to be added; created: how many were; and how they have ended.
    - batch: the outer batch. parent, on: what it waits, or waited, for.
    """

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


class BatchCreated(BatchEvent):
    """A batch was created."""

    type: Literal["batch.created"] = "batch.created"


class BatchStarted(BatchEvent):
    """What the batch waited for has ended, or it goes on: jobs were added, or requeued."""

    type: Literal["batch.started"] = "batch.started"


class BatchProgressed(BatchEvent):
    """Jobs of the batch were created or ended, at most once a second; or more are to be added to it."""

    type: Literal["batch.progressed"] = "batch.progressed"


class BatchSucceeded(BatchEvent):
    """All jobs and inner batches succeeded."""

    type: Literal["batch.succeeded"] = "batch.succeeded"
    state: Literal[State.SUCCEEDED] = State.SUCCEEDED


class BatchFailed(BatchEvent):
    """All jobs and inner batches have ended, and some failed: they may be requeued."""

    type: Literal["batch.failed"] = "batch.failed"
    state: Literal[State.FAILED] = State.FAILED


class BatchDeleted(BatchEvent):
    """All jobs and inner batches have ended, none failed, and some were deleted or never came to be."""

    type: Literal["batch.deleted"] = "batch.deleted"
    state: Literal[State.DELETED] = State.DELETED


class BatchCancelled(BatchEvent):
    """The batch was cancelled: its jobs are deleted before they start."""

    type: Literal["batch.cancelled"] = "batch.cancelled"
    cancelled: Literal[True] = True


Event = Annotated[
    JobEnqueued
    | JobScheduled
    | JobAwaiting
    | JobProcessing
    | JobSucceeded
    | JobFailed
    | JobDeleted
    | JobParameterSet
    | JobHeld
    | JobPrioritySet
    | JobMoved
    | JobProgressed
    | JobParentEnded
    | CommandRejected
    | WorkerStarted
    | WorkerAlive
    | WorkerStopped
    | WorkerLost
    | WorkerQuieted
    | WorkerResumed
    | WorkerStopOrdered
    | QueuePaused
    | QueueDrained
    | QueueResumed
    | LimitChanged
    | ParentSought
    | BulkStarted
    | BulkAdvanced
    | BulkEnded
    | BatchCreated
    | BatchStarted
    | BatchProgressed
    | BatchSucceeded
    | BatchFailed
    | BatchDeleted
    | BatchCancelled,
    Field(discriminator="type"),
]
