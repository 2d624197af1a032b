"""Sends records and waits until Kafka has acknowledged all of them."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message
from joblog.streams.contract.record_headers import Headers
from joblog.streams.contract.timestamps import EPOCH
from joblog.streams.kafka.clients import KafkaConfig, producer
from joblog.streams.kafka.durable_producer import DurableProducer

_TIMEOUT_S: Final = 10
#: How much longer than the producer's own time-out to wait: by then it has reported every record.
_REPORT_S: Final = 2


#: Instead of the number of a partition: the key decides.
BY_KEY: Final = -1


class Record(NamedTuple):
    topic: str
    partition: int
    key: str | bytes | None
    value: bytes | None
    headers: Headers | None = None


class Sender:
    """A producer for one thread at a time."""

    def __init__(self, config: KafkaConfig, client_id: str, on_replaced: Callable[[], object] = lambda: None) -> None:
        make = partial(producer, config, client_id, linger_ms=1, timeout_ms=_TIMEOUT_S * 1000)
        self._producer = DurableProducer(make, on_replaced)
        self._known: set[str] = set()

    def send(self, records: Sequence[Record]) -> datetime | None:
        """Returns when all are acknowledged: the earliest time that brokers gave them, by their clocks.

        KafkaException or BufferError when it is unknown of one of them whether it was written.
        """
        errors: list[KafkaError] = []
        times: list[int] = []
        left = len(records)

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            nonlocal left
            left -= 1
            if error is not None:
                errors.append(error)
            else:
                times.append(message.timestamp()[1])

        for topic in {record.topic for record in records} - self._known:
            # The first record for a topic that is not known yet would wait for half a second.
            self._producer.list_topics(topic, _TIMEOUT_S)
            self._known.add(topic)
        for record in records:
            place = record.topic, record.value, record.key, record.partition
            try:
                self._producer.produce(*place, on_delivery, record.headers)
            except BufferError:  # more than the client holds at once, as after a long outage
                self._producer.flush(_TIMEOUT_S + _REPORT_S)
                self._producer.produce(*place, on_delivery, record.headers)
        self._producer.flush(_TIMEOUT_S + _REPORT_S)
        if errors:
            raise KafkaException(errors[0])
        if left:
            raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))
        return EPOCH + timedelta(milliseconds=min(times)) if times else None

    def close(self) -> None:
        self._producer.close()
