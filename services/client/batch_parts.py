"""The commands of a batch as transactions of bounded size: readers of all lanes wait while one is written.

A batch in parts needs no word to the lanes about its parts. Its first command says how many jobs are to come, and the
marks that complete it are the last ones, so it cannot end before all parts are there.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from joblog.services.client.templates import CommandRecord
from joblog.streams.errors import InvalidData

#: Commands, and their bytes, in the one transaction of a batch at most.
JOBS_MAX: Final = 100_000
BYTES_MAX: Final = 64 * 1024 * 1024
#: The same in each transaction of a batch in parts: they are smaller, so that nobody waits for long.
PART_JOBS_MAX: Final = 20_000
PART_BYTES_MAX: Final = 16 * 1024 * 1024


def whole(records: Sequence[CommandRecord]) -> Sequence[CommandRecord]:
    """The commands as one transaction. Raises InvalidData if they are too many."""
    if len(records) > JOBS_MAX or sum(len(one.value) for one in records) > BYTES_MAX:
        raise InvalidData(
            f"the batch has more than {JOBS_MAX:,} jobs or {BYTES_MAX >> 20} MB, the most in one transaction: write "
            "in_parts=True, and it is sent in several ones, of which the first jobs may run before the last are sent"
        )
    return records


def parts(records: Sequence[CommandRecord]) -> Iterator[Sequence[CommandRecord]]:
    """The commands in their order, in as many transactions as it takes."""
    start, size = 0, 0
    for place, record in enumerate(records):
        if place - start == PART_JOBS_MAX or (place > start and size + len(record.value) > PART_BYTES_MAX):
            yield records[start:place]
            start, size = place, 0
        size += len(record.value)
    yield records[start:]
