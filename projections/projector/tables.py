"""The projector's end of Postgres: one batch and its offsets in one transaction, exactly once.

1. Move the offsets, if they are where we left them, in the tables that we opened. That locks them: another projector
   of the same lanes waits here, finds them moved, and steps back. A rebuild that replaces the tables waits until the
   end of this transaction; the next one finds other tables, and steps back likewise.
2. Copy new jobs and all events into the tables; stage what changes the jobs that the tables hold. Note what is rare
   (workers, rejected commands, parked records) one by one.
3. Send the statement that moves the staged rows into the tables, let the caller read the next batch meanwhile, and
   count the jobs where they are and no longer where they were.
4. Commit. Whatever fails before leaves nothing; then the batch is done again, from the offsets in Postgres.

This is for batches whose jobs are new or go on from exactly what the tables hold, and whose values fit: all batches,
unless something went wrong before. Any other is rolled back and done the general way: jobs and events are all staged,
one statement finds out how each job stands to what is known, and what is there already is left as it is. A job whose
events do not go on from it makes the batch begin once more, with what is known of it.

A value that Postgres refuses fails the whole batch: it is halved until the record stands alone, and parked. The same
holds for an error that nobody foresaw, unless it is of the database or of what goes on meanwhile.
"""

import logging
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import starmap
from typing import Any, Final, LiteralString, NamedTuple

import psycopg
from joblog.projections import database
from joblog.projections.projector import gauges
from joblog.projections.projector.answers import Answering, Questions
from joblog.projections.projector.blocks import blocks_of
from joblog.projections.projector.controls import control_statement
from joblog.projections.projector.event_batch import (
    Batch,
    Entries,
    Known,
    Parked,
    Record,
    gap,
    parked,
    unforeseen,
)
from joblog.projections.projector.expiring import Expiring
from joblog.projections.projector.fold import JobRow
from joblog.projections.projector.rows import (
    batch_row,
    counted,
    ends_of,
    job_row,
    members,
    parents,
    parked_row,
    rejected_row,
    staged_event,
    worker_row,
)
from joblog.projections.schema import schema
from joblog.projections.statements import load
from joblog.streams.errors import JoblogError, OffsetConflict
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

SQL: Final = load("projector/apply.sql")
#: A batch waits this long for another writer of the same lanes.
LOCK_TIMEOUT_S: Final = 5.0
#: The log is the truth, and the offsets are lost or kept together with what was applied: a crash of Postgres
#: costs nothing but reading again. So a commit need not wait for the disk.
#: The other joins would read all jobs to find those of a batch: the planner knows too little of what is staged.
_SETTINGS: Final = (
    "SELECT set_config('synchronous_commit', 'off', false), set_config('temp_buffers', '64MB', false),"
    " set_config('work_mem', '64MB', false),"
    " set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false)"
)
#: Statements that stage jobs which the tables hold -> those that move them.
_MOVES: Final[Mapping[str, str]] = {"copy_moved_jobs": "move_jobs", "copy_changed_jobs": "change_jobs"}
#: What says that a value cannot be kept, be it the server or the driver.
_REFUSED: Final = (psycopg.Error, UnicodeEncodeError)


class _Remark(NamedTuple):
    """A row of the statement `apply_jobs`; `version` and `offset` are those that were known, or 0."""

    what: str
    job: str
    version: int
    offset: int
    lane: int
    first_offset: int
    first_version: int
    log_ms: int


class _NotSimple(Exception):
    """Some of the events do not simply go on from what the tables hold, or cannot be kept."""


Remarks = Sequence[_Remark]
_Put = Callable[[Batch, Callable[[], None]], Remarks]


