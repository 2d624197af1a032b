"""The topics that a role needs: checked before it joins anything, and while it runs.

A role with the wrong number of lanes looks for queues in the wrong lanes, and an elector rejects good commands; so it
refuses to run. Partitions that somebody adds while it runs end it, too: producers that leave the choice of the
partition to Kafka would write to them, and nobody reads them.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from joblog.services.roles.runner import Builder, Runnable
from joblog.services.settings.model import Settings
from joblog.streams.contract.topics import TOPICS_OF_ROLES
from joblog.streams.errors import BrokersAway, TopicsError
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.admin import check_topics
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

#: One request for the cluster's metadata may take this long.
ANSWER_S: Final = 5.0
#: Delay between two checks while no broker answers.
RETRY_S: Final = 1.0
#: Topics count as wrong when they were for this long: a broker that is starting may not know all topics yet. A role
#: that runs has time: its own clients notice what is really missing.
CONFIRM_S: Final = 3.0
CONFIRM_RUNNING_S: Final = 30.0
#: How often the topics of a running role are checked.
WATCH_S: Final = 30.0


class CheckedRole:
    """A role that runs while its topics fit; `check` raises TopicsError or BrokersAway."""

    def __init__(
        self, role: Runnable, check: Callable[[], None], health: Health, *, watch_s: float = WATCH_S
    ) -> None:
        self.role: Final = role
        self._check = check
        self._health = health
        self._watch_s = watch_s

    def run(self, stop: threading.Event) -> None:
        """Wait for the brokers, check the topics, run the role. Raises TopicsError when the topics do not fit."""
        if not self._wait(stop):
            return
        with self._watching(stop):
            self.role.run(stop)

    def _wait(self, stop: threading.Event) -> bool:
        """Check as soon as brokers answer; false when `stop` was set before."""
        while not stop.is_set():
            self._health.beat()
            try:
                self._confirmed(stop, CONFIRM_S)
            except BrokersAway as error:
                self._health.set_unready(f"waiting for brokers: {error}")
                log.warning("role.waiting_for_brokers", extra={"reason": str(error)})
                stop.wait(RETRY_S)
            else:
                self._health.set_unready("starting")
                return not stop.is_set()
        return False

    def _confirmed(self, stop: threading.Event, confirm_s: float) -> None:
        """Check until the topics fit; raises TopicsError when they have not for so long."""
        deadline = time.monotonic() + confirm_s
        while not stop.is_set():
            try:
                self._check()
            except TopicsError:
                if time.monotonic() >= deadline:
                    raise
                stop.wait(RETRY_S / 2)
            else:
                return

    @contextmanager
    def _watching(self, stop: threading.Event) -> Iterator[None]:
        """Check again from a thread; when the topics do not fit any more, stop the role and raise TopicsError."""
        ended, errors = threading.Event(), list[TopicsError]()
        args = (stop, ended, errors)
        watcher = threading.Thread(target=self._watch, args=args, name="topics", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join(ANSWER_S)
        if errors:
            raise errors[0]

    def _watch(self, stop: threading.Event, ended: threading.Event, errors: list[TopicsError]) -> None:
        while not ended.wait(self._watch_s):
            try:
                self._confirmed(ended, CONFIRM_RUNNING_S)
            except BrokersAway:
                continue  # the role's own clients notice and report it
            except TopicsError as error:
                errors.append(error)
                stop.set()
                return


def on_checked_topics(role: str, settings: Settings, build: Builder) -> Builder:
    """The builder of a role that refuses to run on topics that do not fit the settings."""
    config = settings.kafka.config()

    def checked(meters: Meters, health: Health) -> Runnable:
        client = clients.admin(config, f"{settings.topic_prefix}{role}-topics")

        def check() -> None:
            client.poll(0)  # what it logs would pile up in it
            check_topics(
                config,
                settings.names,
                settings.lanes,
                topics=TOPICS_OF_ROLES[role],
                timeout_s=ANSWER_S,
                client=client,
            )

        return CheckedRole(build(meters, health), check, health, watch_s=WATCH_S)

    return checked
