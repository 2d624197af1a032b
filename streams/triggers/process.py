"""The role that turns events into jobs: sessions of the consumer, one after the other, until it is told to stop.

A session ends when topics appear, get more partitions, or are others of the same name, since a consumer subscribes
to what is there, and when it fails, as when brokers are away for long; then another one begins. Repeats are
harmless: ids are made from events.
"""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import IntakeError, SettingsError
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.patience import Patience
from joblog.streams.triggers.handling import ROLE, WAITING_FOR_TOPICS, Handling, TriggerFunction
from joblog.streams.triggers.intake import Session
from joblog.streams.triggers.starts import begin_at_end
from joblog.streams.triggers.writing import Writer

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.25
#: How often it looks whether topics have appeared or grown.
TOPICS_S: Final = 3.0
_ANSWER_S: Final = 5.0
_NOT_THERE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED})
#: The delay before another session begins after one that failed: it doubles, between these.
_WAIT_S: Final = 0.5
_WAIT_S_MAX: Final = 10.0


class FoundTopic(NamedTuple):
    """A topic that is there; the id is another one when it was deleted and created again."""

    partitions: int
    id: str


Found = Mapping[str, FoundTopic]


class Triggers:
    """One process; several share the partitions of the topics.

    - topics: those that the functions name. start_at_end: where a new group begins.
    """

    def __init__(
        self,
        config: KafkaConfig,
        names: TopicNames,
        triggers: Sequence[TriggerFunction],
        topics: Sequence[str],
        *,
        group: str,
        start_at_end: bool,
        patience: Patience,
        meters: Meters,
        health: Health,
    ) -> None:
        self._config = config
        self._names = names
        self._triggers = triggers
        self._topics = tuple(sorted(set(topics)))
        self._group = group
        self._start_at_end = start_at_end
        self._patience = patience
        self._meters = meters
        self._health = health
        self._client_id = f"{names.prefix}{ROLE}"
        self._admin: Final[AdminClient] = clients.admin(config, f"{self._client_id}-source-topics")
        self._lags: set[tuple[str, str]] = set()
        self._failures = 0
        self._show()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set. Raises SettingsError, or IntakeError if the consumer does not stop."""
        asyncio.run(self._run(stop))

    def _show(self) -> None:
        """Export what will be counted, before it is: a rate needs to see a series before it rises."""
        for trigger in self._triggers:
            self._meters.show("joblog_trigger_jobs_total", trigger.name)
            self._meters.show("joblog_trigger_errors_total", trigger.name)
        for topic in self._topics:
            self._meters.show("joblog_trigger_events_total", topic)

    async def _run(self, stop: threading.Event) -> None:
        writer = Writer(self._config, self._client_id, ROLE, self._meters)
        handling = Handling(self._triggers, self._names, writer.write, self._patience, self._meters.inc)
        found: Found | None = None
        try:
            while not stop.is_set():
                self._health.beat()
                # What a topic has at the first look decides where a new group starts; later ones are read whole.
                looked = await asyncio.to_thread(self._look)
                if looked and found is None and not await asyncio.to_thread(self._begin, looked):
                    looked = None
                found = found if looked is None else looked
                if looked:
                    await self._session(handling, writer, looked, stop)
                else:
                    self._tell(looked, "")
                    await _pause(stop, TOPICS_S)
        finally:
            await asyncio.to_thread(writer.close)

    async def _session(self, handling: Handling, writer: Writer, found: Found, stop: threading.Event) -> None:
        """Run one session until there is reason for another."""
        self._health.set_unready("joining the group")
        ids = {name: topic.id for name, topic in found.items()}
        session = Session(self._config, self._group, self._client_id, ids, handling.handle, self._on_rebalance)
        try:
            try:
                await session.start()
                await self._watch(session, writer, found, stop)
            finally:
                await session.stop()
        except (SettingsError, asyncio.CancelledError):
            raise
        except Exception as error:  # it is counted, and another session begins
            self._failures += 1
            self._meters.inc("joblog_internal_errors_total", ROLE)
            self._health.set_unready(f"the consumer failed: {error}")
            log.warning("triggers.session_failed", exc_info=error)
            if session.is_running:
                raise IntakeError("the consumer failed, and does not stop") from error
            await _pause(stop, min(_WAIT_S * 2.0 ** min(self._failures, 10), _WAIT_S_MAX))

    async def _watch(self, session: Session, writer: Writer, found: Found, stop: threading.Event) -> None:
        """Return when the topics have changed or `stop` is set; raises IntakeError when the session has ended."""
        loop = asyncio.get_running_loop()
        look_at = loop.time() + TOPICS_S
        while not stop.is_set():
            self._health.beat()
            session.check()
            if session.is_joined:
                self._failures = 0
                self._tell(found, writer.trouble)
                self._measure(session)
            if loop.time() >= look_at:
                look_at = loop.time() + TOPICS_S
                looked = await asyncio.to_thread(self._look)
                if looked is not None and looked != found:
                    log.info("triggers.topics_changed", extra={"topics": sorted(looked)})
                    return
            await asyncio.sleep(_LOOK_S)

    def _tell(self, found: Found | None, trouble: str) -> None:
        """Ready when all topics are there and the group has given out its partitions."""
        missing = [topic for topic in self._topics if topic not in (found or {})]
        if found is None:
            self._health.set_unready("waiting for brokers")
        elif missing:
            reason = f"{WAITING_FOR_TOPICS}: {', '.join(missing)}"
            if self._health.reason != reason:
                log.warning("triggers.waiting_for_topics", extra={"topics": missing})
            self._health.set_unready(reason)
        elif trouble:
            self._health.set_unready(f"Kafka does not acknowledge: {trouble}")
        else:
            self._health.set_ready()

    def _look(self) -> Found | None:
        """The topics that are there; None when no broker answers."""
        self._admin.poll(0)  # what it logs would pile up in it
        asked = self._admin.describe_topics(TopicCollection(list(self._topics)), request_timeout=_ANSWER_S)
        found = {}
        for name, answer in asked.items():
            try:
                topic = answer.result()
            except KafkaException as exc:
                if exc.args[0].code() in _NOT_THERE:
                    continue
                _log_no_answer(exc)
                return None
            if topic.partitions:
                found[name] = FoundTopic(len(topic.partitions), str(topic.topic_id or ""))
        return found

    def _begin(self, found: Found) -> bool:
        """Set where a new group begins; False when no broker answers."""
        if self._start_at_end:
            places = [(name, number) for name, topic in found.items() for number in range(topic.partitions)]
            try:
                begin_at_end(self._config, self._group, places)
            except KafkaException as exc:
                _log_no_answer(exc)
                return False
        return True

    def _measure(self, session: Session) -> None:
        lags = {(topic, str(number)): lag for topic, number, lag in session.lags()}
        for place in self._lags - lags.keys():
            self._meters.set("joblog_trigger_lag_records", 0, *place)
        for place, lag in lags.items():
            self._meters.set("joblog_trigger_lag_records", lag, *place)
        self._lags = set(lags)

    def _on_rebalance(self) -> None:
        self._meters.inc("joblog_rebalances_total", ROLE)


def _log_no_answer(error: KafkaException) -> None:
    log.warning("triggers.waiting_for_brokers", extra={"reason": error.args[0].str()})


async def _pause(stop: threading.Event, seconds: float) -> None:
    """Wait in a thread, as `stop` is set by another one."""
    await asyncio.to_thread(stop.wait, seconds)
