"""The tables as they were at one instant, which a fold of the log up to their own offsets must equal."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

import psycopg
from joblog.projections import database
from joblog.projections.expiry.passing import SQL as EXPIRY
from joblog.projections.expiry.passing import expired_by
from joblog.projections.expiry.rules import batches_before, read
from joblog.projections.replay.verification.aside import Aside, instant
from joblog.projections.replay.verification.lane_sums import Sums
from joblog.projections.schema.schema import check_in
from joblog.projections.statements import load
from joblog.streams.contract.states import State
from psycopg import sql
from psycopg.rows import dict_row

SQL: Final = load("replay/verification/tables.sql")
_ROWS: Final = 2_000
#: The tables of what is of no job, and what their rows say beside their place and time.
_ASIDES: Final = {
    "parked": ("code", "reason", "raw"),
    "rejected": ("code", "reason", "command", "command_id", "job", "position", "existing"),
}


class Row(NamedTuple):
    """A row of `jobs`, with digests of what is long; parameters as JSON, see compare."""

    lane: int
    state: str
    version: int
    attempt: int
    retry: int
    priority: int
    queue: str
    task: str
    created_at: datetime
    changed_at: datetime
    due: datetime | None
    worker: str | None
    lease: int | None
    parent: str | None
    continue_on: str | None
    exception_type: str | None
    exception_message: bytes | None
    spec: bytes | None
    parameters: str | bytes | None
    log_offset: int
    state_version: int | None


class Kept(NamedTuple):
    """The history of a job: how many events, and the sum of their digests."""

    events: int
    digests: int


class Mark(NamedTuple):
    """Of a kind of jobs or batches: when the last one ended whose row has expired, and how many have."""

    through: datetime
    n: int


#: Lane, queue, task, state -> what has expired of them.
Marks = Mapping[tuple[int, str, str, str], Mark]

#: Lane, state -> what has expired of batches.
BatchMarks = Mapping[tuple[int, str], Mark]


class Overdue(NamedTuple):
    """A row that should have expired."""

    state: State
    task: str
    job: str
    lane: int
    queue: str
    changed_at: datetime
    kind: str = "job"


class Snapshot:
    """The tables at one instant, over several connections that see the same; a context manager.

    Postgres keeps what it would clean up for as long as this is open.
    """

    def __init__(self, dsn: str, schema: str) -> None:
        self._dsn, self._schema = dsn, schema
        self._stack = ExitStack()
        self._name = ""

    def __enter__(self) -> Self:
        try:
            self._connection = self._connect()
            ((self._name,),) = self._connection.execute(SQL["snapshot"]).fetchall()
            self.offsets: dict[int, int] = dict(self._connection.execute(SQL["offsets"]).fetchall())
            self.refused: set[tuple[int, int]] = set(self._connection.execute(SQL["refused"]).fetchall())
            self.expired: Marks = {
                (lane, queue, task, state): Mark(through, n)
                for lane, queue, task, state, through, n in self._connection.execute(SQL["expired"])
            }
            self.expired_batches: BatchMarks = {
                (lane, state): Mark(through, n)
                for lane, state, through, n in self._connection.execute(SQL["expired_batches"])
            }
            self.outcomes_from: dict[tuple[int, str], datetime] = {
                (lane, period): before for lane, period, before in self._connection.execute(SQL["expired_outcomes"])
            }
        except psycopg.OperationalError as error:
            self._stack.close()
            raise database.away(self._dsn, error) from error
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def sums(self) -> Sums:
        """What rows and history add up to; parameters are not in it."""
        sums = Sums()
        for lane, jobs, digests in self.rows("row_hashes"):
            sums.jobs[lane], sums.rows[lane] = jobs, int(digests)
        for home, events, digests in self.rows("history_hashes"):
            sums.events[home], sums.history[home] = events, int(digests)
        return sums

    def cancel(self) -> None:
        """Let Postgres stop what another thread asks."""
        self._connection.cancel()

    def parameters(self) -> Iterator[tuple[bytes, tuple[int, str]]]:
        """Lane and parameters of every job that has any, in the order of ids."""
        for key, lane, text in self._streamed("parameters", {}):
            yield bytes(key), (lane, text)

    def jobs(self, lanes: Collection[int]) -> Iterator[tuple[bytes, Row]]:
        """Every job of these lanes in the order of ids."""
        for key, *columns in self._streamed("jobs", {"lanes": list(lanes)}):
            yield bytes(key), Row(*columns)

    def history(self, lanes: Collection[int]) -> Iterator[tuple[bytes, Kept]]:
        """The history of every job whose id names one of these lanes, in the order of ids."""
        for key, count, digests in self._streamed("history", {"lanes": list(lanes)}):
            yield bytes(key), Kept(count, int(digests))

    def returned(self) -> Iterator[tuple[bytes, int]]:
        """Every job that came back after its row had expired, and from which version on, in the order of ids."""
        for key, version in self._streamed("returned", {}):
            yield bytes(key), version

    def left_jobs(self) -> Iterator[tuple[bytes, Row]]:
        """The rows that may be gone and are there, and those that came back, in the order of ids."""
        for key, *columns in self._streamed("left_jobs", {}):
            yield bytes(key), Row(*columns)

    def left_history(self) -> Iterator[tuple[bytes, Kept]]:
        """The history of the jobs of `left_jobs`, in the order of ids."""
        for key, count, digests in self._streamed("left_history", {}):
            yield bytes(key), Kept(count, int(digests))

    def overdue(self) -> Iterator[Overdue]:
        """The rows that the last complete pass of expiry had to delete."""
        for until, text, lanes in self._connection.execute(EXPIRY["passes"]).fetchall():
            for state, task, row in expired_by(self._connection, "overdue", lanes, read(text), until):
                yield Overdue(state, task, *row)
            for state, before in batches_before(read(text), until):
                given = {"state": state, "before": before, "lanes": lanes}
                for batch, lane, at in self._connection.execute(EXPIRY["overdue_batches"], given, prepare=False):
                    yield Overdue(state, "", batch, lane, "", at, "batch")

    def asides(self, lanes: Collection[int] | None) -> Iterator[Aside]:
        """The rows of `parked` and `rejected`, in the order of their keys; of these lanes, or of all."""
        for table, columns in _ASIDES.items():
            for lane, offset, at, *values in self._streamed(table, {"lanes": list(lanes) if lanes else None}):
                yield Aside(table, lane, offset, {"at": instant(at), **dict(zip(columns, values, strict=True))})

    def rows(self, name: str, **values: Any) -> list[tuple[Any, ...]]:
        """All rows of one of the small queries."""
        return self._connection.execute(SQL[name], values).fetchall()

    def documents(self, name: str, **values: Any) -> list[dict[str, Any]]:
        """As `rows`, by the names of their columns."""
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(SQL[name], values).fetchall()

    def _streamed(self, name: str, values: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """On a connection of its own, so that Postgres works on while its rows are looked at here."""
        connection = self._connect()
        with connection.cursor(binary=True) as cursor:
            yield from cursor.stream(SQL[name], values, size=_ROWS)
        connection.close()

    def _connect(self) -> psycopg.Connection[Any]:
        connection = self._stack.enter_context(database.connect(self._dsn, self._schema, "joblog-replay"))
        check_in(connection, self._schema)
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute("SELECT set_config(%(name)s, '0', false)", {"name": setting})
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if self._name:
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(self._name)))
        return connection


def positions(dsn: str, schema: str) -> tuple[dict[int, int], set[tuple[int, int]]]:
    """How far the tables are now, and the events that they have refused."""
    with Snapshot(dsn, schema) as now:
        return now.offsets, now.refused
