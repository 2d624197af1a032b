"""What workers, delays and other lanes tell an elector. Values of the topic `reports`, as plain JSON objects.

Reports are not public: only Joblog's own roles may write them, by the rights on the topic.
"""

from typing import Annotated, Literal

from joblog.streams.contract.events import JobException
from joblog.streams.contract.fields import (
    Count,
    Instant,
    JobId,
    Json,
    Message,
    QueueName,
    TaskName,
    Text,
    Version,
    WorkerId,
)
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import ContinueOn, State
from pydantic import Field


class RunReport(Message):
    """What a worker says about a run; one that carries an old lease is rejected."""

    job_id: JobId
    lease: Version
    worker: WorkerId


class RunSucceeded(RunReport):
    """The run ended well."""

    type: Literal["run.succeeded"] = "run.succeeded"
    result: Json = None
    result_omitted: Text | None = None
    duration_ms: float = Field(ge=0)
    started_ms: Count  # unix milliseconds, for the latency


class RunFailed(RunReport):
    """The run raised, timed out, or its arguments did not fit. `retry` is the task's own policy, if it has one."""

    type: Literal["run.failed"] = "run.failed"
    exception: JobException
    duration_ms: float = Field(ge=0)
    started_ms: Count
    retry: RetryPolicy | None = None


class RunReleased(RunReport):
    """The worker gives the job back without an outcome; no retry is spent.

    `started` tells whether the run had begun: then its attempt number is not given again.
    """

    type: Literal["run.released"] = "run.released"
    reason: Text
    started: bool = False


class JobDue(Message):
    """The instant came for which a job was scheduled; stale when the job's version has moved on."""

    type: Literal["job.due"] = "job.due"
    job_id: JobId
    version: Version


class WorkerAnnounced(Message):
    """A worker is alive and offers its slots to one lane; sent every few seconds, and whenever it changes.

    - partition: the partition of `assignments` that it reads.
    - queues: those it works in this lane, in its order of preference; all_queues: all it works.
    - slots: jobs it will hold of this lane at once, prefetched ones included.
    - policies: the retry policies of those tasks that have one of their own.
    - home: whether this lane writes the worker's events.
    """

    type: Literal["worker.announced"] = "worker.announced"
    worker: WorkerId
    partition: Count
    queues: tuple[QueueName, ...]
    all_queues: tuple[QueueName, ...]
    slots: Count
    all_slots: Count
    tasks: tuple[TaskName, ...]
    host: Text = ""
    pid: Count = 0
    started_at: Instant
    home: bool = False
    policies: dict[TaskName, RetryPolicy] = {}


class WorkerStopping(Message):
    """A worker says good-bye to one lane, after it gave back or finished what it held."""

    type: Literal["worker.stopping"] = "worker.stopping"
    worker: WorkerId


class ContinuationAdded(Message):
    """From the lane of a continuation to that of its parent: tell `child` when `job_id` ends that way."""

    type: Literal["continuation.added"] = "continuation.added"
    job_id: JobId
    child: JobId
    on: ContinueOn


class ParentEnded(Message):
    """From the lane of a parent to that of its continuation: run, or be deleted."""

    type: Literal["parent.ended"] = "parent.ended"
    job_id: JobId
    parent: JobId
    state: State | None
    run: bool
    reason: Text


Report = Annotated[
    RunSucceeded
    | RunFailed
    | RunReleased
    | JobDue
    | WorkerAnnounced
    | WorkerStopping
    | ContinuationAdded
    | ParentEnded,
    Field(discriminator="type"),
]
