"""Checks of the transactional outbox, if there is one: whether its rows are relayed, and whether some are parked."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from joblog.projections.database import DatabaseAway
from joblog.projections.outbox.operating import operating
from joblog.projections.outbox.rows import Status
from joblog.services.doctor.doctor import Finding, fail, ok, warn
from joblog.services.settings.model import Settings
from joblog.streams.errors import SchemaError, SettingsError

#: A relay that works takes milliseconds.
LATE_S_MAX: Final = 30.0


def examine_outbox(settings: Settings) -> Iterator[Finding]:
    """All checks of the outbox; none if this installation has none."""
    try:
        dsn = settings.outbox_dsn()
    except SettingsError:
        return  # reported by the check of Postgres
    try:
        with operating(dsn, settings.outbox.schema_name) as rows:
            status = rows.status()
    except SchemaError as exc:
        if settings.outbox.dsn is not None:
            yield fail("outbox", str(exc), "joblog outbox create")
        return
    except DatabaseAway:
        if settings.outbox.dsn is not None:
            raise
        return  # reported by the check of Postgres
    yield from findings(status, datetime.now(UTC))


def findings(status: Status, now: datetime) -> Iterator[Finding]:
    """What the rows of an outbox say at this time."""
    late_s = 0.0 if status.oldest is None else (now - status.oldest).total_seconds()
    if late_s > LATE_S_MAX:
        finding = f"{status.waiting} rows wait, the oldest for {late_s:.0f} s"
        yield fail("outbox", finding, "start `joblog outbox`, or see its log")
    else:
        yield ok("outbox", f"{status.waiting} rows wait")
    if status.parked:
        yield warn("outbox", f"{status.parked} rows are parked, as Kafka cannot take them", "joblog outbox list")
