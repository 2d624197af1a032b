"""Other services, which request detection runs or tell of uploads."""

import time
import uuid
from typing import Final

from confluent_kafka import KafkaError, Message
from joblog.services.detection.requests import Telling, write_request
from joblog.streams.errors import EnqueueError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig

_TIMEOUT_S: Final = 30


class RequestProducer:
    """Sends requests, each acknowledged by Kafka when the call returns."""

    def __init__(self, config: KafkaConfig, topic: str) -> None:
        self._topic = topic
        self._producer = clients.producer(config, "detection-producer", timeout_ms=_TIMEOUT_S * 1000)

    def send(self, request: Telling) -> None:
        """Send one request. Requests of a run keep their order. EnqueueError if Kafka does not acknowledge it."""
        failures: list[KafkaError] = []

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        value = write_request(request, str(uuid.uuid4()), time.time_ns() // 1_000_000)
        self._producer.produce(self._topic, value, request.run_id, on_delivery=on_delivery)
        left = self._producer.flush(_TIMEOUT_S + 5)
        if left or failures:
            reason = failures[0].str() if failures else "no answer"
            raise EnqueueError(f"{request.type} of run {request.run_id} was not acknowledged: {reason}")

    def close(self) -> None:
        self._producer.close()
