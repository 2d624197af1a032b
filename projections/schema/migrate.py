"""Brings the database schema to this version: alembic, run from here, on statements kept as SQL.

Imported by the command that migrates only, since alembic and SQLAlchemy cost 0.3 s and 20 MB.
"""

from pathlib import Path
from typing import Any

import psycopg
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from joblog.projections import database
from joblog.projections.database import away
from joblog.projections.schema.schema import VERSION_TABLE, check, checked_name, current, migration_lock
from joblog.streams.errors import SchemaError
from psycopg import sql
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

__all__ = ["check", "current", "head", "upgrade"]

_DIRECTORY = Path(__file__).parent / "migrations"
LOCK_TIMEOUT_S = 60


def head() -> str:
    """The newest migration of this version."""
    newest = _scripts().get_current_head()
    assert newest is not None
    return newest


def upgrade(dsn: str, schema: str) -> str | None:
    """Apply what is missing, all in one transaction; returns the migration that the schema was at before.

    Processes that migrate at the same time wait for each other. Raises SchemaError when the schema is newer
    than this version, or when another process holds it for longer than `LOCK_TIMEOUT_S`, and DatabaseAway, caused
    by psycopg's error, when Postgres does not answer.
    """
    checked_name(schema)
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: _connected(dsn, schema),
        poolclass=NullPool,
    )
    try:
        with engine.begin() as connection:
            return _upgraded(connection, schema)
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.OperationalError) and database.is_passing(error.orig):
            raise away(dsn, error.orig) from error.orig
        raise error.orig or error from error
    finally:
        engine.dispose()


def _connected(dsn: str, schema: str) -> psycopg.Connection:
    connection = database.connect(dsn, schema, "joblog-migrate", lock_timeout_s=LOCK_TIMEOUT_S)
    # Building an index on a large table takes as long as it takes.
    connection.execute("SELECT set_config('statement_timeout', '0', false)")
    connection.autocommit = False
    return connection


def _upgraded(connection: Connection, schema: str) -> str | None:
    try:
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": migration_lock(schema)}
        )
    except Exception as exc:
        if isinstance(exc.__cause__, psycopg.errors.LockNotAvailable):
            raise SchemaError(f"another process has been migrating {schema!r} for {LOCK_TIMEOUT_S} s") from exc
        raise
    # Not IF NOT EXISTS: that needs the right to create one, also where somebody else has made it.
    if not connection.scalar(text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": schema}):
        connection.exec_driver_sql(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)).as_string())
    scripts = _scripts()
    before: list[str] = []

    def steps(revision: Any, _context: MigrationContext) -> Any:
        before.extend([revision] if isinstance(revision, str) else revision)
        if before and before[0] not in {script.revision for script in scripts.walk_revisions()}:
            raise SchemaError(f"the schema {schema!r} is at {before[0]}, newer than this version: update joblog")
        return scripts._upgrade_revs("head", revision)

    context = MigrationContext.configure(
        connection,
        opts={"fn": steps, "version_table": VERSION_TABLE, "version_table_schema": schema, "script": scripts},
    )
    with Operations.context(context):
        context.run_migrations()
    return before[0] if before else None


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_DIRECTORY), version_locations=[str(_DIRECTORY)])
