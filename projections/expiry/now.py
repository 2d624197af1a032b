"""Expiry at once, beside a projector or without one: for commands and tests."""

from collections import Counter
from collections.abc import Mapping, Sequence

import psycopg
from joblog.projections import database
from joblog.projections.expiry.passing import Expirable, expire, plan
from joblog.projections.expiry.rules import EXPIRING, Rules
from joblog.projections.schema.schema import check_in


def expire_now(dsn: str, schema: str, lanes: Sequence[int], rules: Rules) -> Mapping[str, int]:
    """One pass; returns how many rows have gone of each state. Raises DatabaseAway."""
    counts = Counter[str]({str(state): 0 for state in EXPIRING})
    try:
        with database.connect(dsn, schema, "joblog-expiry") as connection:
            check_in(connection, schema)
            for gone in expire(connection, lanes, rules):
                if gone.state is not None:
                    counts[str(gone.state)] += gone.rows
    except psycopg.OperationalError as error:
        raise database.away(dsn, error) from error
    return counts


def expirable(dsn: str, schema: str, lanes: Sequence[int], rules: Rules) -> list[Expirable]:
    """What a pass would delete. Raises DatabaseAway."""
    try:
        with database.connect(dsn, schema, "joblog-expiry") as connection:
            check_in(connection, schema)
            return list(plan(connection, lanes, rules))
    except psycopg.OperationalError as error:
        raise database.away(dsn, error) from error
