"""The composition roots of electors and the delays process.

Workers and projectors have files of their own (worker.py, projector.py), so that an elector does not import what only
they need.
"""

from joblog.services.roles.runner import Builder
from joblog.services.roles.topics import on_checked_topics
from joblog.services.settings.model import Settings
from joblog.streams.delays.process import Delays
from joblog.streams.elector.elector import Elector, OnCommitted
from joblog.streams.health import Health
from joblog.streams.lane.filters import installed_filters
from joblog.streams.lane.rules import LaneRules
from joblog.streams.metrics import Meters


def lane_rules(settings: Settings) -> LaneRules:
    """What the lanes of an elector decide by."""
    chosen = settings.elector
    return LaneRules(
        lease_ms=round(chosen.lease_s * 1000),
        overdue_ms=round(chosen.overdue_s * 1000),
        failed_kept=chosen.failed_kept,
        failed_ms=chosen.failed_ms,
        batches_kept=chosen.batches_kept,
        batches_ms=chosen.batches_ms,
        remembered=chosen.remembered,
        shards=settings.queue_shards,
        shards_before=settings.queue_shards_before,
    )


def elector(settings: Settings) -> Builder:
    """The process that decides what happens to jobs, with the elect-state filters of the installed packages."""
    rules = lane_rules(settings)

    def build(meters: Meters, health: Health) -> Elector:
        return Elector(
            settings.kafka.config(),
            settings.names,
            settings.lanes,
            instance=settings.instance,
            meters=meters,
            health=health,
            rules=rules,
            batch_max=settings.elector.batch_max,
            filters=installed_filters(),
            on_committed=spans_of_elections(settings, meters),
        )

    return on_checked_topics("elector", settings, build)


def spans_of_elections(settings: Settings, meters: Meters) -> OnCommitted | None:
    """What makes the spans of elections, if `tracing.enabled`."""
    if not settings.tracing.enabled:
        return None
    from joblog.services.tracing.elections import ElectionSpans  # noqa: PLC0415 - of an extra
    from joblog.services.tracing.tracer import export_spans  # noqa: PLC0415 - of an extra

    export_spans("elector")
    return ElectionSpans(lambda number: meters.inc("joblog_election_spans_left_out_total", by=number))


def delays(settings: Settings) -> Builder:
    """The process that wakes scheduled jobs."""

    def build(meters: Meters, health: Health) -> Delays:
        return Delays(settings.kafka.config(), settings.names, settings.lanes, meters=meters, health=health)

    return on_checked_topics("delays", settings, build)