class Tables:
    """A connection that applies batches; `positions` are the next offsets of the lanes, as committed.

    `beat` is called before each of the parts that a batch may have to be cut into. `sought` takes the questions about
    jobs that were applied, if anybody answers them.
    """

    def __init__(
        self,
        dsn: str,
        schema_name: str,
        lanes: Iterable[int],
        *,
        beat: Callable[[], object] = lambda: None,
        sought: Questions | None = None,
    ) -> None:
        self._beat = beat
        self._sought = sought
        self._connection = database.connect(dsn, schema_name, "joblog-projector", lock_timeout_s=LOCK_TIMEOUT_S)
        try:
            schema.check_in(self._connection, schema_name)
            self._connection.execute(_SETTINGS)
            self._tables = self._identity()  # first: whatever is swapped in after this makes the first batch fail
            self._connection.execute(SQL["stage_jobs"])
            self._connection.execute(SQL["stage_moves"])
            self._connection.execute(SQL["stage_history"])
            self.positions = self._load_positions(list(lanes))
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def apply(self, entries: Entries, meanwhile: Callable[[], None]) -> list[Parked]:
        """Apply records in the order of their lanes; returns those set aside.

        `meanwhile` is called while Postgres works, if there are events of jobs. Raises OffsetConflict when
        another projector was here, psycopg.Error when Postgres is away; then some of the records may have
        been applied.
        """
        aside: list[Parked] = []
        waiting = [entries]
        elsewhere: list[Exception] = []

        def guarded() -> None:
            try:
                meanwhile()
            except Exception as error:
                elsewhere.append(error)  # not of these records: nothing is parked for it
                raise

        while waiting:
            part = waiting.pop()
            self._beat()
            try:
                done, rest = self._apply(part, guarded)
            except Exception as error:
                if elsewhere or not _lies_in_a_record(error):
                    raise
                if len(part) == 1:
                    aside += self._park(part.records[0], error)
                else:
                    half = len(part) // 2
                    waiting += [part[half:], part[:half]]
            else:
                aside += done
                waiting += [rest] if rest else []
        return aside

    def stay_current(self, current: Iterable[int]) -> None:
        """Note that nothing was left to apply in these lanes at this moment."""
        lanes = list(current)
        expected = [self.positions[lane] for lane in lanes]
        self._connection.execute(SQL["stay_current"], {"lanes": lanes, "expected": expected})

    def gauge(self, meters: Meters) -> None:
        """Export what there is in these lanes: jobs, how long they have waited, workers."""
        gauges.show(self._connection, list(self.positions), meters)

    def expire(self, expiring: Expiring) -> None:
        """Let rows of these lanes expire, if it is time for it."""
        expiring.turn(self._connection, list(self.positions))

    def answer(self, answering: Answering) -> None:
        """Tell lanes of jobs that they have forgotten, if they asked."""
        answering.turn(self._connection)

    def _identity(self) -> int:
        [(tables,)] = self._connection.execute(SQL["tables"]).fetchall()
        return int(tables)

    def _load_positions(self, lanes: list[int]) -> dict[int, int]:
        self._connection.execute(SQL["lanes"], {"lanes": lanes})
        return dict(self._connection.execute(SQL["offsets"], {"lanes": lanes}).fetchall())

    def _apply(self, entries: Entries, meanwhile: Callable[[], None]) -> tuple[Sequence[Parked], Entries | None]:
        """At once or after a second look; returns what is set aside, and the entries that are left to do."""
        known: dict[str, Known] = {}
        reborn: set[str] = set()
        put, batch = self._put_simple, entries.batch()
        while True:
            moved = {record.lane: record for record in entries.records[: batch.length]}
            try:
                remarks = self._commit(moved, batch, reborn, put, meanwhile)
            except _NotSimple:
                remarks = ()
            else:
                if not remarks:
                    return batch.parked, entries[batch.length :] if batch.length < len(entries) else None
            put = self._put_any
            reborn |= {one.job for one in remarks if one.what == "reborn"}
            known |= {one.job: Known(one.version, one.offset) for one in remarks if one.what == "overlapping"}
            batch = entries.build(known, batch.length)

    def _park(self, record: Record, error: Exception) -> list[Parked]:
        if isinstance(error, _REFUSED):
            sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
            reason = str(error).partition("\n")[0]
            one = parked(record, "refused", f"Postgres refused it ({sqlstate or type(error).__name__}): {reason}")
        else:
            log.error("projection.failed", exc_info=error, extra={"lane": record.lane, "offset": record.offset})
            one = unforeseen(record, error)
        self._commit({record.lane: record}, Batch(parked=[one]), (), self._put_any, lambda: None)
        return [one]

    def _commit(
        self,
        moved: Mapping[int, Record],
        batch: Batch,
        reborn: Collection[str],
        put: _Put,
        meanwhile: Callable[[], None],
    ) -> Remarks:
        """One transaction; without effect if it returns the jobs whose events do not simply go on."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            self._move_offsets(cursor, moved)
            if reborn:
                cursor.execute(SQL["end_lives"], {"jobs": list(reborn)})
            _note(cursor, batch)
            remarks = put(batch, meanwhile) if batch.jobs or batch.history else ()
            if again := [one for one in remarks if one.what != "gap"]:
                raise psycopg.Rollback
            gaps = self._gaps(cursor, remarks)
            if gaps:
                cursor.executemany(SQL["park"], [parked_row(one) for one in gaps])
        if not again:
            batch.parked += gaps
            self.positions |= {lane: record.offset + 1 for lane, record in moved.items()}
            if batch.sought and self._sought is not None:
                self._sought |= batch.sought
        return again

    def _put_simple(self, batch: Batch, meanwhile: Callable[[], None]) -> Remarks:
        """New jobs, and those that go on from what the tables hold; _NotSimple if there are others.

        What the server or a block refuses is _NotSimple, too: the general way says exactly what is wrong.
        """
        if not batch.is_regular:
            raise _NotSimple
        rows = batch.jobs.values()
        new = [row for row in rows if row.first_version == 1]
        moved = len(rows) - len(new)
        connection = self._connection
        try:
            statements = self._copy_blocks(rows)
            with connection.pipeline(), connection.cursor() as counts:
                moving = [connection.execute(SQL[name], prepare=False) for name in statements]
                meanwhile()
                moves = [move for cursor in moving for move in cursor.fetchall()]
                if sum(move[-1] for move in moves) != moved:
                    raise _NotSimple
                counts.execute(SQL["count_new"], counted(new, moves))
                if batch.ends:
                    counts.execute(SQL["count_ends"], ends_of(batch.ends))
        except psycopg.Error as error:
            if database.is_data(error):
                raise _NotSimple from error
            raise
        return ()

    def _copy_blocks(self, rows: Collection[JobRow]) -> list[str]:
        """Copy all; returns what moves those that were staged. _NotSimple for a value that no block can hold."""
        moves = []
        try:
            with self._connection.cursor() as cursor:
                for statement, block in blocks_of(rows):
                    with cursor.copy(SQL[statement]) as copy:
                        for part in block:
                            copy.write(part)
                    if statement in _MOVES:
                        moves.append(_MOVES[statement])
        except (struct.error, ValueError) as error:
            raise _NotSimple from error
        return moves

    def _put_any(self, batch: Batch, meanwhile: Callable[[], None]) -> Remarks:
        """Jobs and history, some of which the tables may hold."""
        with self._connection.cursor() as cursor:
            _copy(cursor, SQL["copy_jobs"], map(job_row, batch.jobs.values()))
            _copy(cursor, SQL["copy_history"], starmap(staged_event, batch.history or ()))
        with self._connection.pipeline(), self._connection.cursor() as jobs, self._connection.cursor() as history:
            # A plan that was made for big batches would read the whole table for a small one.
            jobs.execute(SQL["apply_jobs"], prepare=False)
            history.execute(SQL["apply_history"])
            meanwhile()
            return [_Remark(*row) for row in jobs.fetchall()]

    def _gaps(self, cursor: psycopg.Cursor[Any], remarks: Remarks) -> list[Parked]:
        """What to park of jobs that lack events; those whose rows have expired come back without what was before."""
        unknown = [one for one in remarks if one.what == "gap" and not one.version]
        if not unknown:
            return [_gap(one) for one in remarks]
        jobs, versions = [one.job for one in unknown], [one.first_version for one in unknown]
        returned = {job for (job,) in cursor.execute(SQL["returned"], {"jobs": jobs, "versions": versions})}
        return [_gap(one) for one in remarks if one.job not in returned]

    def _move_offsets(self, cursor: psycopg.Cursor[Any], moved: Mapping[int, Record]) -> None:
        cursor.execute(
            SQL["move_offsets"],
            {
                "lanes": list(moved),
                "expected": [self.positions[lane] for lane in moved],
                "next": [record.offset + 1 for record in moved.values()],
                "log_ms": [record.log_ms for record in moved.values()],
                "tables": self._tables,
            },
        )
        if cursor.rowcount != len(moved):
            raise OffsetConflict(
                f"another projector applied events of the lanes {sorted(moved)} meanwhile, or a rebuild replaced the "
                "tables; let one projector write to a schema"
            )


def _lies_in_a_record(error: Exception) -> bool:
    """Whether one of the records may be at fault: not the database, another projector, or this machine."""
    if isinstance(error, psycopg.Error):
        return database.is_data(error) or (isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None)
    return not isinstance(error, JoblogError | OSError | MemoryError)


def _copy(cursor: psycopg.Cursor[Any], statement: LiteralString, rows: Iterable[tuple[Any, ...]]) -> None:
    with cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def _note(cursor: psycopg.Cursor[Any], batch: Batch) -> None:
    if batch.workers:
        cursor.executemany(SQL["apply_worker"], [worker_row(record, fact) for record, fact in batch.workers.values()])
    if batch.members:
        cursor.execute(SQL["add_members"], members(batch.members))
    if batch.parents:
        cursor.execute(SQL["add_parents"], parents(batch.parents))
    if batch.batches:
        cursor.executemany(SQL["apply_batch"], [batch_row(record, fact) for record, fact in batch.batches.values()])
    if batch.rejected:
        cursor.executemany(SQL["apply_rejected"], [rejected_row(record, fact) for record, fact in batch.rejected])
    for record, control in batch.controls:  # few, and each goes on from the one before
        cursor.execute(*control_statement(record, control))
    if batch.parked:
        cursor.executemany(SQL["park"], [parked_row(one) for one in batch.parked])


def _gap(remark: _Remark) -> Parked:
    record = Record(remark.lane, remark.first_offset, remark.log_ms, None)
    return gap(record, remark.job, remark.version, remark.first_version)
