"""Dead letters of hooks, sent until Kafka has acknowledged them."""

from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from joblog.streams.contract import deadletters
from joblog.streams.contract.record_headers import Headers
from joblog.streams.contract.topics import TopicNames
from joblog.streams.hooks.calling import ROLE, Record
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.durable_producer import DurableProducer
from joblog.streams.metrics import Meters

_TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE})


class Parking:
    """Sends one dead letter at a time."""

    def __init__(self, config: KafkaConfig, names: TopicNames, meters: Meters) -> None:
        self._producer = DurableProducer(lambda: clients.producer(config, f"{names.prefix}{ROLE}"))
        self._topic = names.deadletters
        self._meters = meters

    def send(self, record: Record, code: str, reason: str) -> Callable[[], bool]:
        """Begin to send it; what is returned goes on with that, and says whether it is written."""
        place = (record.topic() or "", record.partition() or 0, record.offset() or 0)
        headers = deadletters.headers(code, reason, ROLE, *place)
        letter = _Letter(deadletters.key(record.key()), deadletters.value(record.value()), headers)

        def is_written() -> bool:
            if letter.has_to_be_sent:
                self._hand_over(letter)
            self._producer.poll(0)
            return letter.is_written

        return is_written

    def _hand_over(self, letter: "_Letter") -> None:
        letter.has_to_be_sent = False
        try:
            self._producer.produce(self._topic, letter.value, letter.key, -1, letter.delivered, letter.headers)
        except BufferError:
            letter.has_to_be_sent = True
        except KafkaException as exc:
            self._meters.inc("joblog_kafka_errors_total", ROLE, exc.args[0].name())
            letter.delivered(exc.args[0], None)


class _Letter:
    def __init__(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        self.key, self.value, self.headers = key, value, headers
        self.has_to_be_sent, self.is_written = True, False

    def delivered(self, error: KafkaError | None, _message: Any) -> None:
        if error is None:
            self.is_written = True
            return
        if error.code() in _TOO_LARGE:  # the headers say where the whole record is
            self.key = self.value = None
        self.has_to_be_sent = True
