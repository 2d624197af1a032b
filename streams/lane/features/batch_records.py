"""What lanes keep of batches, and in which state a batch is by that. Pure."""

from collections.abc import Mapping
from typing import Final

from joblog.streams.contract.states import (
    AWAITING,
    DELETED,
    FAILED,
    PROCESSING,
    SUCCEEDED,
    ContinueOn,
    State,
)
from msgspec import Struct

BATCH_KEY: Final = "batch:"
#: Behind the batch's id in the key of a part's record.
PART: Final = "/part"
#: Between the batch's id and that of what waits for it, in the key of a wait's record.
WAITS: Final = "/waits/"
#: Additions that are remembered, to know them again when they are repeated.
ADDITIONS_MAX: Final = 100

#: Of a batch in one lane: created, succeeded, failed, deleted, how many additions are complete there, and the number
#: of the report that says so.
Counts = tuple[int, int, int, int, int, int]
NOTHING: Final[Counts] = (0, 0, 0, 0, 0, 0)
#: Which of the counts a member in this state is in, besides the first.
PLACES: Final[Mapping[State, int]] = {SUCCEEDED: 1, FAILED: 2, DELETED: 3}


class Part(Struct, array_like=True, tag="part"):
    """A batch in a lane where jobs of it are: the record of `BATCH_KEY + id + PART`.

    Its counts are of all that ever was, not of changes, so the last report of them is enough.

    - counts: of its jobs, and of the inner batches whose records are here. marks: the additions that are among them.
    - is_started: it does not wait, as far as was told.
    - cancelled: why it is; None if it is not. running: its running jobs are to be deleted as well.
    """

    counts: Counts = NOTHING
    marks: tuple[str, ...] = ()
    is_started: bool = False
    cancelled: str | None = None
    running: bool = False


class BatchWait(Struct, array_like=True, tag="wait", frozen=True):
    """That a job or a batch waits for another batch: the record of `BATCH_KEY + id + WAITS + its own id`."""

    on: ContinueOn


class Batch(Struct, array_like=True, tag="batch"):
    """A batch in the lane that its id names: the record of `BATCH_KEY + id`.

    - at_ms: when it was created, or first heard of, or last awaited before that. changed_ms: when its numbers last
      changed; in its last state since state_ms. All unix milliseconds.
    - is_created: its create command was read; its jobs, and what waits for it, may be heard of before.
    - waits: for its parent to end. total: how many jobs and batches were to be added.
    - parts: its counts by lane. expected: how many additions name each lane; additions: the last ones.
    - gave_up: not all additions came, and it no longer waits for them.
    - asking: the lanes in which jobs wait for it to start.
    - shown: the counts, and total, of its last event.
    """

    at_ms: int
    is_created: bool = False
    description: str | None = None
    outer: str | None = None
    parent: str | None = None
    on: ContinueOn | None = None
    waits: bool = False
    total: int = 0
    state: State = PROCESSING
    version: int = 0
    changed_ms: int = 0
    state_ms: int = 0
    event_ms: int = 0
    cancelled: str | None = None
    running: bool = False
    gave_up: bool = False
    parts: dict[int, Counts] = {}
    expected: dict[int, int] = {}
    additions: tuple[str, ...] = ()
    asking: tuple[int, ...] = ()
    shown: tuple[int, ...] = ()

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Created, succeeded, failed, deleted: over all lanes."""
        parts = self.parts.values()
        created, succeeded, failed, deleted = (sum(part[place] for part in parts) for place in range(4))
        return created, succeeded, failed, deleted

    @property
    def is_complete(self) -> bool:
        """Whether all that was to be added is counted: each lane has what the additions say of it, and no more."""
        lanes = self.parts.keys() | self.expected.keys()
        return self.gave_up or all(self.parts.get(lane, NOTHING)[4] == self.expected.get(lane, 0) for lane in lanes)


def counted(part: Part, before: State | None, after: State) -> bool:
    """Count a member that came to be (`before` is None) or moved; returns whether that changed the counts."""
    was = 0 if before is None else PLACES.get(before, 0)
    now = PLACES.get(after, 0)
    if before is not None and was == now:
        return False
    counts = list(part.counts)
    if before is None:
        counts[0] += 1
    if was:
        counts[was] -= 1
    if now:
        counts[now] += 1
    part.counts = (counts[0], counts[1], counts[2], counts[3], counts[4], counts[5])
    return True


def marked(part: Part, mark: str) -> bool:
    """Note that an addition is complete in this lane; False if that is known."""
    if mark in part.marks:
        return False
    part.marks = (*part.marks, mark)[-ADDITIONS_MAX:]
    part.counts = (*part.counts[:4], part.counts[4] + 1, part.counts[5])
    return True


def added(batch: Batch, addition: str, lanes: tuple[int, ...], jobs: int) -> bool:
    """Note what is to be added; False if that is known."""
    if addition in batch.additions:
        return False
    batch.additions = (*batch.additions, addition)[-ADDITIONS_MAX:]
    batch.total += jobs
    batch.expected = dict(batch.expected)
    for lane in dict.fromkeys(lanes):
        batch.expected[lane] = batch.expected.get(lane, 0) + 1
    batch.gave_up = False
    return True


def state_of(batch: Batch) -> State:
    """The state that its numbers give; a job that never came to be counts as a deleted one."""
    if batch.waits:
        return AWAITING
    created, succeeded, failed, deleted = batch.counts
    if not batch.is_complete or created > succeeded + failed + deleted:
        return PROCESSING
    if failed:
        return FAILED
    if deleted or created < batch.total or (not created and batch.cancelled is not None):
        return DELETED
    return SUCCEEDED


def is_open(batch: Batch) -> bool:
    """Whether it has not ended."""
    return batch.state is AWAITING or batch.state is PROCESSING
