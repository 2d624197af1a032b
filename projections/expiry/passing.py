"""One pass over the tables: what has expired goes, batch by batch, and each batch is a short transaction.

1. See up to which time the tables hold the log, and where each lane is.
2. For each state, and each task of which there are jobs in it, delete what has expired, oldest first. The index
   jobs_by_task has just these rows beside each other, so what other tasks keep for longer is not looked at.
3. Delete batches, by their states and rules of their own, and the counts of ends that are too old.
4. Note that the pass is complete.

Whoever stops in between leaves tables that agree with what is recorded; the next pass begins anew.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import psycopg
from joblog.projections.expiry.rules import (
    BATCH_MAX,
    EXPIRING,
    Cutoffs,
    Rules,
    batches_before,
    before,
    cutoffs,
    written,
)
from joblog.projections.statements import load
from joblog.streams.contract.states import State
from joblog.streams.errors import OffsetConflict
from msgspec import Struct

SQL: Final = load("expiry/expiry.sql")
_FIRST: Final = datetime(1, 1, 1, tzinfo=UTC)
_NEVER: Final = "-infinity"
Connection = psycopg.Connection[Any]


class Gone(Struct, frozen=True):
    """What one batch deleted: rows of jobs in a state, or, if that is None, batches or counts of ends."""

    state: State | None
    rows: int


class _Begun(NamedTuple):
    """Up to which time the tables hold the log, where each lane is, and which tables these are."""

    until: datetime
    lanes: list[int]
    offsets: list[int]
    tables: int


class Expirable(Struct, frozen=True):
    """Rows that have expired: how many, and between which times they ended."""

    state: State
    queue: str
    task: str
    rows: int
    oldest: datetime
    newest: datetime


def expire(connection: Connection, lanes: Sequence[int], rules: Rules, limit: int = BATCH_MAX) -> Iterator[Gone]:
    """One pass over these lanes; yields after each transaction. It ends early if nothing was ever applied.

    OffsetConflict if a rebuild replaces the tables meanwhile.
    """
    begun = _begin(connection, lanes)
    if begun is None:
        return
    for state, task, cutoff in _kinds(connection, rules, begun.until):
        start, rows = _FIRST, limit
        while rows == limit:
            given = {**_given(state, task, cutoff, begun.lanes), "from": start, "limit": limit}
            rows, start = _only(connection, begun, "expire", given)
            yield Gone(state, rows)
    for state, ended_before in batches_before(rules, begun.until):
        rows = limit
        while rows == limit:
            given = {"state": state, "before": ended_before, "lanes": begun.lanes, "limit": limit}
            (rows,) = _only(connection, begun, "expire_batches", given)
            yield Gone(None, rows)
    for period, kept in (("hour", rules.hours_s), ("day", rules.days_s)):
        rows = limit if kept is not None else 0
        while rows == limit:
            given = {"period": period, "before": before(begun.until, kept), "lanes": begun.lanes, "limit": limit}
            (rows,) = _only(connection, begun, "expire_outcomes", given)
            yield Gone(None, rows)
    passed = {"lanes": begun.lanes, "offsets": begun.offsets, "until": begun.until, "rules": written(rules)}
    _only(connection, begun, "passed", passed)


def plan(connection: Connection, lanes: Sequence[int], rules: Rules) -> Iterator[Expirable]:
    """What a pass would delete of `jobs` now."""
    begun = _begin(connection, lanes)
    if begun is None:
        return
    for state, task, (queue, *said) in expired_by(connection, "plan", begun.lanes, rules, begun.until):
        yield Expirable(state, queue, task, *said)


def age_s(connection: Connection, lanes: Sequence[int]) -> float | None:
    """How long ago the last complete pass of these lanes was; None if one of them had none."""
    [(age,)] = connection.execute(SQL["age"], {"lanes": list(lanes)}).fetchall()
    return None if age is None else float(age)


def expired_by(
    connection: Connection, name: str, lanes: Sequence[int], rules: Rules, until: datetime
) -> Iterator[tuple[State, str, tuple[Any, ...]]]:
    """The rows that the statement gives for each state and task of which something may have expired by then."""
    for state, task, cutoff in _kinds(connection, rules, until):
        for row in connection.execute(SQL[name], _given(state, task, cutoff, list(lanes)), prepare=False):
            yield state, task, row


def _begin(connection: Connection, lanes: Sequence[int]) -> _Begun | None:
    [(until, *rest)] = connection.execute(SQL["begin"], {"lanes": list(lanes)}).fetchall()
    return None if until is None else _Begun(until, *rest)


def _kinds(connection: Connection, rules: Rules, until: datetime) -> Iterator[tuple[State, str, Cutoffs]]:
    """The states and tasks of which something may have expired."""
    for state in EXPIRING:
        for (task,) in connection.execute(SQL["tasks"], {"state": state}, prepare=False).fetchall():
            if (cutoff := cutoffs(rules, state, task, until)).latest is not None:
                yield state, task, cutoff


def _given(state: State, task: str, cutoff: Cutoffs, lanes: list[int]) -> dict[str, Any]:
    """The parameters of `has_expired`."""
    return {
        "state": state,
        "task": task,
        "latest": cutoff.latest,
        "otherwise": cutoff.otherwise or _NEVER,
        "queues": list(cutoff.own),
        "befores": [one.isoformat() if one else _NEVER for one in cutoff.own.values()],
        "lanes": lanes,
    }


def _only(connection: Connection, begun: _Begun, name: str, given: dict[str, Any]) -> tuple[Any, ...]:
    """The only row of a statement that writes, in a transaction that is short."""
    with connection.transaction():
        locked = connection.execute(SQL["lock"], {"lanes": begun.lanes, "tables": begun.tables}).fetchall()
        if len(locked) != len(begun.lanes):
            raise OffsetConflict("a rebuild replaced the tables while rows expired: the next pass begins anew")
        connection.execute(SQL["limit"])
        [row] = connection.execute(SQL[name], given, prepare=False).fetchall()
    return tuple(row)
