"""A rebuild: the steps in their order. Each may be stopped or killed; the next call goes on with what is there.

1. Check that the live tables can be replaced, and that the log still has its beginning.
2. Make the new schema, or find the one of an earlier call, and fill it by several processes until it is nearly
   at the end of the log.
3. Let rows expire there, by the live tables' rules; only now, as a job may have been requeued long after it ended.
   Compare the new schema with the log, up to where it is.
4. Apply the rest, and put it in the place of the live one (swap.py).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from joblog.projections.expiry.passing import expire
from joblog.projections.expiry.rules import Rules
from joblog.projections.projector.log import Bounds, answered
from joblog.projections.replay.rebuild import schemas as schema_steps
from joblog.projections.replay.rebuild import swap
from joblog.projections.replay.rebuild.catch_up import CatchUp
from joblog.projections.replay.rebuild.filling import Filling
from joblog.projections.replay.rebuild.place import Place
from joblog.projections.replay.rebuild.schemas import Connection, Found, Refused, alone, connected
from joblog.projections.replay.rebuild.share import BESIDE, Share
from joblog.projections.replay.verification.findings import OF_TABLES, Finding
from joblog.projections.replay.verification.verification import Verification
from joblog.streams.errors import LogLost, ProjectionError
from joblog.streams.progress import Told, silent
from psycopg import sql

#: The new tables are nearly at the end of a lane if they lack so many records, or held all of it so long ago.
NEAR_RECORDS: Final = 1_000
NEAR_S: Final = 5.0
LOOK_S: Final = 0.5
#: How long the live projector may wait for the new tables; its own limit is `LOCK_TIMEOUT_S` in tables.py.
CATCH_UP_MAX_S: Final = 3.0
#: What two processes on two cores were measured to apply, events/s; for estimates.
USUAL_RATE: Final = 40_000
PROCESSES: Final = 2
#: Rows that expire in one transaction; nobody waits for it.
EXPIRED_MAX: Final = 5_000
# The steps, as they are told.
FILLING: Final = "filling"
EXPIRING: Final = "expiring"
VERIFYING: Final = "verifying"
SWAPPING: Final = "swapping"


class Differs(ProjectionError):
    """The new tables are not what the log says: they were not put in the place of the live ones."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rebuild would do: `done` of `records` are in a new schema that an earlier call has left."""

    records: int
    done: int
    live_bytes: int
    estimate_s: float
    new_schema: str
    processes: int


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did.

    - records: what the log holds, with the markers of its transactions; applied: those of this call.
    - filling_s, rate: how long it filled the tables, and records/s meanwhile.
    - swap_s: how long the live projector had to wait.
    """

    records: int
    applied: int
    filling_s: float
    rate: float
    verified: bool
    swap_s: float
    live: str
    kept: str


@dataclass(frozen=True, slots=True)
class Status:
    """One of the three schemas; `behind` counts records, and None means that its offsets cannot be read."""

    schema: str
    role: Literal["live", "new", "old"]
    records: int
    behind: int
    bytes: int
    jobs: int | None
    remark: str | None


def rebuild(
    place: Place,
    told: Told = silent,
    *,
    processes: int = PROCESSES,
    rate: float | None = None,
    share: float = BESIDE,
    verify: bool = True,
    anew: bool = False,
    partial: bool = False,
    expiry: Rules | None = None,
    try_s: float = swap.TRY_S,
) -> Rebuilt:
    """Build the tables anew, and put them in the place of the live ones. Passes on the Stopped that `told` raises.

    - rate: records/s at most; share: the part of their time that the processes work while events arrive.
    - anew: begin again, without what an earlier call has built.
    - partial: go on though the log has lost its beginning, and so the new tables have none of it.
    - expiry: what has expired by these rules is not in the new tables.

    Raises Refused, LogLost, Differs, DatabaseAway or BrokersAway; the live tables are as they were then.
    """
    schemas = place.schemas
    with alone(place.dsn, schemas) as connection, answered(place.kafka):
        schema_steps.check_replaceable(connection, schemas)
        bounds = _bounds(place)
        _check_beginning(place, bounds, partial=partial)
        schema_steps.prepare_new(connection, place.dsn, schemas, anew=anew)
        before = _applied(connection, schemas.new)
        began = time.monotonic()
        _fill(connection, place, bounds, told, Filling(place, schemas.new, processes, rate), Share(share))
        filling_s = time.monotonic() - began
        rate_reached = (_applied(connection, schemas.new) - before) / filling_s
        if expiry is not None:
            _expire(place, expiry, told)
        _analyze(connection, schemas.new)
        if verify:
            _verify(place, told)
        told(SWAPPING, 0, 0)
        waited_s = _put_live(connection, place, told, try_s)
        records = _applied(connection, schemas.live)
    return Rebuilt(records, records - before, filling_s, rate_reached, verify, waited_s, schemas.live, schemas.old)


def plan(place: Place, processes: int = PROCESSES, *, partial: bool = False) -> Plan:
    """What `rebuild` would do, after its checks; nothing is changed."""
    schemas = place.schemas
    with alone(place.dsn, schemas) as connection, answered(place.kafka):
        schema_steps.check_replaceable(connection, schemas)
        bounds = _bounds(place)
        _check_beginning(place, bounds, partial=partial)
        there = schema_steps.found(connection, schemas)
        done = _applied(connection, schemas.new) if schemas.new in there else 0
        records = sum(bounds.end().values())
        live_bytes = there[schemas.live].bytes
    left = max(records - done, 0)
    return Plan(records, done, live_bytes, left / USUAL_RATE, schemas.new, min(processes, place.lanes))


def roll_back(place: Place, told: Told = silent, *, try_s: float = swap.TRY_S) -> float:
    """The live and the old schema change places; returns for how long the projector waited, in seconds.

    What came meanwhile the projector applies to the old tables, from the offsets that they hold.
    """
    schemas = place.schemas
    with alone(place.dsn, schemas) as connection:
        there = schema_steps.found(connection, schemas)
        if schemas.old not in there:
            raise Refused(
                f"there is no {schemas.old!r} to go back to: no rebuild has replaced the tables, or it is dropped"
            )
        for name in (schemas.live, schemas.old):
            if name in there:
                schema_steps.check_mine(connection, schemas, name)
        return swap.exchange(connection, schemas, lambda: told(SWAPPING, 0, 0), try_s=try_s)


def drop_old(place: Place) -> str | None:
    """Remove the old schema; returns its name, or None if there is none."""
    schemas = place.schemas
    with alone(place.dsn, schemas) as connection:
        if schemas.old not in schema_steps.found(connection, schemas):
            return None
        schema_steps.drop(connection, schemas.old)
    return schemas.old


def status(place: Place) -> list[Status]:
    """Which schema is what, and how far each is."""
    schemas = place.schemas
    with connected(place.dsn, schemas.live) as connection, answered(place.kafka):
        there = schema_steps.found(connection, schemas)
        end = _bounds(place).end()
        roles: Mapping[str, Literal["live", "new", "old"]] = {
            schemas.live: "live",
            schemas.new: "new",
            schemas.old: "old",
        }
        return [_status(connection, there[name], role, end) for name, role in roles.items() if name in there]


def _status(
    connection: Connection, one: Found, role: Literal["live", "new", "old"], end: Mapping[int, int]
) -> Status:
    at = {lane: offset for lane, (offset, _) in schema_steps.positions(connection, one.schema).items()}
    behind = sum(max(offset - at.get(lane, 0), 0) for lane, offset in end.items())
    return Status(one.schema, role, sum(at.values()), behind, one.bytes, one.jobs, one.remark)


def _bounds(place: Place) -> Bounds:
    return Bounds(place.kafka, place.names.events, range(place.lanes))


def _check_beginning(place: Place, bounds: Bounds, *, partial: bool) -> None:
    if not partial and (cut := {lane: offset for lane, offset in bounds.begin().items() if offset}):
        raise LogLost(
            f"{place.names.events} has lost its beginning (lane: first offset {cut}), and new tables would lack what "
            "was there; keep the live ones, or build what is left with --partial"
        )


def _applied(connection: Connection, schema: str) -> int:
    return sum(offset for offset, _ in schema_steps.positions(connection, schema).values())


def _fill(connection: Connection, place: Place, bounds: Bounds, told: Told, processes: Filling, share: Share) -> None:
    schemas = place.schemas
    with processes as filling:
        while True:
            filling.check()
            at, end = schema_steps.positions(connection, schemas.new), bounds.end()
            done = sum(offset for offset, _ in at.values())
            filling.work(share.now(end, schema_steps.positions(connection, schemas.live), done))
            told(FILLING, done, sum(end.values()))
            if _is_near(at, end):
                return
            time.sleep(LOOK_S)


def _is_near(at: Mapping[int, tuple[int, float | None]], end: Mapping[int, int]) -> bool:
    """Offsets alone do not tell: behind the last record there may be markers, and records of failed transactions."""
    return all(
        lane in at and (end[lane] - at[lane][0] <= NEAR_RECORDS or (at[lane][1] or NEAR_S) < NEAR_S) for lane in end
    )


def _analyze(connection: Connection, schema: str) -> None:
    """Else the first questions are planned as if the tables were empty."""
    for table in schema_steps.table_names(connection, schema):
        connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(schema, table)))


def _expire(place: Place, rules: Rules, told: Told) -> None:
    """Apply what was left for the end, and let rows expire; nobody else writes the new tables now."""
    done = 0
    with CatchUp(place, place.schemas.new) as rest:
        rest.to_end(lambda: told(EXPIRING, 0, 0))
    with connected(place.dsn, place.schemas.new) as connection:
        for gone in expire(connection, range(place.lanes), rules, EXPIRED_MAX):
            done += gone.rows
            told(EXPIRING, done, 0)


def _verify(place: Place, told: Told) -> None:
    """Compare the new tables, which nobody writes now, with the log up to where they are."""
    new = place.schemas.new
    with TemporaryDirectory(prefix="joblog-rebuild-") as directory:
        report = Verification(
            place.kafka,
            place.names,
            place.lanes,
            Path(directory),
            dsn=place.dsn,
            schema=new,
            with_state=False,
            told=lambda step, done, total: told(f"{VERIFYING}: {step}", done, total),
        ).run()
    if found := report.against_tables:
        more = sum(report.counts.get(kind, 0) for kind in OF_TABLES) - 3
        raise Differs(
            f"the new tables, kept as {new!r}, are not what the log says: "
            + "; ".join(_both_sides(one) for one in found[:3])
            + (f"; and {more:,} more" if more > 0 else "")
            + "; `joblog replay rebuild --anew` builds them again"
        )


def _both_sides(finding: Finding) -> str:
    return f"{finding.what} (tables: {finding.found!r:.200}, log: {finding.log!r:.200})"


def _put_live(connection: Connection, place: Place, told: Told, try_s: float) -> float:
    schemas = place.schemas

    def look() -> None:
        told(SWAPPING, 0, 0)

    with CatchUp(place, schemas.new) as rest:

        def approach() -> None:
            look()
            rest.to_end(look)

        def catch_up() -> None:
            live = schema_steps.positions(connection, schemas.live)
            rest.to({lane: offset for lane, (offset, _) in live.items()}, CATCH_UP_MAX_S)

        return swap.put_live(connection, schemas, look, approach=approach, catch_up=catch_up, try_s=try_s)
