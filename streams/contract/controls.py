"""Commands that name no job: on queues, on workers, on limits, and on bulk operations, which change many jobs.

A command on a queue is sent to each lane, since any of them may have jobs of the queue, one on a worker to its home
lane, one on a bulk operation to the lane that its id names, one on a limit to the lane that owns it. Each belongs to
the lane in whose partition it lies.
"""

import re
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from joblog.streams.contract.fields import (
    Capacity,
    Count,
    Instant,
    JobId,
    Json,
    Key,
    Priority,
    QueueName,
    Rate,
    StrictMessage,
    Text,
    TimeoutSeconds,
    WorkerId,
    is_queue,
    wrong_queue,
)
from joblog.streams.contract.relations import LimitKind, LimitScope, limit_problem
from pydantic import Field, model_validator

#: Lanes are at most so many (ids.LANES_MAX), and a fence has an offset for each.
FENCES_MAX: Final = 4_096

_home: Final = re.compile(r":[0-9]+:[0-9a-f]{8}@([0-9]{1,4})").search


def home_of_worker(worker: str) -> int | None:
    """The home lane that a worker's id names, as Joblog's workers make theirs; None if it names none."""
    found = _home(worker)
    return int(found[1]) if found is not None and found.end() == len(worker) else None


class BulkAction(StrEnum):
    """What a bulk operation does with each job."""

    REQUEUE = "requeue"
    DELETE = "delete"
    MOVE = "move"
    SET_PRIORITY = "set_priority"


class BulkOutcome(StrEnum):
    """How a bulk operation ended: with all of its jobs, by a command, or because it cannot be done."""

    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


def bulk_problem(action: BulkAction, queue: str | None, priority: int | None) -> str | None:
    """Why an operation cannot be like this; None if it can."""
    if (action is BulkAction.SET_PRIORITY) != (priority is not None):
        return f"{action}: priority belongs to {BulkAction.SET_PRIORITY}, and to nothing else"
    if action is BulkAction.MOVE and queue is None:
        return "move: queue is missing: the queue to move the jobs to"
    if queue is not None and action not in {BulkAction.MOVE, BulkAction.REQUEUE}:
        return f"{action}: queue has no effect"
    return None


class Control(StrictMessage):
    """What all of these commands say: who gives it, and why."""

    by: Text | None = None
    reason: Text | None = None


class PauseQueue(Control):
    """Start no more jobs of a queue, for good or until an instant; those that run go on.

    What a worker has prefetched counts as started.
    """

    type: Literal["queue.pause"] = "queue.pause"
    queue: QueueName
    until: Instant | None = None


class DrainQueue(Control):
    """Pause a queue, and tell by an event in each lane when none of its jobs runs there any more."""

    type: Literal["queue.drain"] = "queue.drain"
    queue: QueueName
    until: Instant | None = None


class ResumeQueue(Control):
    """End the pause of a queue."""

    type: Literal["queue.resume"] = "queue.resume"
    queue: QueueName


class QuietWorker(Control):
    """Give a worker no more jobs; it goes on with those that it runs, until it is stopped."""

    type: Literal["worker.quiet"] = "worker.quiet"
    worker: WorkerId


class ResumeWorker(Control):
    """Give a worker jobs again that was told to take no more; one that was told to stop, stops."""

    type: Literal["worker.resume"] = "worker.resume"
    worker: WorkerId


class StopWorker(Control):
    """Stop a worker in order, as SIGTERM does."""

    type: Literal["worker.stop"] = "worker.stop"
    worker: WorkerId


class StartBulk(Control):
    """Begin a bulk operation: change every job that a filter finds, in the background.

    - operation: its id, made like a job's; it names the lane that keeps the operation.
    - filter: fields of the monitor's JobFilter, as JSON. matched: how many jobs it found when it was asked.
    - fence: of each lane, the offset in `events` up to which the tables were when it was asked. Jobs with a later
      event are left alone.
    - rate: jobs a second. queue: for move and requeue. priority: for set_priority.
    """

    type: Literal["bulk.start"] = "bulk.start"
    operation: JobId
    action: BulkAction
    filter: dict[str, Json] = {}
    fence: Annotated[tuple[Count, ...], Field(min_length=1, max_length=FENCES_MAX)]
    matched: Count
    rate: Rate
    queue: QueueName | None = None
    priority: Priority | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if problem := bulk_problem(self.action, self.queue, self.priority):
            raise ValueError(problem)
        return self


class AdvanceBulk(Control):
    """What the runner of a bulk operation has done: `sent` commands in all, where it had sent `before`.

    - cursor: the id of the last job among them. outcome: set with the last one.
    """

    type: Literal["bulk.advance"] = "bulk.advance"
    operation: JobId
    before: Count
    sent: Count
    cursor: JobId | None = None
    outcome: BulkOutcome | None = None


class CancelBulk(Control):
    """End a bulk operation; what it has changed stays so."""

    type: Literal["bulk.cancel"] = "bulk.cancel"
    operation: JobId


class SetLimit(Control):
    """Let a limit have this capacity, and interval, whatever jobs say; without a capacity, as jobs say again.

    With the scope `queue`, the key is the name of a queue, all of whose jobs have the limit; a queue has one such
    limit, and none without a capacity. Its first lane decides, and tells the others.
    """

    type: Literal["limit.set"] = "limit.set"
    kind: LimitKind
    key: Key
    capacity: Capacity | None = None
    interval_s: TimeoutSeconds | None = None
    scope: LimitScope = LimitScope.KEY

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.scope is LimitScope.QUEUE and not is_queue(self.key):
            raise ValueError(wrong_queue(self.key))
        if self.capacity is None and self.interval_s is not None:
            raise ValueError("interval_s has no effect without a capacity")
        if self.capacity is not None and (problem := limit_problem(self.kind, self.capacity, self.interval_s)):
            raise ValueError(problem)
        return self


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
