"""What a job has that uses features which most jobs do not: as its elector holds it, and in its record.

A job that uses none has no extras. So it costs one look to see that no feature wants to hear of it.
"""

from functools import lru_cache
from typing import Final

from joblog.streams.contract import wire
from joblog.streams.contract.relations import ParentKind
from joblog.streams.contract.timestamps import time_ms
from msgspec import Struct

BATCH: Final = ParentKind.BATCH
#: The features that a job may use, one bit each.
USES_BATCH: Final = 1
USES_LIMITS: Final = 2
USES_UNIQUE: Final = 4
USES_TIMES: Final = 8
USES_PARENTS: Final = 16
#: Its parent is another batch than its own.
AFTER_BATCH: Final = 32


class Extras(Struct, frozen=True, array_like=True, gc=False):
    """Of a job's spec, what features decide by; fields are only ever added at the end, with a default.

    - uses: the features, as bits of the constants above.
    - is_held: whether an event has told what it waits for since it became Enqueued.
    - deadline_ms, start_by_ms: unix milliseconds, 0 for none: when it has to have ended, and when started.
    """

    uses: int
    batch: str | None = None
    limits: tuple[wire.Limit, ...] = ()
    unique: wire.Unique | None = None
    deadline_ms: int = 0
    start_by_ms: int = 0
    parents: wire.Parents | None = None
    is_held: bool = False


@lru_cache(maxsize=1024)
def of_batch(batch: str) -> Extras:
    """The extras of jobs that have nothing but a batch: one object for all of them."""
    return Extras(USES_BATCH, batch)


def extras_of(created: wire.CreateJob | wire.JobSpec, created_ms: int) -> Extras | None:
    """The extras of a job that is created in this way at this time (unix milliseconds); None for most."""
    uses = 0
    if created.batch is not None:
        uses = USES_BATCH
    if created.limits:
        uses |= USES_LIMITS
    if created.unique is not None:
        uses |= USES_UNIQUE
    if created.deadline is not None or created.expires_in_s is not None:
        uses |= USES_TIMES
    if created.parents is not None:
        uses |= USES_PARENTS
    if created.parent is not None and created.parent.kind is BATCH and created.parent.job_id != created.batch:
        uses |= AFTER_BATCH
    if not uses:
        return None
    if uses == USES_BATCH and created.batch is not None:
        return of_batch(created.batch)
    return Extras(
        uses,
        created.batch,
        created.limits,
        created.unique,
        0 if created.deadline is None else time_ms(created.deadline),
        0 if created.expires_in_s is None else created_ms + round(created.expires_in_s * 1000),
        created.parents,
    )
