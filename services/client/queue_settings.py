"""How queues are set while all is running: written and read by clients, in the topic `queues`.

A client that lives for more than a second follows the topic: when it sends something, it takes what its consumer has
fetched meanwhile, and never waits for it. So a change is heard a second later, and by a client that does not hear of
it, as of any old number: since jobs are found in whatever lane they are, nothing depends on it but the load of lanes.
"""

import itertools
import logging
import threading
import time
from collections.abc import Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from joblog.services.client.forks import Process
from joblog.streams.contract.queue_settings import PARTITION, QueueSettings
from joblog.streams.errors import EnqueueError
from joblog.streams.kafka.clients import KafkaConfig, reader
from joblog.streams.kafka.last_records import read_to_end, watermarks
from joblog.streams.recurring.sender import Record, Sender
from pydantic import ValidationError

log = logging.getLogger(__name__)

#: How often a client takes what was fetched, and how long it lives before it begins to.
LOOK_S: Final = 1.0
_TIMEOUT_S: Final = 30.0
_RECORDS_MAX: Final = 500
_numbers: Final = itertools.count()


class SettingsOfQueues:
    """The topic, as one client has it; thread-safe. `shards`: of each queue that was set, as last heard."""

    def __init__(self, config: KafkaConfig, topic: str, client_id: str, lanes: int) -> None:
        self._config, self._topic, self._lanes = config, topic, lanes
        self._client_id = f"{client_id}-queues"
        self.shards: dict[str, int] = {}
        self._looked_at = time.monotonic()
        self._lock = threading.Lock()
        self._process = Process()
        self._consumer: Consumer | None = None
        self._sender: Sender | None = None
        self._is_told = False

    def write(self, queue: str, settings: QueueSettings | None) -> None:
        """Set a queue, or let it be as `queue_shards` says. Raises EnqueueError when the outcome is unknown."""
        self._process.check()
        value = None if settings is None else settings.model_dump_json(exclude_none=True).encode()
        with self._lock:
            self._sender = self._sender or Sender(self._config, self._client_id)
            try:
                self._sender.send([Record(self._topic, PARTITION, queue, value)])
            except (KafkaException, BufferError) as exc:
                reason = exc.args[0].str() if isinstance(exc, KafkaException) else str(exc)
                raise EnqueueError(
                    f"{queue}: not acknowledged ({reason}); the outcome is unknown, the call can be repeated"
                ) from exc
            self._take(queue, settings)

    def read(self) -> Mapping[str, QueueSettings]:
        """All queues that are set now, as the topic says; raises KafkaException if it cannot be read."""
        found: dict[str, QueueSettings] = {}
        consumer = reader(self._config, f"{self._client_id}-{next(_numbers)}")
        try:
            low, high = watermarks(consumer, TopicPartition(self._topic, PARTITION))
            place = TopicPartition(self._topic, PARTITION, low)
            for record in read_to_end(consumer, [place], _TIMEOUT_S) if low < high else ():
                queue, settings = _decoded(record)
                found.pop(queue, None)
                if settings is not None:
                    found[queue] = settings
        finally:
            consumer.close()
        return found

    def look(self) -> None:
        """Take what has come, if it is time; does not wait, and raises nothing."""
        if time.monotonic() - self._looked_at < LOOK_S or not self._lock.acquire(blocking=False):
            return
        try:
            self._looked_at = time.monotonic()
            if self._consumer is None:
                self._consumer = reader(self._config, f"{self._client_id}-follower")
                self._consumer.assign([TopicPartition(self._topic, PARTITION, 0)])
            for record in self._consumer.consume(_RECORDS_MAX, 0):
                error = record.error()
                if error is None:
                    self._take(*_decoded(record))
                else:
                    self._note(error)
        except KafkaException as exc:
            self._note(exc.args[0])
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connections."""
        if not self._process.is_this:
            return
        with self._lock:
            if self._consumer is not None:
                self._consumer.close()
                self._consumer = None
            if self._sender is not None:
                self._sender.close()
                self._sender = None
            self._looked_at = float("inf")

    def _take(self, queue: str, settings: QueueSettings | None) -> None:
        if settings is None:
            self.shards.pop(queue, None)
        else:
            self.shards[queue] = min(settings.shards, self._lanes)

    def _note(self, error: KafkaError) -> None:
        """Say once that the topic cannot be read: jobs are spread as the client's own settings say."""
        if error.code() != KafkaError._PARTITION_EOF and not self._is_told:
            self._is_told = True
            log.warning("client.queues_unread", extra={"topic": self._topic, "error": error.str()})


def _decoded(record: Message) -> tuple[str, QueueSettings | None]:
    """The queue of a record and what it says; what cannot be read says nothing."""
    queue, value = (record.key() or b"").decode(errors="replace"), record.value()
    try:
        return queue, None if value is None else QueueSettings.model_validate_json(value)
    except ValidationError as exc:
        log.warning("client.queue_settings_unreadable", extra={"queue": queue, "error": str(exc)})
        return queue, None
