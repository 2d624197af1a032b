"""What people tell a worker: to take no more jobs (`joblog worker quiet`), some again (`resume`), to stop (`stop`).

The home lane passes an order on through `assignments`. A quiet worker offers no slots, gives back what waits, and
goes on with what it runs until it is resumed or stopped; it stays quiet when a new session begins. A stop is what
SIGTERM is: the process exits with code 0, and whether it starts again is its supervisor's business.
"""

import logging
from threading import Event

from joblog.streams.contract.wire import OrderWorker

log = logging.getLogger(__name__)


class Orders:
    """The orders that a worker has got; shared by its sessions, and used by its loop only."""

    def __init__(self) -> None:
        self.is_quiet = False
        self.is_stop = False

    def take(self, order: OrderWorker) -> None:
        """Note an order; a worker that was told to stop is quiet, too, and stays so."""
        log.warning("worker.ordered", extra={"order": order.what, "reason": order.reason})
        self.is_stop = self.is_stop or order.what == "stop"
        self.is_quiet = self.is_stop or order.what != "resume"

    def obey(self, stop: Event) -> None:
        """Stop the worker if that is what it was told."""
        if self.is_stop:
            stop.set()
