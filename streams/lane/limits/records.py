"""What the owner of limits remembers, as records of `state`."""

from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.relations import LimitKind
from msgspec import Struct

LimitId = tuple[LimitKind, str]

#: What a job of whom the owner knows may be doing.
WAITS, GRANTED, STARTED = 0, 1, 2


class Entry(Struct, array_like=True, gc=False, tag="entry"):
    """A job that waits for a limit, has a permit, or runs with it; also the record of one of another lane.

    - epoch, ask: which question of its lane this is (claims.py). from_ms: of a rate's permit, when it begins to hold.
    """

    kind: LimitKind
    key: str
    job_id: str
    epoch: int = 0
    ask: int = 0
    tenant: str | None = None
    priority: int = 0
    created_ms: int = 0
    status: int = WAITS
    from_ms: int = 0

    @property
    def limit(self) -> LimitId:
        """The limit that it is for."""
        return self.kind, self.key


class Definition(Struct, array_like=True, gc=False, tag="limit"):
    """The record of a limit.

    - capacity, interval_ms: as the job said that asked last. set_capacity, set_interval_ms: as an operator set it,
      which holds over what jobs say; 0 if nobody did. rate: what a rate remembers.
    """

    kind: LimitKind
    key: str
    capacity: int
    interval_ms: int
    set_capacity: int = 0
    set_interval_ms: int = 0
    rate: tuple[Any, ...] = ()


class Silence(Struct, array_like=True, gc=False, tag="silence"):
    """The record of an owner that was rebuilt: it grants nothing until these lanes have said what they ask for.

    - rebuild: which rebuild that was: an answer to another one does not count.
    """

    lanes: tuple[int, ...]
    rebuild: int


def entry_key(entry: Entry) -> str:
    """The key of an entry's record."""
    return f"e:{entry.kind}:{entry.key}:{entry.job_id}"


def limit_key(limit: LimitId) -> str:
    """The key of a limit's record."""
    return f"k:{limit[0]}:{limit[1]}"


SILENCE_KEY: Final = "silence"


def interval_ms_of(limit: wire.Limit) -> int:
    """The interval of a limit in milliseconds; 0 for one that has none."""
    return 0 if limit.interval_s is None else max(round(limit.interval_s * 1000), 1)
