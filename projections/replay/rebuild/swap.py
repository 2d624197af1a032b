"""The exchange of schemas: one short transaction, in which nobody is in the midst of reading or writing them.

Names are looked up anew by every statement, while a transaction may consist of several: one that was open during the
renaming would begin in the one tables and end in the others. So the tables are locked first, and each transaction
of others is wholly before or wholly after:

1. Take the lock of migrations, and SHARE UPDATE EXCLUSIVE on the live tables. That stops neither readers nor the
   projector, but ends an autovacuum and keeps another from starting. Without it, step 3 would wait for one.
2. Lock `offsets` against writers. Each transaction of a projector begins there (projector/tables.py): the one that is
   open ends, the next one waits. Readers go on. Now the new tables take what the live ones are ahead, so that no
   reader sees time go backwards.
3. Lock `offsets` against readers, too: the monitor locks it before all else (monitor/reads.py). Then all other
   tables, for readers that are not Joblog's own. Wait for `LOCK_MAX_S` at most, which is less than it takes Postgres
   to see a deadlock: such a reader may hold one table and ask for another. If somebody reads for longer, let go of
   everything, and try again.
4. Take the rights that others have over, rename, and commit.

Who waited looks the names up again, and finds the new tables. A projector sees by the identity of `offsets` that its
staging tables belong to other ones, and by the compare-and-set that it is elsewhere in the log; it opens them anew.
"""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, LiteralString

import psycopg
from joblog.projections.replay.rebuild.schemas import SQL, Connection, Refused, Schemas, remark, table_names
from joblog.projections.schema.schema import migration_lock
from joblog.streams.errors import ProjectionError
from psycopg import sql
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_random

log = logging.getLogger(__name__)

#: How long readers may be kept waiting for one try; Postgres looks for deadlocks after a second.
LOCK_MAX_S: Final = 0.4
#: Steps 1 and 2: ends an autovacuum, and waits for a batch of the projector.
QUIET_MAX_S: Final = 20.0
#: How long it is tried, with pauses in which readers and projectors go on.
TRY_S: Final = 60.0
PAUSE_S: Final = (0.2, 1.0)


Step = Callable[[], object]


class NotYet(ProjectionError):
    """The new tables could not catch up while the projector waited; tried again after a pause."""


def put_live(
    connection: Connection, schemas: Schemas, look: Step, *, approach: Step, catch_up: Step, try_s: float
) -> float:
    """The new schema becomes the live one, which becomes the old one; returns the seconds that the projector waited.

    `approach` is called before each try, and `catch_up` while the projector waits: it makes the new tables not less
    than the live ones, or raises NotYet. `look` is called while somebody else is waited for, and may raise to stop.
    """
    renames = ((schemas.live, schemas.old), (schemas.new, schemas.live))
    return _tried(lambda: _once(connection, schemas, renames, approach, catch_up), connection, schemas, look, try_s)


def exchange(connection: Connection, schemas: Schemas, look: Step, *, try_s: float) -> float:
    """The live and the old schema change places; returns for how long the projector waited, in seconds."""
    renames = ((schemas.live, schemas.between), (schemas.old, schemas.live), (schemas.between, schemas.old))

    def nothing() -> None:
        """The old tables are behind, and the projector goes on from there."""

    return _tried(lambda: _once(connection, schemas, renames, nothing, nothing), connection, schemas, look, try_s)


def _tried(once: Callable[[], float], connection: Connection, schemas: Schemas, look: Step, try_s: float) -> float:
    def waits(state: RetryCallState) -> None:
        log.info("rebuild.waits", extra={"attempt": state.attempt_number})
        look()

    retrying = Retrying(
        retry=retry_if_exception_type((NotYet, psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)),
        wait=wait_random(*PAUSE_S),
        stop=stop_after_delay(try_s),
        before_sleep=waits,
        reraise=True,
    )
    try:
        return retrying(once)
    except psycopg.errors.LockNotAvailable as error:
        row = connection.execute(SQL["holders"], {"schema": schemas.live}).fetchone()
        who = f"{row[1]} (process {row[0]})" if row else "somebody"
        raise Refused(
            f"the tables of {schemas.live!r} were in use for {try_s:.0f} s, now by {who}; they are as they were: "
            "repeat the command when that has ended"
        ) from error


def _once(
    connection: Connection, schemas: Schemas, renames: Sequence[tuple[str, str]], approach: Step, catch_up: Step
) -> float:
    approach()
    with connection.transaction():
        _wait_for_locks(connection, QUIET_MAX_S)
        connection.execute(SQL["lock_migrations"], {"name": migration_lock(schemas.live)})
        _lock(connection, schemas.live, table_names(connection, schemas.live), "SHARE UPDATE EXCLUSIVE")
        _lock(connection, schemas.live, ["offsets"], "SHARE")
        began = time.monotonic()
        catch_up()
        _wait_for_locks(connection, LOCK_MAX_S)
        _lock(connection, schemas.live, ["offsets"], "ACCESS EXCLUSIVE")
        _lock(connection, schemas.live, table_names(connection, schemas.live), "ACCESS EXCLUSIVE")
        incoming = next(before for before, after in renames if after == schemas.live)
        for (statement,) in connection.execute(
            SQL["grants"], {"source": schemas.live, "target": incoming}
        ).fetchall():
            connection.execute(statement)
        for before, after in renames:
            connection.execute(
                sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(sql.Identifier(before), sql.Identifier(after))
            )
        now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
        remark(connection, schemas.live, f"live since {now}")
        remark(connection, schemas.old, f"replaced at {now}, kept for `joblog replay rebuild --rollback`")
    return time.monotonic() - began


def _wait_for_locks(connection: Connection, seconds: float) -> None:
    connection.execute("SELECT set_config('lock_timeout', %s, true)", [f"{round(seconds * 1000)}ms"])


def _lock(connection: Connection, schema: str, tables: list[str], mode: LiteralString) -> None:
    names = sql.SQL(", ").join(sql.Identifier(schema, table) for table in tables)
    connection.execute(sql.SQL("LOCK TABLE {} IN {} MODE").format(names, sql.SQL(mode)))
