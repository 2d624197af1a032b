"""The composition root of a projector."""

from joblog.projections.database import DatabaseAway
from joblog.projections.projector.expiring import Expiring
from joblog.projections.projector.projector import Projector
from joblog.projections.schema.migrate import upgrade
from joblog.services.roles.runner import Builder
from joblog.services.roles.topics import on_checked_topics
from joblog.services.settings.model import Settings
from joblog.streams.health import Health
from joblog.streams.metrics import Meters


def projector(settings: Settings) -> Builder:
    """The process that keeps Postgres up to date, and lets rows expire there.

    It first migrates the tables, if `postgres.prepare` is set.
    """
    dsn, schema = settings.dsn(), settings.postgres.schema_name

    def prepare() -> None:
        if settings.postgres.prepare:
            try:
                upgrade(dsn, schema)
            except DatabaseAway as error:
                raise error.__cause__ or error from None  # psycopg's, which the projector waits out

    def build(meters: Meters, health: Health) -> Projector:
        return Projector(
            settings.kafka.config(),
            settings.names,
            settings.lanes,
            dsn,
            schema,
            meters=meters,
            health=health,
            expiring=Expiring(
                settings.expiry.rules, settings.expiry.check_s, meters, batch_max=settings.expiry.batch_max
            ),
            prepare=prepare,
        )

    return on_checked_topics("projector", settings, build)
