"""For whom jobs wait that wait for several, as sums of each lane: the log's side of the table `job_parents`. Pure."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from joblog.projections.projector.event_batch import Record

#: So many last letters of an id tell it apart.
_LETTERS: Final = 8


class ParentSums(NamedTuple):
    """How many pairs of a parent and a job, and the sums of offsets and of the ends of both ids."""

    pairs: int
    offsets: int
    parents: int
    jobs: int


NO_PARENTS: Final = ParentSums(0, 0, 0, 0)


def add_parents(sums: dict[int, ParentSums], record: Record, job: str, parents: Iterable[str]) -> None:
    """Add a job that was created by this record to wait for these."""
    for parent in dict.fromkeys(parents):
        one = (1, record.offset, end_of(parent), end_of(job))
        before = sums.get(record.lane, NO_PARENTS)
        sums[record.lane] = ParentSums(*(a + b for a, b in zip(before, one, strict=True)))


def end_of(job_id: str) -> int:
    """The end of an id as a number."""
    return int(job_id[-_LETTERS:], 16)
