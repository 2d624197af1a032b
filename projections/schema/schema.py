"""The database schema that this version of Joblog reads and writes, and whether it is there."""

import re
from typing import Final

import psycopg
from joblog.projections import database
from joblog.streams.errors import SchemaError
from psycopg import sql

#: The last migration; a test holds it equal to the newest file in migrations/.
HEAD: Final = "0001"
VERSION_TABLE: Final = "schema_version"

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def checked_name(schema: str) -> str:
    """The name of a schema, if it may be one; SchemaError if not."""
    if not _NAME.fullmatch(schema):
        raise SchemaError(
            f"{schema!r} cannot name a schema: use up to 63 of a-z, 0-9 and _, and no digit at the start"
        )
    return schema


def migration_lock(schema: str) -> str:
    """The name of the lock that everybody takes who changes what tables a schema has."""
    return f"joblog {schema}"


def current(dsn: str, schema: str) -> str | None:
    """The last migration that was applied to the schema; None when it is missing."""
    with database.connect(dsn, schema, "joblog-schema") as connection:
        return current_in(connection, schema)


def current_in(connection: psycopg.Connection, schema: str) -> str | None:
    """As `current`, on a connection at hand (in autocommit)."""
    table = sql.Identifier(checked_name(schema), VERSION_TABLE)
    try:
        row = connection.execute(sql.SQL("SELECT version_num FROM {}").format(table)).fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    return None if row is None else str(row[0])


def check(dsn: str, schema: str) -> None:
    """Raise SchemaError, naming the command that helps, unless the schema is the one of this version."""
    with database.connect(dsn, schema, "joblog-schema") as connection:
        check_in(connection, schema)


def check_in(connection: psycopg.Connection, schema: str) -> None:
    """As `check`, on a connection at hand (in autocommit)."""
    found = current_in(connection, schema)
    if found == HEAD:
        return
    if found is None:
        raise SchemaError(f"the database has no tables in schema {schema!r}: run `joblog migrate`")
    if found < HEAD:
        raise SchemaError(
            f"the database schema {schema!r} is at {found}, this version needs {HEAD}: run `joblog migrate`"
        )
    raise SchemaError(
        f"the database schema {schema!r} is at {found}, newer than this version's {HEAD}: update joblog; "
        "`joblog migrate` never goes back"
    )


def drop(dsn: str, schema: str) -> None:
    """Remove the schema with all that is in it; everything can be built again from the log."""
    with database.connect(dsn, schema, "joblog-schema") as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(checked_name(schema))))
