"""An idempotent producer that outlives its fatal errors.

librdkafka's idempotent producer may meet an error after which it cannot promise its order any more, such as a broker
that lost its sequence numbers. From then on it refuses every record, and only a new producer helps
(librdkafka's INTRODUCTION.md, "Idempotent producer fatal errors").
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from confluent_kafka import KafkaError, KafkaException
from joblog.streams.contract.record_headers import Headers

log = logging.getLogger(__name__)

#: How long a producer that is given up may take to hand back what it held; also the least time between two of them.
GIVE_UP_S: Final = 0.1

OnDelivery = Callable[[KafkaError | None, Any], None]


class AnyProducer(Protocol):
    """The calls of `confluent_kafka.Producer` that are used here."""

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: str | bytes | None,
        partition: int,
        on_delivery: OnDelivery,
        *,
        headers: Headers | None = None,
    ) -> None: ...
    def poll(self, timeout: float) -> int: ...
    def flush(self, timeout: float) -> int: ...
    def purge(self) -> None: ...
    def list_topics(self, topic: str, timeout: float) -> Any: ...
    def close(self) -> object: ...
    def __len__(self) -> int: ...


class DurableProducer:
    """Calls of a `confluent_kafka.Producer`, which is replaced when it has met a fatal error. For any thread.

    Every record that `produce` took has its callback called once, by `poll` or `flush`: with an error if it was
    given up with its producer, so that who wants it delivered can send it again. Somebody has to poll.
    """

    def __init__(self, make: Callable[[], Any], on_replaced: Callable[[], object] = lambda: None) -> None:
        """`make` makes a producer; `on_replaced` is called each time that another one was needed."""
        self._make = make
        self._on_replaced = on_replaced
        self._replacing = threading.Lock()
        self._producer: AnyProducer = make()

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: str | bytes | None,
        partition: int,
        on_delivery: OnDelivery,
        headers: Headers | None = None,
    ) -> None:
        """Hand over a record; `partition` -1 lets the key decide.

        BufferError when the queue is full, KafkaException when the record is refused. If that was for a fatal
        error, the producer has been replaced, and the record may be handed over again.
        """
        current = self._producer
        try:
            # By place where that can be: names of arguments double the cost of the call.
            if headers is None:
                current.produce(topic, value, key, partition, on_delivery)
            else:
                current.produce(topic, value, key, partition, on_delivery, headers=headers)
        except KafkaException as exc:
            error = exc.args[0]
            if error.fatal() or error.code() == KafkaError._FATAL:  # the code comes without the flag
                self._replace(current, error)
            raise

    def poll(self, timeout_s: float) -> None:
        """Call the callbacks of what was delivered; waits for a first one for at most `timeout_s`."""
        current = self._producer
        try:
            current.poll(timeout_s)
        except KafkaException as exc:  # raised for fatal errors, once
            self._replace(current, exc.args[0])

    def flush(self, timeout_s: float) -> int:
        """Wait until everything was delivered or handed back; returns how many records were not in that time."""
        current = self._producer
        try:
            return current.flush(timeout_s)
        except KafkaException as exc:
            self._replace(current, exc.args[0])
            return len(self)

    def list_topics(self, topic: str, timeout_s: float) -> Any:
        """What the cluster says of a topic; KafkaException when no broker answers."""
        return self._producer.list_topics(topic, timeout=timeout_s)

    def close(self) -> None:
        """Let go of the connections; what was not flushed is lost."""
        self._producer.close()

    def __len__(self) -> int:
        """How many records and callbacks are with the producer."""
        return len(self._producer)

    def _replace(self, broken: AnyProducer, error: KafkaError) -> None:
        """Go on with a new producer, and hand back what the broken one held."""
        with self._replacing:
            if self._producer is not broken:
                return
            self._producer = self._make()
        log.warning("producer.replaced", extra={"error": error.str()})
        self._on_replaced()
        broken.purge()
        # Twice, as it may raise its error once. Not closed: other threads may be about to hand it records.
        for _ in range(2):
            with suppress(KafkaException):
                broken.flush(GIVE_UP_S)
