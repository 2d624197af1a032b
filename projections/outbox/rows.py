"""The rows of an outbox, as its relay and its operators use them; psycopg's errors come through."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

import psycopg
from joblog.projections import database
from joblog.projections.schema.schema import checked_name
from joblog.projections.statements import load
from joblog.streams.errors import SchemaError
from joblog.streams.outbox.marks import Row

SQL: Final = load("outbox/outbox.sql")
CHANNEL: Final = "joblog_outbox"
#: More than so many rows that wait are not counted: that would take too long.
COUNTED_MAX: Final = 100_000
#: Rows are read until they have so many bytes: they are in memory, and go into one transaction of Kafka.
BATCH_BYTES: Final = 16 * 1024 * 1024
#: A session of which the server hears nothing for so long is ended by it, and its lock with it: that of a relay which
#: hangs, or whose machine is gone.
IDLE_S: Final = 30
APPLICATION: Final = "joblog-outbox"


class Status(NamedTuple):
    """How many rows wait (COUNTED_MAX + 1 for any more), since when the first one does, and how many are parked."""

    waiting: int
    oldest: datetime | None
    parked: int


class ParkedRow(NamedTuple):
    """A row that could not be relayed, and why."""

    id: int
    created_at: datetime
    job_id: str
    lane: int
    value_bytes: int
    error: str
    value: bytes


class OutboxRows:
    """A connection to one outbox, in autocommit; a session lock and notifications need one without a pooler."""

    identity: str

    def __init__(self, dsn: str, schema: str) -> None:
        self._connection = database.connect(dsn, checked_name(schema), APPLICATION)
        try:
            # Rows that are gone are in the log, and must not come back with a crash of the server.
            self._connection.execute("SET synchronous_commit TO on")
            self._connection.execute(f"SET idle_session_timeout TO '{IDLE_S}s'")
            self._connection.execute(f"LISTEN {CHANNEL}")
            (self.identity,) = self._row("identity")
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """End the session, and with it the lock."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self) -> bool:
        """Whether this is the one relay of the outbox now; until the connection ends."""
        return bool(self._row("lock")[0])

    def ping(self) -> None:
        """Let the server hear of this session."""
        self._connection.execute("SELECT")

    def wait(self, timeout_s: float) -> bool:
        """Whether somebody has committed rows within this time; returns when that is known."""
        return any(True for _ in self._connection.notifies(timeout=timeout_s, stop_after=1))

    def waiting(self, limit: int, bytes_max: int = BATCH_BYTES) -> list[Row]:
        """The next rows to relay; those of a transaction that commits later come with a later call."""
        return self._rows("waiting", limit=limit, bytes=bytes_max)

    def named(self, ids: Sequence[int]) -> list[Row]:
        """Those of these rows that are still there."""
        return self._rows("named", ids=list(ids))

    def delete(self, ids: Sequence[int]) -> None:
        """Forget rows that are in the log; when this returns, they are gone for good."""
        self._connection.execute(SQL["delete"], {"ids": list(ids)})

    def park(self, row_id: int, error: str) -> None:
        """Set a row aside for an operator."""
        self._connection.execute(SQL["park"], {"id": row_id, "error": error})

    # --- for operators ---

    def status(self) -> Status:
        return Status(*self._row("status"))

    def parked(self, limit: int) -> list[ParkedRow]:
        """The parked rows, oldest first."""
        found = self._connection.execute(SQL["parked"], {"limit": limit}).fetchall()
        return [ParkedRow(*row) for row in found]

    def retry(self, ids: Sequence[int] | None) -> int:
        """Let parked rows wait again, behind all others; None means all. Returns how many there were."""
        return self._changed("retry", ids)

    def discard(self, ids: Sequence[int] | None) -> int:
        """Delete parked rows; None means all. Returns how many there were."""
        return self._changed("discard", ids)

    def _changed(self, statement: str, ids: Sequence[int] | None) -> int:
        given = None if ids is None else list(ids)
        return self._connection.execute(SQL[statement], {"ids": given}).rowcount

    def _rows(self, statement: str, **parameters: Any) -> list[Row]:
        return [Row(*row) for row in self._connection.execute(SQL[statement], parameters).fetchall()]

    def _row(self, statement: str) -> tuple[Any, ...]:
        found: tuple[Any, ...] | None = self._connection.execute(SQL[statement]).fetchone()
        if found is None:
            raise SchemaError("the outbox has no identity: its table outbox_identity is empty")
        return found


def understood(error: psycopg.Error, schema: str) -> Exception:
    """SchemaError if the outbox is not there, or not for this user; else the error itself."""
    if not database.is_schema(error):
        return error
    return SchemaError(
        f"there is no outbox in schema {schema}, or this user has no rights on it ({database.why(error)}): "
        "`joblog outbox create` makes it, and its --help names the rights"
    )
