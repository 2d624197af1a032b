"""The statements of those who write into an outbox: for any driver with `%(name)s` parameters, in any schema."""

from typing import Final

from joblog.projections.schema.schema import checked_name
from joblog.projections.statements import load

_SQL: Final = load("outbox/table.sql")


def create_statement(schema: str) -> str:
    """Makes the table, unless it is there; SchemaError for what cannot name a schema."""
    return _in(schema, "create")


def insert_statement(schema: str) -> str:
    """Adds commands. Parameters: lanes, and the lists lane, key and value."""
    return _in(schema, "insert")


def take_statement(schema: str) -> str:
    """Takes out the commands that wait, as `Row`s in any order."""
    return _in(schema, "take")


def _in(schema: str, statement: str) -> str:
    return _SQL[statement].replace("{schema}", checked_name(schema))
