"""An outbox as operators reach it: made, looked at, its parked rows put back or deleted; errors say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from joblog.projections import database
from joblog.projections.database import away, conninfo
from joblog.projections.outbox.rows import APPLICATION, OutboxRows, understood
from joblog.projections.outbox.table import create_statement


@contextmanager
def operating(dsn: str, schema: str) -> Iterator[OutboxRows]:
    """The rows of an outbox, for a moment. Raises DatabaseAway, or SchemaError if there is no such outbox."""
    with _explained(dsn, schema), OutboxRows(dsn, schema) as rows:
        yield rows


def create(dsn: str, schema: str) -> str:
    """Make the table of an outbox, unless it is there; returns the outbox's id. Raises as `operating` does."""
    statement = create_statement(schema)
    with _explained(dsn, schema), database.connect(dsn, schema, APPLICATION) as connection:
        connection.execute(statement.encode())
    with operating(dsn, schema) as rows:
        return rows.identity


@contextmanager
def _explained(dsn: str, schema: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        if database.is_passing(error):
            raise away(conninfo(dsn, APPLICATION), error) from error
        raise understood(error, schema) from error
