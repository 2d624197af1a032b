"""What becomes of a batch whose jobs or inner batches would have ended otherwise: the lanes' rules, over its counts.

Theory of operation. A batch's events tell when it began, was added to and was cancelled; its members' moves tell the
rest. `course` lets both go over a record as its lane keeps it (batch_records.py), which says when the batch ended and
how. The course of the recorded moves is compared with that of the simulated ones; a batch of which the first one
does not come out as it is recorded, since the log does not have all members, stays as it is.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

from joblog.streams.contract import wire
from joblog.streams.contract.states import AWAITING, FINAL_STATES, PROCESSING, State
from joblog.streams.contract.timestamps import time_ms
from joblog.streams.lane.features.batch_records import Batch, Part, counted, state_of
from joblog.streams.replay.continuations import Ends, Heard, heard, moved
from joblog.streams.replay.history import End, note_end
from joblog.streams.replay.inputs import by_elector
from msgspec import Struct

#: None is before a member comes to be.
_STATES: Final = (None, *State)
_NUMBERS: Final = {state: number for number, state in enumerate(_STATES)}


class Began(Struct):
    """When a batch began, unix milliseconds, and when it was cancelled; and when it would have been. None: never.

    - running: its jobs that ran were deleted as well. is_unknown: nobody knows whether it would have begun.
    """

    recorded: int | None
    simulated: int | None
    cancelled: int | None = None
    would_be_cancelled: int | None = None
    running: bool = False
    is_unknown: bool = False

    @property
    def differs(self) -> bool:
        is_same = self.recorded == self.simulated and self.cancelled == self.would_be_cancelled
        return self.is_unknown or not is_same


class Counts(NamedTuple):
    """The members of a batch, by how they ended."""

    created: int
    succeeded: int
    failed: int
    deleted: int


class Told(Struct):
    """A batch, as its events tell it.

    - began_ms, cancelled_ms: as in Began. cancelled_by: a command, the end of its parent, or its outer batch.
    - totals: from when on how many members were to be added, and how many of those never came to be.
    - ends: when it ended, and how; and when it went on after that. is_whole: from its first event on.
    """

    created_ms: int
    outer: str | None
    parent: str | None
    on: Any
    cause: str
    is_whole: bool
    state: State
    began_ms: int | None = None
    cancelled_ms: int | None = None
    cancelled_by: str = ""
    running: bool = False
    totals: list[tuple[int, int, int | None]] = []
    ends: list[End] = []
    counts: Counts = Counts(0, 0, 0, 0)

    def take(self, event: wire.BatchEvent, at_ms: int, cause: str) -> None:
        """The next event."""
        if event.cancelled and self.cancelled_ms is None:
            self.cancelled_ms, self.cancelled_by = at_ms, self._cancelled_by(cause)
        elif self.began_ms is None and event.state is not AWAITING and self.cancelled_ms is None:
            self.began_ms = at_ms
        missing = event.total - event.created if event.state in FINAL_STATES else None
        if not self.totals or self.totals[-1][1:] != (event.total, missing):
            self.totals.append((at_ms, event.total, missing))
        if event.state is not self.state:
            note_end(self.ends, at_ms, event.state)
        self.state = event.state
        self.counts = Counts(event.created, event.succeeded, event.failed, event.deleted)

    def _cancelled_by(self, cause: str) -> str:
        if cause in {"", self.cause}:
            return "outer"
        return "parent" if by_elector(cause) else "command"

    def began(self) -> Began:
        """When it began and was cancelled, if nothing changes that."""
        return Began(self.began_ms, self.began_ms, self.cancelled_ms, self.cancelled_ms, self.running)

    def expected(self) -> Iterator[tuple[int, int, int]]:
        """From when on how many members were to be added, and how many of these came to be."""
        missing, found = 0, []
        for at_ms, total, told in reversed(self.totals):
            missing = missing if told is None else told
            found.append((at_ms, total, max(total - missing, 0)))
        return reversed(found)


def told_by(event: wire.BatchEvent, at_ms: int, cause: str) -> Told:
    """A batch of which this is the first event."""
    found = Told(
        time_ms(event.created_at), event.batch, event.parent, event.on, cause, event.version == 1, event.state,
        totals=[], ends=[],
    )  # fmt: skip
    found.take(event, at_ms, cause)
    return found


# --- when it begins ---


def began_after(told: Told, outer: Began | None, parent: Ends | None, *, is_job: bool) -> Began:
    """When a batch would have begun, or been cancelled, if its outer batch or its parent would be others."""
    found = told.began()
    starts_with_outer = told.parent is not None and told.parent == told.outer
    if outer is not None:
        if starts_with_outer:
            found.simulated = shifted(told.began_ms, outer.recorded, outer.simulated, told.created_ms)
            found.is_unknown = outer.is_unknown
        if told.cancelled_by == "outer" or told.cancelled_ms is None:
            after = shifted(told.cancelled_ms, outer.cancelled, outer.would_be_cancelled, told.created_ms)
            found.would_be_cancelled = after
            found.running |= outer.running
    if parent is not None and not starts_with_outer and told.parent is not None:
        _by_parent(found, told, parent, again=is_job)
    cancelled = found.would_be_cancelled
    if found.simulated is not None and cancelled is not None and cancelled <= found.simulated and told.parent:
        found.simulated = None
    return found


def shifted(own: int | None, recorded: int | None, simulated: int | None, since_ms: int) -> int | None:
    """When something comes that follows another one which comes at another time."""
    if recorded == simulated:
        return own
    if simulated is None:
        return None
    late_ms = max(own - max(recorded, since_ms), 0) if own is not None and recorded is not None else 0
    return max(simulated, since_ms) + late_ms


def _by_parent(found: Began, told: Told, parent: Ends, *, again: bool) -> None:
    was, would_be = (
        heard(told.on, ends, told.created_ms, again=again)[:1] for ends in (parent.recorded, parent.simulated)
    )
    recorded = [Heard(told.began_ms, None, True)] if told.began_ms is not None else []
    if told.cancelled_by == "parent" and told.cancelled_ms is not None:
        recorded, found.would_be_cancelled = [Heard(told.cancelled_ms, None, False)], None
    after = moved(was, would_be, recorded, told.created_ms)
    found.simulated = after[0].at_ms if after and after[0].run else None
    if after and not after[0].run:
        found.would_be_cancelled = min(after[0].at_ms, found.would_be_cancelled or after[0].at_ms)
    found.is_unknown = parent.is_unknown and not after


# --- what it counts ---


def moves_of(created_ms: int, ends: Sequence[End]) -> list[int]:
    """A member of a batch: when it came to be, ended, and went on, each as one number in the order of time."""
    found, before = [_move(created_ms, None, AWAITING)], AWAITING
    for at_ms, state in ends:
        found.append(_move(at_ms, before, state))
        before = state
    return found


def _move(at_ms: int, before: State | None, after: State) -> int:
    return at_ms << 6 | _NUMBERS[before] << 3 | _NUMBERS[after]


def course(
    told: Told, moves: Iterable[int], began_ms: int | None, cancelled_ms: int | None
) -> tuple[list[End], State, Counts]:
    """When a batch with these members ended, and how; where it is at last; and how many members ended how."""
    batch, part, ends = Batch(told.created_ms, is_created=True, waits=told.parent is not None), Part(), list[End]()
    batch.state = state_of(batch)
    for at_ms, group in groupby(_inputs(told, moves, began_ms, cancelled_ms), key=itemgetter(0)):
        for _, what, value in group:
            _take(batch, part, what, value)
        if not batch.expected:
            continue  # its jobs may be heard of before it is
        created, expected = part.counts[0], batch.expected[0]
        batch.parts = {0: (*part.counts[:4], min(created, expected), 0)}
        state = state_of(batch)
        if state is not batch.state:
            note_end(ends, at_ms, state)
            batch.state = state
    return ends, batch.state, Counts(*batch.counts)


def _inputs(
    told: Told, moves: Iterable[int], began_ms: int | None, cancelled_ms: int | None
) -> Iterator[tuple[int, str, Any]]:
    of_batch: list[tuple[int, str, Any]] = [
        (at_ms, "expected", (total, there)) for at_ms, total, there in told.expected()
    ]
    of_batch += [(at_ms, what, None) for at_ms, what in ((began_ms, "began"), (cancelled_ms, "cancelled")) if at_ms]
    of_members = ((code >> 6, "moved", code & 63) for code in moves)
    return merge(sorted(of_batch, key=itemgetter(0)), of_members, key=itemgetter(0))


def _take(batch: Batch, part: Part, what: str, value: Any) -> None:
    match what:
        case "expected":
            batch.total, batch.expected = value[0], {0: value[1]}
        case "began":
            batch.waits = False
        case "cancelled":
            batch.waits, batch.cancelled = False, "cancelled"
        case _:
            counted(part, _STATES[value >> 3], _STATES[value & 7] or PROCESSING)


class After(NamedTuple):
    """A batch after the changes: its ends, where it is at last, and the counts as they are recorded and would be."""

    ends: Ends
    recorded: State
    simulated: State
    was: Counts
    would_be: Counts

    @property
    def is_open(self) -> bool:
        return self.simulated not in FINAL_STATES


def after_changes(told: Told, recorded: Iterable[int], simulated: Iterable[int], began: Began) -> After | None:
    """What becomes of a batch with these moves of its members; None if they do not explain how it is recorded."""
    was, state, counts = course(told, recorded, began.recorded, began.cancelled)
    if not told.is_whole or state is not told.state or counts.created < told.counts.created:
        return None
    would_be, then, after = course(told, simulated, began.simulated, began.would_be_cancelled)
    late_ms = 0
    if was and told.ends and was[0][1] is told.ends[0][1]:
        late_ms = max(told.ends[0][0] - was[0][0], 0)
    later = told.ends if was == would_be else [(at_ms + late_ms, one) for at_ms, one in would_be]
    return After(Ends(told.ends, later), state, then, counts, after)
