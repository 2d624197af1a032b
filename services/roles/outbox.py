"""The composition root of an outbox's relay."""

from joblog.projections.outbox.relay import ROLE, Relay
from joblog.services.roles.runner import Builder
from joblog.services.roles.topics import on_checked_topics
from joblog.services.settings.model import Settings
from joblog.streams.health import Health
from joblog.streams.metrics import Meters


def outbox(settings: Settings) -> Builder:
    """The process that puts the rows of an outbox into the log."""
    dsn, chosen = settings.outbox_dsn(), settings.outbox

    def build(meters: Meters, health: Health) -> Relay:
        return Relay(
            settings.kafka.config(),
            settings.names,
            settings.lanes,
            dsn,
            chosen.schema_name,
            meters=meters,
            health=health,
            batch_max=chosen.batch_max,
            poll_s=chosen.poll_s,
        )

    return on_checked_topics(ROLE, settings, build)
