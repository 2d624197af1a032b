"""Checks of Postgres: the tables, how late they are, clocks, workers for each queue, and jobs left behind."""

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from joblog.projections import database
from joblog.projections.monitor.models import ParkedCode, Queue
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.schema import schema
from joblog.services.doctor.doctor import Finding, fail, ok, warn
from joblog.services.settings.model import Settings
from joblog.streams.contract.states import State
from joblog.streams.errors import InternalError, SchemaError, SettingsError

LATE_S_MAX: Final = 30.0
SKEW_S_MAX: Final = 2.0
NAMED_MAX: Final = 10
VERSION_MIN: Final = 140_000


def examine_postgres(settings: Settings) -> Iterator[Finding]:
    """All checks of Postgres. Jobs run without it, but nobody can watch them."""
    try:
        dsn = settings.dsn()
    except SettingsError as exc:
        yield fail("Postgres", "no address is set", str(exc))
        return
    yield from _server(dsn, settings.postgres.schema_name)
    try:
        schema.check(dsn, settings.postgres.schema_name)
    except SchemaError as exc:
        yield fail("schema", str(exc), "joblog migrate")
        return
    yield ok("schema", f"{settings.postgres.schema_name} is at {schema.HEAD}")
    with Monitor(dsn, settings.postgres.schema_name, connections_max=1) as monitor:
        yield from _lateness(monitor)
        yield from _queues(monitor)
        yield from parked_records(monitor.parked_codes())


def _server(dsn: str, schema_name: str) -> Iterator[Finding]:
    with database.connect(dsn, schema_name, "joblog-doctor") as connection:
        version = connection.info.server_version
        before = time.time()
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        after = time.time()
    if version < VERSION_MIN:
        yield fail("Postgres", f"version {version // 10_000} is too old", f"use {VERSION_MIN // 10_000} or later")
    else:
        yield ok("Postgres", f"version {version // 10_000}.{version % 10_000}")
    assert row is not None
    skew_s = skew(row[0], before, after)
    if skew_s > SKEW_S_MAX:
        yield warn("clocks", f"Postgres' clock and this machine's are {skew_s:.1f} s apart", "run NTP on both")
    else:
        yield ok("clocks", f"Postgres and this machine agree within {max(skew_s, after - before):.3f} s")


def skew(reading: datetime, before: float, after: float) -> float:
    """Seconds by which the reading of a clock lies outside of the interval in which it was requested."""
    at = reading.astimezone(UTC).timestamp()
    return max(before - at, at - after, 0.0)


def _lateness(monitor: Monitor) -> Iterator[Finding]:
    statistics = monitor.statistics()
    if statistics.late_s is None:
        yield warn("projection", "nothing has been applied yet", "joblog projector")
    elif statistics.late_s > LATE_S_MAX:
        yield fail("projection", f"{statistics.late_s:.0f} s late", "start a projector, or check its log")
    else:
        yield ok("projection", f"{statistics.late_s:.1f} s late")
    ahead_s = max((one.log_time.timestamp() - time.time() for one in monitor.offsets() if one.log_time), default=0.0)
    if ahead_s > SKEW_S_MAX:
        yield warn("broker clock", f"{ahead_s:.1f} s ahead of this machine's", "run NTP on the brokers")


def _queues(monitor: Monitor) -> Iterator[Finding]:
    queues = monitor.queues()
    for queue in queues:
        waiting = queue.counts[State.ENQUEUED]
        if waiting and not queue.workers:
            yield warn(
                "workers",
                f"{waiting} jobs wait in queue {queue.name}, which no worker serves",
                f"joblog worker --tasks ... --queues {queue.name}",
            )
    yield from paused_queues(queues)
    running = [worker for worker in monitor.workers() if worker.state == "running"]
    if running:
        slots = sum(worker.slots for worker in running)
        served = sorted({queue for worker in running for queue in worker.queues})
        named = f"queues: {', '.join(served)}" if len(served) <= NAMED_MAX else f"{len(served)} queues"
        yield ok("workers", f"{len(running)} running, {slots} slots, {named}")
    else:
        yield warn("workers", "none is running", "joblog worker --tasks myapp.tasks")
    known = {task for worker in running for task in worker.tasks}
    yield from _unknown_tasks(monitor, known)


def paused_queues(queues: Iterable[Queue]) -> Iterator[Finding]:
    """Queues of which no job starts because somebody has said so."""
    for queue in queues:
        if (pause := queue.pause) is not None:
            by = f" by {pause.paused_by}" if pause.paused_by else ""
            why = f" ({pause.reason})" if pause.reason else ""
            until = f" until {pause.until:%Y-%m-%d %H:%M}Z" if pause.until is not None else ""
            since, waiting = f"{pause.since:%Y-%m-%d %H:%M}Z", queue.counts[State.ENQUEUED]
            yield warn(
                "queues",
                f"{queue.name} is {pause.state} since {since}{until}{by}{why}: {waiting} jobs wait",
                f"joblog queue resume {queue.name}",
            )


def _unknown_tasks(monitor: Monitor, known: set[str]) -> Iterator[Finding]:
    """Tasks of waiting jobs that no running worker knows: such a job waits for ever."""
    waiting = {job.task for job in monitor.jobs(state=State.ENQUEUED, limit=100).items}
    for task in sorted(waiting - known):
        yield warn("tasks", f"jobs wait for a worker that knows {task}", "start one with the module of this task")


def parked_records(codes: Iterable[ParkedCode]) -> Iterator[Finding]:
    """Records that the projector could not apply; an internal error is a mistake in Joblog, not in the record."""
    parked = {one.code: one for one in codes}
    internal = parked.pop(InternalError.code, None)
    if internal is not None:
        yield fail(
            "parked",
            f"{internal.records} with an internal error, such as lane {internal.lane}, offset {internal.log_offset}: "
            "applying them raised an unexpected exception",
            "joblog parked list; the reason holds the traceback, which belongs in a bug report",
        )
    if parked:
        counts = ", ".join(f"{one.records} {code}" for code, one in parked.items())
        yield warn("parked", f"events that the projector could not apply: {counts}", "joblog parked list")
    if internal is None and not parked:
        yield ok("parked", "none")
