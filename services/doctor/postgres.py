"""The doctor looks at Postgres: the tables, how late they are, clocks, and whether somebody works each queue."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from joblog.projections import database
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.schema import schema
from joblog.services.doctor.doctor import Finding, fail, ok, warn
from joblog.services.settings.model import Settings
from joblog.streams.contract.states import State
from joblog.streams.errors import SchemaError, SettingsError

LATE_S_MAX: Final = 30.0
SKEW_S_MAX: Final = 2.0
NAMED_MAX: Final = 10
VERSION_MIN: Final = 140_000


def examine_postgres(settings: Settings) -> Iterator[Finding]:
    """All about Postgres; jobs run without it, and nobody can watch them."""
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
        yield from _parked(monitor)


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


def skew(told: datetime, before: float, after: float) -> float:
    """Seconds by which a clock lies outside of the time in which it was asked."""
    at = told.astimezone(UTC).timestamp()
    return max(before - at, at - after, 0.0)


def _lateness(monitor: Monitor) -> Iterator[Finding]:
    statistics = monitor.statistics()
    if statistics.late_s is None:
        yield warn("projection", "nothing was applied yet", "joblog projector")
    elif statistics.late_s > LATE_S_MAX:
        yield fail("projection", f"{statistics.late_s:.0f} s late", "start a projector, or look at its log")
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
                f"{waiting} jobs wait in queue {queue.name}, and no worker serves it",
                f"joblog worker --tasks ... --queues {queue.name}",
            )
    running = [worker for worker in monitor.workers() if worker.state == "running"]
    if running:
        slots = sum(worker.slots for worker in running)
        served = sorted({queue for worker in running for queue in worker.queues})
        named = f"queues: {', '.join(served)}" if len(served) <= NAMED_MAX else f"{len(served)} queues"
        yield ok("workers", f"{len(running)} running, {slots} slots, {named}")
    else:
        yield warn("workers", "none runs", "joblog worker --tasks myapp.tasks")
    known = {task for worker in running for task in worker.tasks}
    yield from _unknown_tasks(monitor, known)


def _unknown_tasks(monitor: Monitor, known: set[str]) -> Iterator[Finding]:
    """Tasks of waiting jobs that no worker knows: such a job waits for ever."""
    waiting = {job.task for job in monitor.jobs(state=State.ENQUEUED, limit=100).items}
    for task in sorted(waiting - known):
        yield warn("tasks", f"jobs wait for a worker that knows {task}", "start one with the module of this task")


def _parked(monitor: Monitor) -> Iterator[Finding]:
    if monitor.parked(limit=1).items:
        yield warn("parked", "events that the projector could not apply", "joblog parked list")
    else:
        yield ok("parked", "none")
