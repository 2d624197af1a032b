"""Connections to Postgres with the one safe profile, and what its errors mean."""

from typing import Any, Final

import psycopg
from joblog.streams.errors import ProjectionError, SettingsError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

#: Nothing waits for ever: in seconds, but for tcp_user_timeout, which is in milliseconds.
CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_S: Final = 30
LOCK_TIMEOUT_S: Final = 2
IDLE_IN_TRANSACTION_TIMEOUT_S: Final = 30
TCP_USER_TIMEOUT_MS: Final = 15_000

#: Errors that pass by themselves, by SQLSTATE or its class: connection (08), transaction rolled back (40),
#: resources (53), operator intervention (57), system (58), lock not available, a transaction that idled too
#: long, a server that turned read-only (a failover), a snapshot that a standby cancelled.
_PASSING: Final = ("08", "40", "53", "57", "58", "55P03", "25P03", "25P04", "25006", "72000")
#: Errors that lie in the data: no row (21), data (22), constraint (23), program limit (54).
_DATA: Final = ("21", "22", "23", "54")
#: The schema is not the one this version knows, or this user may not use it.
_SCHEMA: Final = ("3F", "42")

_SETTINGS: Final = (
    "SELECT set_config('search_path', %(schema)s, false), set_config('timezone', 'UTC', false),"
    " set_config('statement_timeout', %(statement)s, false), set_config('lock_timeout', %(lock)s, false),"
    " set_config('idle_in_transaction_session_timeout', %(idle)s, false), set_config('jit', 'off', false)"
)


def conninfo(dsn: str, application: str) -> str:
    """The address with the limits of the network and the name that `pg_stat_activity` shows.

    SettingsError when it cannot be read; neither that nor its traceback tells the address, which holds a password.
    """
    try:
        return make_conninfo(
            dsn,
            application_name=application,
            connect_timeout=CONNECT_TIMEOUT_S,
            tcp_user_timeout=TCP_USER_TIMEOUT_MS,
            keepalives_idle=30,
            keepalives_interval=5,
            keepalives_count=3,
        )
    except psycopg.ProgrammingError:
        raise SettingsError(
            "the address of Postgres (JOBLOG_POSTGRES__DSN) cannot be read: write "
            "postgresql://user:password@host:port/database, with %XX for what is special in URLs"
        ) from None


def place(address: str) -> str:
    """Where an address leads, without what is secret in it."""
    found = conninfo_to_dict(address)
    server = f"{found.get('host') or found.get('hostaddr') or 'this machine'}:{found.get('port') or 5432}"
    return f"{server}, database {found.get('dbname') or found.get('user') or 'of the user'}"


def why(error: psycopg.Error) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def connect(
    dsn: str, schema: str, application: str, *, lock_timeout_s: float = LOCK_TIMEOUT_S
) -> psycopg.Connection[Any]:
    """A connection in autocommit, on this schema, in UTC."""
    connection = psycopg.connect(conninfo(dsn, application), autocommit=True)
    try:
        configure(connection, schema, lock_timeout_s=lock_timeout_s)
    except BaseException:
        connection.close()
        raise
    return connection


def configure(connection: psycopg.Connection[Any], schema: str, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
    """Set what a connection of ours needs; by statements, as poolers refuse the start-up parameter `options`."""
    connection.execute(
        _SETTINGS,
        {
            "schema": schema,
            "statement": f"{STATEMENT_TIMEOUT_S}s",
            "lock": f"{round(lock_timeout_s * 1000)}ms",
            "idle": f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s",
        },
    )


def is_passing(error: psycopg.Error) -> bool:
    """Whether the same again, later, may succeed. An error without SQLSTATE is a lost connection."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_PASSING)


def is_data(error: psycopg.Error) -> bool:
    """Whether Postgres refused a value, rather than the statement or the moment."""
    return error.sqlstate.startswith(_DATA) if error.sqlstate else isinstance(error, psycopg.DataError)


def is_schema(error: psycopg.Error) -> bool:
    """Whether the tables are not those that this version knows."""
    return error.sqlstate is not None and error.sqlstate.startswith(_SCHEMA)


def sqlstate_class(error: psycopg.Error) -> str:
    """The first two characters of the SQLSTATE, for metrics; 08 (connection) when there is none."""
    return (error.sqlstate or "08")[:2]


class DatabaseAway(ProjectionError):
    """Postgres does not answer, or not in time; the same question may be answered later."""


def away(address: str, error: psycopg.Error) -> DatabaseAway:
    """The error that says where Postgres should be, and why it does not answer."""
    return DatabaseAway(f"Postgres does not answer at {place(address)}: {why(error)}")


def check_answers(dsn: str, schema: str) -> None:
    """Raises DatabaseAway at once if no server is there; a pool would go on trying for a while."""
    try:
        connect(dsn, schema, "joblog-monitor").close()
    except psycopg.Error as error:
        raise away(conninfo(dsn, "joblog-monitor"), error) from error
