"""What the recurring process tells of itself: metrics, and whether it is ready."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

from joblog.streams.health import Health
from joblog.streams.metrics import Meters
from joblog.streams.recurring.held import Held
from joblog.streams.recurring.plan import Plan

log = logging.getLogger(__name__)


def count(meters: Meters, plans: Sequence[Plan], now: datetime) -> None:
    """Count what plans created and left out."""
    for made in plans:
        for occurrence in made.decision.create:
            meters.inc("joblog_recurring_created_total")
            meters.observe("joblog_recurring_lateness_seconds", max((now - occurrence).total_seconds(), 0))
        for occurrence, why in made.decision.left_out:
            meters.inc("joblog_recurring_left_out_total", why)
            log.info(
                "recurring.left_out",
                extra={"recurring_id": made.row.id, "occurrence": occurrence.isoformat(), "reason": why},
            )


def show(meters: Meters, health: Health, held: Mapping[int, Held], now: datetime) -> None:
    """Set the gauges, and tell whether all partitions were read."""
    waiting = sorted(number for number, one in held.items() if not one.is_ready)
    # A member beyond the number of partitions has none, and is ready to take over.
    if waiting:
        health.set_unready(f"reading partitions {waiting}")
    else:
        health.set_ready()
    rows = [row for one in held.values() if one.is_ready for row in one.rows.defined()]
    paused = sum(row.is_paused(now) for row in rows)
    meters.set("joblog_recurring_definitions", paused, "yes")
    meters.set("joblog_recurring_definitions", len(rows) - paused, "no")
    meters.set("joblog_recurring_errors", sum(row.error is not None for row in rows))
    meters.set("joblog_recurring_partitions", len(held))
