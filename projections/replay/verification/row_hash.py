"""The text of a row, of which log and Postgres make the same hash. Pure."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Final

from joblog.projections.replay.verification.trace import Trace

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_BETWEEN: Final = "\x1f"
_NULL: Final = "\x1e"


def row_digest(trace: Trace) -> int:
    """The digest of the row that a job must have, without its parameters; as the statement `row_hashes`."""
    return digest_of(row_text(trace))


def digest_of(data: bytes) -> int:
    """The first eight bytes of a hash, as Postgres reads them as a number."""
    return int.from_bytes(sha256(data).digest()[:8], "big", signed=True)


def row_text(trace: Trace) -> bytes:
    """The columns in the order of the statement `row_hashes`."""
    return _BETWEEN.join(
        (
            trace.key.hex(),
            f"{trace.lane}\x1f{trace.state}\x1f{trace.version}\x1f{trace.attempt}\x1f{trace.retry or 0}",
            f"{trace.priority or 0}\x1f{trace.queue}\x1f{trace.task}\x1f{trace.offset}",
            _microseconds(trace.created_at),
            _microseconds(trace.changed_at),
            _NULL if trace.due is None else _microseconds(trace.due),
            _NULL if trace.state_version is None else str(trace.state_version),
            _NULL if trace.lease is None else str(trace.lease),
            trace.worker or _NULL,
            trace.parent or _NULL,
            trace.on or _NULL,
            _NULL if trace.exception_type is None else trace.exception_type,
            _NULL if trace.exception_message is None else trace.exception_message.hex(),
            _NULL if trace.spec is None else trace.spec.hex(),
        )
    ).encode()


@lru_cache(maxsize=8192)
def _microseconds(time: str) -> str:
    return str((datetime.fromisoformat(time) - _EPOCH) // _MICROSECOND)
