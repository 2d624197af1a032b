"""What an elector does about exceptions that nobody foresaw.

An exception out of a lane leaves its memory half changed, so the lane is thrown away and loaded again from the log.
The record that was being decided is remembered by its place: when it is read again, it is parked, not decided.
"""

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from joblog.streams.errors import ElectorError, InternalError

#: Topic, partition and offset.
Place = tuple[str, int, int]

#: First the lane says what became of a record that failed (a rejection, a failed run); then it is only parked.
TRIES_MAX: Final = 2


class TurnFailed(ElectorError):
    """A turn raised, by its cause; nothing of it is written.

    - error: the cause, in texts. lanes: those that have decided something in this turn.
    """

    def __init__(self, what: str, error: InternalError, lanes: Collection[int]) -> None:
        super().__init__(f"{what}: {error.reason}")
        self.error = error
        self.lanes = frozenset(lanes)


class RecordFailed(TurnFailed):
    """Deciding the record at `place` failed."""

    def __init__(self, place: Place, error: InternalError, lanes: Collection[int]) -> None:
        super().__init__("{}/{}@{}".format(*place), error, lanes)
        self.place = place


class LaneFailed(TurnFailed):
    """Lane `number` failed while time passed, or while slots were handed out: no record is at fault."""

    def __init__(self, number: int, error: InternalError, lanes: Collection[int]) -> None:
        super().__init__(f"lane {number}", error, {*lanes, number})
        self.number = number


class WriteFailed(TurnFailed):
    """What lane `number` wants written cannot be.

    - inputs: how many records this turn decided, in all lanes. last: the last of them, None if there was none.
    """

    def __init__(
        self, number: int, error: InternalError, lanes: Collection[int], inputs: int, last: Place | None
    ) -> None:
        super().__init__(f"writing for lane {number}", error, {*lanes, number})
        self.number = number
        self.inputs = inputs
        self.last = last


class FailedRecord(NamedTuple):
    """What happened when a record was decided.

    - tries: how often it has failed, see TRIES_MAX.
    """

    error: InternalError
    tries: int


class FailedRecords:
    """The records that failed, until the lane has read beyond them."""

    def __init__(self) -> None:
        self._known: dict[Place, FailedRecord] = {}

    def add(self, place: Place, error: InternalError) -> None:
        """Note that a record failed now; it is parked with the error of its first failure."""
        before = self._known.get(place)
        self._known[place] = FailedRecord(before.error, before.tries + 1) if before else FailedRecord(error, 1)

    def find(self, place: Place) -> FailedRecord | None:
        """What is known about the record there."""
        return self._known.get(place)

    def forget(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """The lanes have read up to these offsets."""
        if self._known:
            known = self._known.items()
            self._known = {place: one for place, one in known if place[2] >= offsets.get(place[:2], 0)}
