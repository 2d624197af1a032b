"""Runs a statement in the transaction of whatever connection the caller has; found out by what it can do.

Taken are connections of psycopg and psycopg2, SQLAlchemy's connections and sessions on these drivers, and Django's
`connection`. SQLAlchemy and Django are asked themselves, not the driver below them: they keep account of whether a
transaction has begun, and one that they do not know of they would not commit.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Any, Final

from joblog.streams.errors import InvalidData

#: Runs a statement with named parameters, or without any.
Execute = Callable[[str, Mapping[str, Any] | None], object]
AwaitExecute = Callable[[str, Mapping[str, Any] | None], Awaitable[object]]

#: Runs a statement, and returns its rows.
Fetch = Callable[[str], Sequence[Any]]

_TAKEN: Final = "a connection of psycopg or psycopg2, of SQLAlchemy on one of them, or Django's"
_TAKEN_ASYNC: Final = "an AsyncConnection of psycopg, or an AsyncConnection or AsyncSession of SQLAlchemy on psycopg"


def executing(connection: Any) -> Execute:
    """What runs statements in the connection's transaction; InvalidData for a connection that cannot be used."""
    if _can(connection, "exec_driver_sql"):  # SQLAlchemy's Connection
        _refuse_awaited(connection, "exec_driver_sql")
        _check_name(connection.dialect.name)
        _check_driver(connection.dialect.driver)
        return _of_sqlalchemy(connection)
    if _can(connection, "cursor"):
        if hasattr(connection, "vendor"):  # Django's
            _check_name(connection.vendor)
        else:
            _check_psycopg(connection)
        _refuse_awaited(connection, "commit")
        return _of_cursors(connection)
    if _can(connection, "connection") and _can(connection, "flush"):  # SQLAlchemy's Session
        _refuse_awaited(connection, "connection")
        return executing(connection.connection())
    raise _not_taken(connection, _TAKEN)


def fetching(connection: Any) -> Fetch:
    """What reads in the connection's transaction; InvalidData for a connection that cannot be used."""
    executing(connection)
    if _can(connection, "exec_driver_sql"):
        return lambda statement: connection.exec_driver_sql(statement).fetchall()
    if not _can(connection, "cursor"):
        return fetching(connection.connection())

    def fetch(statement: str) -> Sequence[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            rows: Sequence[Any] = cursor.fetchall()
            return rows

    return fetch


async def awaiting(connection: Any) -> AwaitExecute:
    """As `executing`, for connections whose calls are awaited."""
    if _can(connection, "exec_driver_sql"):  # SQLAlchemy's AsyncConnection
        _refuse_plain(connection, "exec_driver_sql")
        _check_name(connection.dialect.name)
        _check_driver(connection.dialect.driver)
        return _of_async_sqlalchemy(connection)
    if _can(connection, "cursor"):
        _check_psycopg(connection)
        _refuse_plain(connection, "commit")
        return _of_async_cursors(connection)
    if _can(connection, "connection") and _can(connection, "flush"):  # SQLAlchemy's AsyncSession
        _refuse_plain(connection, "connection")
        return await awaiting(await connection.connection())
    raise _not_taken(connection, _TAKEN_ASYNC)


def _of_sqlalchemy(connection: Any) -> Execute:
    def execute(statement: str, parameters: Mapping[str, Any] | None) -> object:
        return connection.exec_driver_sql(statement, parameters)

    return execute


def _of_cursors(connection: Any) -> Execute:
    def execute(statement: str, parameters: Mapping[str, Any] | None) -> object:
        with connection.cursor() as cursor:
            return cursor.execute(statement, parameters)

    return execute


def _of_async_sqlalchemy(connection: Any) -> AwaitExecute:
    async def execute(statement: str, parameters: Mapping[str, Any] | None) -> object:
        return await connection.exec_driver_sql(statement, parameters)

    return execute


def _of_async_cursors(connection: Any) -> AwaitExecute:
    async def execute(statement: str, parameters: Mapping[str, Any] | None) -> object:
        async with connection.cursor() as cursor:
            return await cursor.execute(statement, parameters)

    return execute


def _can(connection: Any, method: str) -> bool:
    return callable(getattr(connection, method, None))


def _refuse_awaited(connection: Any, method: str) -> None:
    """Calls that nobody awaits would do nothing."""
    if iscoroutinefunction(getattr(connection, method)):
        raise InvalidData(f"the calls of a {_kind(connection)} are awaited: write AsyncOutbox instead of Outbox")


def _refuse_plain(connection: Any, method: str) -> None:
    if not iscoroutinefunction(getattr(connection, method)):
        raise InvalidData(f"the calls of a {_kind(connection)} are not awaited: write Outbox instead of AsyncOutbox")


def _check_name(database: str) -> None:
    if database != "postgresql":
        raise InvalidData(f"an outbox is a table in Postgres, and this is a connection to {database}")


def _check_driver(driver: str) -> None:
    if not driver.startswith("psycopg"):
        raise InvalidData(
            f"an outbox needs psycopg or psycopg2 below SQLAlchemy, not {driver}: write postgresql+psycopg://"
        )


def _check_psycopg(connection: Any) -> None:
    """Both psycopg and psycopg2 have this, also behind a proxy; other drivers take parameters in other ways."""
    if not hasattr(getattr(connection, "info", None), "server_version"):
        raise _not_taken(connection, f"{_TAKEN}; or for AsyncOutbox {_TAKEN_ASYNC}")


def _not_taken(connection: Any, taken: str) -> InvalidData:
    return InvalidData(f"an outbox does not take a {_kind(connection)}: give it {taken}")


def _kind(connection: Any) -> str:
    return f"{type(connection).__module__}.{type(connection).__qualname__}"
