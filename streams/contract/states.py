"""The seven states of a job, by Hangfire's names."""

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a job is; every job is in exactly one.

    - Awaiting: waits for another job to end; the elector of its parent's lane moves it on.
    - Scheduled: waits for an instant (a delay, a retry); the delays process, or the elector itself if that
      one is late, moves it on.
    - Enqueued: ready; moves on when a worker of its queue that knows its task has a free slot.
    - Processing: assigned to one worker under one lease; moves on by that worker's report, or when it is lost.
    - Succeeded, Deleted: ended. Failed: ended until somebody requeues or deletes it.
    """

    AWAITING = "Awaiting"
    SCHEDULED = "Scheduled"
    ENQUEUED = "Enqueued"
    PROCESSING = "Processing"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DELETED = "Deleted"


# For code that every job takes: to look a member up on its class costs 70 ns, as much as a call of a function.
AWAITING: Final = State.AWAITING
SCHEDULED: Final = State.SCHEDULED
ENQUEUED: Final = State.ENQUEUED
PROCESSING: Final = State.PROCESSING
SUCCEEDED: Final = State.SUCCEEDED
FAILED: Final = State.FAILED
DELETED: Final = State.DELETED

#: Left only by an explicit requeue or reschedule (Failed also by a delete).
FINAL_STATES = frozenset({State.SUCCEEDED, State.FAILED, State.DELETED})


class ContinueOn(StrEnum):
    """When a continuation runs.

    `finished` means Succeeded or Deleted, as Hangfire's OnAnyFinishedState; `ended` adds Failed, for clean-up
    that must happen in any case.
    """

    SUCCEEDED = "succeeded"
    DELETED = "deleted"
    FAILED = "failed"
    FINISHED = "finished"
    ENDED = "ended"
