"""The files of what-if: what depends on others, how all others ended, and what events tell of batches."""

from typing import Final, NamedTuple

from joblog.streams.contract import wire
from joblog.streams.replay.batch_jobs import waits_for_start
from joblog.streams.replay.batches import moves_of
from joblog.streams.replay.history import Cancelled, End, History, Outside
from joblog.streams.replay.packed import packed
from joblog.streams.replay.spool import Spool
from joblog.streams.replay.stored import StoredBatch
from msgspec import Struct, msgpack


class Files(NamedTuple):
    """Jobs that depend on others; how all others ended, and would end; events of batches."""

    waiting: Spool
    ends: Spool
    batches: Spool


class Waiting(Struct, array_like=True):
    """A job that depends on others.

    - parents: what it waits for, besides the begin of its batch; several: whether it was created to wait for several.
    - moves: when it came to be and ended, as its batch counts it.
    - stopped: whether the cancellation of its batch ended a run of it.
    """

    job_id: str
    is_chosen: bool
    batch: str | None
    parents: tuple[str, ...]
    several: bool
    moves: list[int]
    stopped: bool
    history: bytes


_encode: Final = msgpack.Encoder().encode
waiting: Final = msgpack.Decoder(Waiting).decode
ends_of: Final = msgpack.Decoder(tuple[str, list[End], list[End] | None]).decode
batch_event: Final = msgpack.Decoder(tuple[str, wire.BatchEvent, int, str]).decode


def waiting_record(history: History, *, is_chosen: bool) -> bytes:
    """A job that depends on others, for the file `waiting`."""
    created = history.create
    parents = () if created.parents is None else tuple(dict.fromkeys(created.parents.job_ids))
    if created.parent is not None and not waits_for_start(created):
        parents = (created.parent.job_id,)
    moves = [] if created.batch is None else moves_of(history.created_ms, history.ends)
    stopped = any(
        isinstance(one, Outside) and isinstance(one.what, Cancelled) and one.what.running for one in history.steps
    )
    return _encode(
        Waiting(
            history.job.id,
            is_chosen,
            created.batch,
            parents,
            created.parents is not None,
            moves,
            stopped,
            packed(history),
        )
    )


def ends_record(history: History, simulated: list[End]) -> bytes:
    """How a job that depends on no other one ended, and would end, for the file `ends`."""
    return _encode((history.job.id, history.ends, None if simulated == history.ends else simulated))


def batch_record(stored: StoredBatch) -> bytes:
    """An event of a batch, for the file `batches`."""
    return _encode(tuple(stored))
