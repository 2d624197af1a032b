"""A rebuild: the steps in their order. Each may be stopped or killed; the next call goes on with what is there.

1. Check that the live tables can be replaced, and that the log still has its beginning.
2. Make the new schema, or find the one of an earlier call, and fill it by several processes until it is nearly
   at the end of the log.
3. Compare it with the log, up to where it is.
4. Apply the rest, and put it in the place of the live one (swap.py).
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from joblog.projections.projector.log import Bounds, answered
from joblog.projections.replay.rebuild import schemas as schema_steps
from joblog.projections.replay.rebuild import swap
from joblog.projections.replay.rebuild.catch_up import CatchUp
from joblog.projections.replay.rebuild.filling import Filling
from joblog.projections.replay.rebuild.place import Place
from joblog.projections.replay.rebuild.schemas import Connection, Found, Refused, alone, connected
from joblog.projections.replay.verify import differences, read_log
from joblog.streams.errors import LogLost, ProjectionError
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

Phase = Literal["filling", "verifying", "swapping"]


class Stopped(ProjectionError):
    """The rebuild was stopped in between; the same command goes on."""


class Differs(ProjectionError):
    """The new tables are not what the log says: they were not put in the place of the live ones."""


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` records; `rate` in records/s and `left_s` are None while they are not known."""

    phase: Phase
    done: int = 0
    total: int = 0
    rate: float | None = None
    left_s: float | None = None


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


Report = Callable[[Progress], object]


def rebuild(
    place: Place,
    stop: threading.Event,
    report: Report = lambda _progress: None,
    *,
    processes: int = PROCESSES,
    rate: float | None = None,
    verify: bool = True,
    anew: bool = False,
    partial: bool = False,
    try_s: float = swap.TRY_S,
) -> Rebuilt:
    """Build the tables anew, and put them in the place of the live ones. Raises Stopped when `stop` is set.

    - rate: records/s at most; anew: begin again, without what an earlier call has built.
    - partial: go on though the log has lost its beginning, and so the new tables have none of it.

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
        _fill(connection, place, bounds, stop, report, processes, rate)
        filling_s = time.monotonic() - began
        rate_reached = (_applied(connection, schemas.new) - before) / filling_s
        _analyze(connection, schemas.new)
        if verify:
            report(Progress("verifying"))
            _verify(connection, place)
        _check_running(stop)
        report(Progress("swapping"))
        waited_s = _put_live(connection, place, stop, try_s)
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


def roll_back(place: Place, stop: threading.Event, *, try_s: float = swap.TRY_S) -> float:
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
        return swap.exchange(connection, schemas, stop, try_s=try_s)


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


def _check_running(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped("stopped; the live tables are as they were, and the same command goes on from here")


def _fill(
    connection: Connection,
    place: Place,
    bounds: Bounds,
    stop: threading.Event,
    report: Report,
    processes: int,
    rate: float | None,
) -> None:
    new, first, began = place.schemas.new, None, time.monotonic()
    with Filling(place, new, processes, rate) as filling:
        while True:
            _check_running(stop)
            filling.check()
            at, end = schema_steps.positions(connection, new), bounds.end()
            done, total = sum(offset for offset, _ in at.values()), sum(end.values())
            first = done if first is None else first
            speed = (done - first) / max(time.monotonic() - began, LOOK_S) or None
            report(Progress("filling", done, total, speed, (total - done) / speed if speed else None))
            if _is_near(at, end):
                return
            stop.wait(LOOK_S)


def _is_near(at: Mapping[int, tuple[int, float | None]], end: Mapping[int, int]) -> bool:
    """Offsets alone do not tell: behind the last record there may be markers, and records of failed transactions."""
    return all(
        lane in at and (end[lane] - at[lane][0] <= NEAR_RECORDS or (at[lane][1] or NEAR_S) < NEAR_S) for lane in end
    )


def _analyze(connection: Connection, schema: str) -> None:
    """Else the first questions are planned as if the tables were empty."""
    for table in schema_steps.table_names(connection, schema):
        connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(schema, table)))


def _verify(connection: Connection, place: Place) -> None:
    """Compare the new tables, which nobody writes now, with the log up to where they are."""
    new = place.schemas.new
    at = {lane: offset for lane, (offset, _) in schema_steps.positions(connection, new).items()}
    records = read_log(place.kafka, place.names, place.lanes)
    found = differences(place.dsn, new, (record for record in records if record.offset < at.get(record.lane, 0)))
    if found:
        raise Differs(
            f"the new tables, kept as {new!r}, are not what the log says: {'; '.join(found[:3])}"
            + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
            + "; `joblog replay rebuild --anew` builds them again"
        )


def _put_live(connection: Connection, place: Place, stop: threading.Event, try_s: float) -> float:
    schemas = place.schemas
    with CatchUp(place, schemas.new) as rest:

        def approach() -> None:
            _check_running(stop)
            rest.to_end(stop)
            _check_running(stop)

        def catch_up() -> None:
            live = schema_steps.positions(connection, schemas.live)
            rest.to({lane: offset for lane, (offset, _) in live.items()}, CATCH_UP_MAX_S)

        return swap.put_live(connection, schemas, stop, approach=approach, catch_up=catch_up, try_s=try_s)
