"""Expiry at once, beside a projector or without one: for commands and tests."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from joblog.projections import database
from joblog.projections.expiry.passing import Expirable, expire, plan
from joblog.projections.expiry.rules import EXPIRING, Rules
from joblog.projections.schema.schema import check_in
from joblog.streams.errors import OffsetConflict
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

#: What may come of a projector that applies a batch, or of a rebuild, at the same time: the pass begins anew.
_BESIDE: Final = (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable, OffsetConflict)
TRIES: Final = 5
PAUSE_S: Final = 0.2


def expire_now(dsn: str, schema: str, lanes: Sequence[int], rules: Rules) -> Mapping[str, int]:
    """One pass; returns how many rows have gone of each state. Raises DatabaseAway."""
    counts = Counter[str]({str(state): 0 for state in EXPIRING})

    def once(connection: psycopg.Connection[Any]) -> None:
        for gone in expire(connection, lanes, rules):
            if gone.state is not None:
                counts[str(gone.state)] += gone.rows

    beside = Retrying(
        retry=retry_if_exception_type(_BESIDE), stop=stop_after_attempt(TRIES), wait=wait_fixed(PAUSE_S), reraise=True
    )
    try:
        with database.connect(dsn, schema, "joblog-expiry") as connection:
            check_in(connection, schema)
            beside(once, connection)
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
