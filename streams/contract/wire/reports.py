"""Reports: what workers, the delays process, projectors and other lanes tell an elector. Private, so structs only."""

from typing import Literal

from joblog.streams.contract.fields import Count, Key, Lane, Share, Text, Version
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.wire.base import (
    NO_RAW,
    Instant,
    JobId,
    Lines,
    NonNegative,
    QueueName,
    Report,
    Slots,
    TaskName,
    Wire,
    WorkerId,
)
from joblog.streams.contract.wire.limit_reports import (
    LimitAsked,
    LimitGranted,
    LimitReleased,
    LimitsForgotten,
    LimitsRebuilt,
    LimitStarted,
    LimitWaits,
    QueueLimitGiven,
    QueueLimitJoined,
    QueueLimitTold,
    QueueLimitUsed,
)
from msgspec import Raw


class JobException(Wire, frozen=True):
    type: Text
    message: str = ""
    details: str = ""
    types: tuple[Text, ...] = ()


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


class QueueElsewhere(Report, frozen=True, kw_only=True, tag="queue.elsewhere"):
    """To a queue's first lane: jobs of it wait in `lane`, where it does not live; its workers shall hear of it."""

    queue: QueueName
    lane: Lane


class ContinuationAdded(Report, frozen=True, kw_only=True, tag="continuation.added"):
    """From the lane of a continuation, a job or a batch, to that of its parent: report when `job_id` so ends."""

    job_id: JobId
    child: JobId
    on: ContinueOn


class Outcome(Wire, frozen=True):
    """How a parent ended, what it has for continuations, and why some of that is left out.

    Without a state, nobody knows of such a parent, and `omitted` says why.
    """

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


class ParentFound(Report, frozen=True, kw_only=True, tag="parent.found"):
    """From a projector, to the lane of a parent that it sought: how that ended, None if there is no such row.

    `question` is repeated from the event `parent.sought`; the rest is as in Outcome.
    """

    job_id: JobId
    question: Key
    state: State | None
    result: Raw = NO_RAW
    exception: JobException | None = None
    omitted: Text | None = None


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
    | QueueElsewhere
    | ContinuationAdded
    | ParentEnded
    | ContinuationUnmet
    | ParentRequeued
    | ParentFound
    | LimitAsked
    | LimitStarted
    | LimitReleased
    | LimitGranted
    | LimitWaits
    | LimitsForgotten
    | LimitsRebuilt
    | QueueLimitTold
    | QueueLimitJoined
    | QueueLimitUsed
    | QueueLimitGiven
    | BatchAwaited
    | BatchCounted
    | BatchTold
)
