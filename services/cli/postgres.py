"""How commands query Postgres, and what they print when it does not answer."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from joblog.projections import database
from joblog.projections.database import DatabaseAway
from joblog.projections.monitor.models import Worker
from joblog.projections.monitor.monitor import Monitor
from joblog.services.settings.errors import suggestion
from joblog.services.settings.model import Settings
from joblog.services.settings.sources import UP, origins

log = logging.getLogger(__name__)

#: How much longer a command may take for optional information.
ASIDE_S: Final = 1.0


@contextmanager
def monitor_of(settings: Settings) -> Iterator[Monitor]:
    """A monitor for a few queries."""
    with hinted(settings), Monitor(settings.dsn(), settings.postgres.schema_name, connections_max=1) as monitor:
        yield monitor


@contextmanager
def hinted(settings: Settings) -> Iterator[None]:
    """Add a hint if the address comes from a `joblog up` that has ended: its address file stays behind."""
    try:
        yield
    except DatabaseAway as error:
        if origins(Settings, settings.config, settings.directory).get("postgres.dsn") == UP:
            error.add_note(f"this is the address of a `joblog up` in {settings.directory}: is it still running?")
        raise


class Aside:
    """Looks up the running workers in the background; the command does not wait if that takes long."""

    def __init__(self, settings: Settings) -> None:
        self._found: list[Worker] | None = None
        self._thread = threading.Thread(target=self._ask, args=(settings,), daemon=True)
        self._thread.start()

    def running(self) -> list[Worker] | None:
        """The running workers; None if Postgres does not answer in time."""
        self._thread.join(ASIDE_S)
        return self._found

    def _ask(self, settings: Settings) -> None:
        try:
            dsn, schema = settings.dsn(), settings.postgres.schema_name
            database.connect(dsn, schema, "joblog-monitor").close()  # fails at once if there is no server
            with Monitor(dsn, schema, connections_max=1) as monitor:
                self._found = [one for one in monitor.workers() if one.state == "running"]
        except Exception as exc:  # noqa: BLE001 - the command does not need Postgres
            log.debug("cli.workers_unknown", extra={"reason": str(exc)})


def unserved(queue: str, task: str, running: list[Worker]) -> str | None:
    """Why no running worker would take a job of this queue and task; None if one would."""
    serving = [one for one in running if queue in one.queues]
    known = {name for one in running for name in one.tasks}
    meant = "" if task in known else suggestion(task, sorted(known))
    if not serving:
        elsewhere = sorted({name for one in running if task in one.tasks for name in one.queues})
        other = f"; those that know {task} serve {', '.join(elsewhere)} (--queue)" if elsewhere else ""
        return f"no running worker serves the queue {queue}{other}{meant}"
    if not any(task in one.tasks for one in serving):
        return f"no running worker of the queue {queue} knows the task {task}{meant}"
    return None
