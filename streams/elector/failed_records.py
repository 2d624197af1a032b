"""Records that could not be decided for a reason nobody foresaw: they are parked when they are read again.

An exception out of a lane leaves its memory half changed, so the lane is thrown away and loaded from the log. The
record that did it is remembered by its place, and not decided a second time.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from joblog.streams.errors import ElectorError, InternalError

#: Topic, partition and offset.
Place = tuple[str, int, int]


class FailedRecord(NamedTuple):
    """What a record did.

    - tries: how often something was tried with it: after the first the lane says what became of it (a rejection, a
      failed run); after the second it is parked and nothing else.
    """

    error: InternalError
    tries: int


class RecordFailed(ElectorError):
    """An exception, its cause, came out of a lane that decided the record at `place`.

    - lanes: those that have decided something in this turn.
    """

    def __init__(self, place: Place, error: InternalError, lanes: Collection[int]) -> None:
        super().__init__(f"{place[0]}/{place[1]}@{place[2]}: {error.reason}")
        self.place = place
        self.error = error
        self.lanes = frozenset(lanes)


class FailedRecords:
    """The records that are known, until the lane has read beyond them."""

    def __init__(self) -> None:
        self._known: dict[Place, FailedRecord] = {}

    def add(self, place: Place, error: InternalError) -> None:
        """Note what a record did now; what it did first is what it is parked with."""
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
