"""The composition root of a projector, and of the runner of bulk operations beside it."""

import logging
import threading
from typing import Final

from joblog.projections.database import DatabaseAway
from joblog.projections.projector.answers import Answering
from joblog.projections.projector.expiring import Expiring
from joblog.projections.projector.projector import Projector
from joblog.projections.schema.prepare import prepare as prepare_tables
from joblog.services.bulk.runner import RETRY_S, BulkRunner
from joblog.services.roles.runner import Builder
from joblog.services.roles.topics import on_checked_topics
from joblog.services.settings.model import Settings
from joblog.streams.health import Health
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

#: How long the runner of bulk operations may take to end its page.
STOP_S: Final = 15.0


def projector(settings: Settings) -> Builder:
    """The process that keeps Postgres up to date, and lets rows expire there.

    It first migrates the tables, if `postgres.prepare` is set.
    """
    dsn, schema = settings.dsn(), settings.postgres.schema_name

    def prepare() -> None:
        if settings.postgres.prepare:
            try:
                prepare_tables(dsn, schema)
            except DatabaseAway as error:
                raise error.__cause__ or error from None  # psycopg's, which the projector waits out

    def build(meters: Meters, health: Health) -> WithBulk:
        made = Projector(
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
            answering=Answering(settings.kafka.config(), settings.names, meters),
            prepare=prepare,
        )
        return WithBulk(made, BulkRunner(settings, meters))

    return on_checked_topics("projector", settings, build)


class WithBulk:
    """A projector, and beside it the runner of bulk operations, whose end does not end the projector."""

    def __init__(self, projector: Projector, runner: BulkRunner) -> None:
        self._projector, self._runner = projector, runner

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`; the runner ends with the projector, however that ends."""
        ended = threading.Event()
        thread = threading.Thread(target=self._run_bulk, args=(ended,), name="bulk", daemon=True)
        thread.start()
        try:
            self._projector.run(stop)
        finally:
            ended.set()
            thread.join(STOP_S)

    def _run_bulk(self, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                self._runner.run(ended)
            except Exception:
                log.exception("bulk.failed")
                ended.wait(RETRY_S)
