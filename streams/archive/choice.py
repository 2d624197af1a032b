"""Which events an archive is to hold: what an event says of queue, task, job and state, read no further than that."""

from typing import Final

from joblog.streams.archive.manifest import Filters
from msgspec import DecodeError, Struct, json


class _Data(Struct, frozen=True, gc=False):
    queue: str | None = None
    task: str | None = None
    state: str | None = None


class _Event(Struct, gc=False):
    type: str | None = None
    subject: str | None = None
    time: str | None = None
    data: _Data = _Data()


class Said(Struct, frozen=True):
    """What an event says of itself."""

    type: str | None
    job: str | None
    time: str | None
    queue: str | None
    task: str | None
    state: str | None


_decode: Final = json.Decoder(_Event).decode


def said_by(value: bytes | None) -> Said | None:
    """What an event says of itself; None for what cannot be read as one."""
    try:
        event = _decode(value or b"")
    except (DecodeError, RecursionError, UnicodeDecodeError):
        return None
    data = event.data
    return Said(event.type, event.subject, event.time, data.queue, data.task, data.state)


def is_chosen(value: bytes | None, filters: Filters) -> bool:
    """Whether an event passes the filters; what cannot be read passes none."""
    said = said_by(value)
    return said is not None and all(
        wanted is None or wanted == found
        for wanted, found in (
            (filters.queue, said.queue),
            (filters.task, said.task),
            (filters.job, said.job),
            (filters.state, said.state),
        )
    )
