"""Connections for questions: pooled, read-only, each query planned for its parameters."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import psycopg
from joblog.projections import database
from joblog.projections.database import away
from joblog.projections.schema.schema import checked_name
from joblog.streams.errors import SchemaError
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

CONNECTIONS_MAX: Final = 4
WAIT_S: Final = 5.0
#: What a pool that got no connection is given besides to say why, in whole seconds.
_WHY_S: Final = 2

_SETTINGS: Final = (
    "SELECT set_config('default_transaction_read_only', 'on', false),"
    " set_config('plan_cache_mode', 'force_custom_plan', false)"
)

#: A rebuild that puts other tables in the place of these (replay/rebuild/swap.py) waits for whoever has this, and who
#: comes later sees nothing but the new ones. A query alone may find the type of a cast in the former schema, and then
#: its tables in the new one.
_BEFORE_A_SWAP_OR_AFTER_IT: Final = "LOCK TABLE offsets IN ACCESS SHARE MODE"

#: Runs a statement with its parameters.
Ask = Callable[[LiteralString, Mapping[str, Any]], list[DictRow]]


class Reads:
    """A pool that opens with the first question; safe to use from many threads."""

    def __init__(self, dsn: str, schema: str, application: str, connections_max: int = CONNECTIONS_MAX) -> None:
        self._schema = checked_name(schema)
        self._address = database.conninfo(dsn, application)
        self._pool: ConnectionPool[psycopg.Connection[DictRow]] = ConnectionPool(
            self._address,
            min_size=0,
            max_size=connections_max,
            open=False,
            # Nothing is prepared: when a rebuild replaces the tables, the types of their columns are others, and
            # Postgres refuses to run a statement again whose result has changed.
            kwargs={"autocommit": True, "row_factory": dict_row, "prepare_threshold": None},
            configure=self._configure,
            # One round trip, so that nobody is given a connection that a restart has cut.
            check=ConnectionPool.check_connection,
            timeout=WAIT_S,
            reconnect_timeout=WAIT_S,
        )
        self._opening = threading.Lock()

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def consistent(self) -> Iterator[Ask]:
        """Ask several things of one state of the tables.

        Raises SchemaError when the tables are not there, DatabaseAway when Postgres is not.
        """
        with self._opening:
            if self._pool.closed:
                self._pool.open()
        try:
            with self._pool.connection() as connection, connection.transaction():
                connection.execute(_BEFORE_A_SWAP_OR_AFTER_IT)
                yield lambda query, parameters: connection.execute(query, parameters).fetchall()
        except psycopg.Error as error:
            if database.is_schema(error):
                raise SchemaError(f"the schema {self._schema!r} has no such tables: run `joblog migrate`") from error
            if database.is_passing(error):
                raise away(self._address, self._cause() if isinstance(error, PoolTimeout) else error) from error
            raise

    def _cause(self) -> psycopg.Error:
        """Why the pool has no connection, which it does not tell: what one more attempt says."""
        try:
            psycopg.connect(make_conninfo(self._address, connect_timeout=_WHY_S)).close()
        except psycopg.Error as error:
            return error
        return PoolTimeout(f"no connection was free within {WAIT_S:g} s")

    def _configure(self, connection: psycopg.Connection[Any]) -> None:
        database.configure(connection, self._schema)
        connection.execute(_SETTINGS)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
