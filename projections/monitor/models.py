"""What monitoring answers with; every model is frozen and dumps to JSON."""

from datetime import datetime
from typing import Any, Generic, TypeVar

from joblog.streams.contract.controls import BulkAction
from joblog.streams.contract.events import JobException
from joblog.streams.contract.recurring import Cause
from joblog.streams.contract.relations import LimitKind
from joblog.streams.contract.states import ContinueOn, State
from pydantic import BaseModel, ConfigDict, computed_field

T = TypeVar("T")


class Answer(BaseModel):
    """What all answers are."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64")


class Page(Answer, Generic[T]):
    """Some items of a list; `next_cursor` asks for those that follow, None at the end."""

    items: tuple[T, ...]
    next_cursor: str | None = None


class Job(Answer):
    """A job as lists show it.

    - changed_at: when it came into its state; due: until when it waits.
    - worker, lease: as the event of its state named them; when Processing, who runs it.
    - args, kwargs, result: None when too long for a list; Details has them.
    - exception: of the last failed run, whatever came after it; its details only while Failed, if not too long.
    - duration_ms, latency_ms: of the run that ended in this state.
    """

    id: str
    lane: int
    state: State
    version: int
    attempt: int
    retry: int
    priority: int
    queue: str
    task: str
    created_at: datetime
    changed_at: datetime
    reason: str | None = None
    due: datetime | None = None
    worker: str | None = None
    lease: int | None = None
    parent: str | None = None
    parent_state: State | None = None
    continue_on: ContinueOn | None = None
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] | None = None
    exception: JobException | None = None
    result: Any = None
    result_omitted: str | None = None
    duration_ms: float | None = None
    latency_ms: float | None = None


class HistoryEntry(Answer):
    """One event of a job and where it stands in the log.

    - data: what this type of event adds.
    - lasted_s: seconds until the next transition; None for the state the job is in, and for what is none.
    """

    version: int
    type: str
    state: State
    traversed: bool
    attempt: int
    at: datetime
    reason: str | None
    data: dict[str, Any]
    lane: int
    log_offset: int
    lasted_s: float | None = None


class Continuation(Answer):
    """A job that waits, or waited, for another one."""

    id: str
    state: State
    continue_on: ContinueOn | None
    queue: str
    task: str
    created_at: datetime
    changed_at: datetime


class Rejected(Answer):
    """A command that could not be done, and where that stands in the log.

    - existing: the job that is there in place of the one that was to be created, whose unique key it has.
    """

    lane: int
    log_offset: int
    at: datetime
    code: str
    reason: str
    command: str | None
    command_id: str | None
    job_id: str | None
    position: str | None
    existing: str | None = None


class Progress(Answer):
    """How much of a job's work was done, 0 to 1, as its run said last; `attempt` is the run's number."""

    at: datetime
    attempt: int
    share: float
    text: str | None


class LogLine(Answer):
    """A line that a run logged, and when it was sent, with others, in the event of this version."""

    at: datetime
    attempt: int
    version: int
    text: str


class JobDetails(Job):
    """Everything about a job; lists end at the monitor's limits, newest first, but for `lines`: the last ones.

    - waits_for: why it does not start although a worker is free, with the jobs that have its limit now; the limit of
      its queue counts, too. None if nothing holds it back.
    """

    waits_for: str | None = None
    progress: Progress | None = None
    lines: tuple[LogLine, ...] = ()

    spec: dict[str, Any] | None
    parameters: dict[str, Any]
    history: tuple[HistoryEntry, ...]
    continuations: tuple[Continuation, ...]
    rejected: tuple[Rejected, ...]
    log_offset: int


class RecurringRun(Answer):
    """A job of a recurring job.

    - occurrence, cause: as its parameters have them; None for a text that is none.
    - started_at: when its last run started.
    - duration_ms: of the run that ended in this state; error: of the last failed run, whatever came after it.
    """

    occurrence: datetime | None
    cause: Cause | None
    job_id: str
    state: State
    created_at: datetime
    changed_at: datetime
    started_at: datetime | None
    duration_ms: float | None
    attempt: int
    error: str | None


class Batch(Answer):
    """A batch as its last event tells it.

    - total: jobs and inner batches to be added; created: those that were; pending: those that have not ended.
    - batch: the outer one. parent, continue_on: what it waits, or waited, for, and how that has to end.
    - changed_at: when its last event was written; an event tells the progress at most once a second.
    """

    id: str
    lane: int
    version: int
    state: State
    description: str | None
    reason: str | None
    created_at: datetime
    changed_at: datetime
    total: int
    created: int
    succeeded: int
    failed: int
    deleted: int
    cancelled: bool
    batch: str | None
    parent: str | None
    continue_on: ContinueOn | None
    log_offset: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def pending(self) -> int:
        """How many have not ended, or are not there yet."""
        return max(self.total, self.created) - self.succeeded - self.failed - self.deleted


class RunCounts(Answer):
    """The latest jobs of a recurring job by state, at most as many as are counted."""

    counts: dict[State, int]
    is_all: bool


class WaitingJob(Answer):
    """One of the jobs that wait longest in a queue."""

    id: str
    task: str
    priority: int
    since: datetime


class QueuePause(Answer):
    """A queue of which no job starts; where its lanes differ, the earliest pause counts.

    - state: paused, draining (some of its jobs still run) or drained. lanes: in how many it is paused.
    - until: None until somebody resumes it.
    """

    state: str
    lanes: int
    since: datetime
    until: datetime | None
    paused_by: str | None
    reason: str | None


class LanePause(Answer):
    """The pause of a queue in one of its lanes; the fields are those of QueuePause."""

    lane: int
    state: str
    since: datetime
    until: datetime | None
    paused_by: str | None
    reason: str | None


class QueueLimit(Answer):
    """The limit of all jobs of a queue together."""

    kind: LimitKind
    capacity: int
    interval_s: float | None
    since: datetime
    set_by: str | None
    reason: str | None


class Queue(Answer):
    """A queue: its jobs by state, how many workers serve it, who waits longest, whether it is paused, its limit."""

    name: str
    counts: dict[State, int]
    workers: int
    oldest_waiting_s: float | None
    first_jobs: tuple[WaitingJob, ...]
    pause: QueuePause | None = None
    limit: QueueLimit | None = None

    @property
    def length(self) -> int:
        """How many jobs are ready for a worker."""
        return self.counts[State.ENQUEUED]


class Waits(Answer):
    """A job that waits for a limit, since when it was ready, and who has the limit now."""

    id: str
    since: datetime
    tenant: str | None
    waits_for: str


class LimitUse(Answer):
    """A limit that jobs use, as one of them defines it.

    - running: the jobs that run with it. waiting: how many wait for it; first_waiting: those that wait longest.
    """

    kind: LimitKind
    key: str
    capacity: int
    interval_s: float | None
    running: tuple[str, ...] = ()
    waiting: int = 0
    first_waiting: tuple[Waits, ...] = ()


class Worker(Answer):
    """A worker; `processing` counts the jobs assigned to it.

    - state: running, quiet (it takes no more jobs), stopping (it was told to stop), stopped or lost.
    """

    name: str
    state: str
    slots: int
    queues: tuple[str, ...]
    tasks: tuple[str, ...]
    host: str
    pid: int
    started_at: datetime
    heartbeat: datetime
    processing: int


class Statistics(Answer):
    """The numbers of the whole installation.

    - counts: jobs in each state now. retries: those of Scheduled that wait for a retry.
    - succeeded, failed, deleted: how often a job ever ended so; a failure that was retried is none.
    - late_s: for how long these numbers have not been current, at most; None before anything was applied.
    """

    counts: dict[State, int]
    retries: int
    succeeded: int
    failed: int
    deleted: int
    queues: int
    workers: int
    late_s: float | None


class Bucket(Answer):
    """How many jobs ended in an hour or day that began at `since`."""

    since: datetime
    succeeded: int
    failed: int
    deleted: int


class ParkedRecord(Answer):
    """A record of the log that could not be applied; `raw` is its value, base64 in JSON."""

    lane: int
    log_offset: int
    at: datetime
    code: str
    reason: str
    raw: bytes | None


class ParkedCode(Answer):
    """How many records are parked with this code, and where the last of them is in the log."""

    code: str
    records: int
    lane: int
    log_offset: int


class LiveJobs(Answer):
    """How many jobs of a queue are in a lane and have not ended."""

    queue: str
    lane: int
    jobs: int


class LaneOffset(Answer):
    """How far a lane was applied.

    - log_time: when the broker wrote the last applied record.
    - current_at: everything that the lane held then is applied; late_s: the seconds since.
    """

    lane: int
    next_offset: int
    log_time: datetime | None
    current_at: datetime | None
    late_s: float | None


class BulkOperation(Answer):
    """A bulk operation; numbers are as current as the projection.

    - state: running, done, cancelled or failed; end_reason says why it failed or was cancelled, ended_by who did.
    - matched: the jobs that were found. sent: the commands for them so far; refused: those that were rejected,
      because their jobs had moved. rate: jobs a second.
    - cursor: the last job that a command was sent for. late_s: for how long its lane was not current, at most.
    """

    id: str
    lane: int
    state: str
    action: BulkAction
    filter: dict[str, Any]
    fence: tuple[int, ...]
    rate: float
    queue: str | None
    priority: int | None
    matched: int
    sent: int
    refused: int
    cursor: str | None
    started_by: str | None
    reason: str | None
    started_at: datetime
    changed_at: datetime
    ended_by: str | None
    end_reason: str | None
    late_s: float | None

    @property
    def done(self) -> int:
        """How many jobs were changed, as far as electors have decided."""
        return max(self.sent - self.refused, 0)

    @property
    def left(self) -> int:
        """How many jobs are still to come; 0 when it has ended."""
        return max(self.matched - self.sent, 0) if self.state == "running" else 0


class Matched(Answer):
    """How many jobs a filter finds, and how far each lane was applied at that moment; `Client.bulk.start` takes it.

    - filter: as the command `bulk.start` has it.
    """

    jobs: int
    fence: tuple[int, ...]
    filter: dict[str, Any]
