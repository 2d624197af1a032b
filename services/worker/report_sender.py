"""Sends the worker's records to Kafka, again and again until they arrive.

A report may be late, but never lost: the elector would wait for it as long as the worker renews its lease. A report
that arrives after its lease is rejected there, which is harmless.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException
from joblog.streams.contract.record_headers import Headers
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.durable_producer import DurableProducer, OnDelivery
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

#: Seconds between two tries of a record that came back, and between two looks at a full queue.
RETRY_S: Final = 0.1
#: How often `send` waits for room in a full queue, before it leaves its record to `turn`.
FULL_TRIES_MAX: Final = 10
#: Seconds between two warnings, since thousands of records may come back for one reason.
WARNING_S: Final = 1.0
#: For a record whose key decides where it goes.
ANY_PARTITION: Final = -1


class _Record(NamedTuple):
    topic: str
    partition: int
    key: str | bytes | None
    value: bytes | None
    headers: Headers | None = None


class Sender(Protocol):
    """What takes the worker's records: Kafka (`ReportSender`), or lanes in memory (services/testing)."""

    def send(self, lane: int, key: str, value: bytes) -> None:
        """Send a report that must arrive."""

    def send_in_order(self, lane: int, key: str, *values: bytes) -> None:
        """Send reports that must arrive in this order."""

    def renew(self, lane: int, key: str, value: bytes, acknowledged: Callable[[], None]) -> None:
        """Send a report that the next one replaces."""

    def park(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Send a dead letter, which must arrive."""


class ReportSender:
    """Sends from any thread; `turn` and `drain` belong to the worker's loop."""

    def __init__(
        self,
        producer: DurableProducer,
        names: TopicNames,
        meters: Meters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._producer = producer
        self._reports = names.reports
        self._deadletters = names.deadletters
        self._meters = meters
        self._clock = clock
        self._returned: deque[_Record] = deque()
        self._next_retry = 0.0
        self._next_warning = 0.0

    def send(self, lane: int, key: str, value: bytes) -> None:
        """Send a report that must arrive; waits a little while the queue is full, to slow down who fills it."""
        self._send(_Record(self._reports, lane, key, value), self._delivered)

    def send_in_order(self, lane: int, key: str, *values: bytes) -> None:
        """Send reports that must arrive in this order: where one has to wait, so do those behind it."""
        is_waiting = False
        for value in values:
            record = _Record(self._reports, lane, key, value)
            if is_waiting:
                self._returned.append(record)
            else:
                is_waiting = not self._send(record, self._delivered)

    def renew(self, lane: int, key: str, value: bytes, acknowledged: Callable[[], None]) -> None:
        """Send a report that the next one replaces; `acknowledged` is called once Kafka has it."""
        self._put(_Record(self._reports, lane, key, value), partial(self._renewed, acknowledged))

    def park(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Send a dead letter, which must arrive."""
        record = _Record(self._deadletters, ANY_PARTITION, key, value, headers)
        self._send(record, partial(self._parked, record))

    def turn(self) -> None:
        """Take note of deliveries, and send again what came back."""
        self._producer.poll(0)
        if self._returned and self._clock() >= self._next_retry:
            self._next_retry = self._clock() + RETRY_S
            for _ in range(len(self._returned)):
                record = self._returned.popleft()
                put = self._put(record, self._callback_of(record))
                if put is None:  # refused for what it is: others need not wait for it
                    self._returned.append(record)
                    break
                if not put:
                    self._returned.appendleft(record)
                    break

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything arrived; false, and an error in the log, if it did not in time."""
        end = self._clock() + timeout_s
        while self._returned or len(self._producer):
            if self._clock() >= end:
                log.error("reports.undelivered", extra={"count": len(self._returned) + len(self._producer)})
                return False
            self._producer.poll(RETRY_S)
            self.turn()
        return True

    def _send(self, record: _Record, on_delivery: OnDelivery) -> bool:
        """False if there was no room, and it waits for `turn`."""
        for _ in range(FULL_TRIES_MAX):
            if self._put(record, on_delivery):
                return True
            self._producer.poll(RETRY_S)
        self._returned.append(record)
        return False

    def _put(self, record: _Record, on_delivery: OnDelivery) -> bool | None:
        """Hand it to the producer; false if there is no room, None if it is refused now."""
        try:
            self._producer.produce(
                record.topic, record.value, record.key, record.partition, on_delivery, record.headers
            )
        except BufferError:
            return False
        except KafkaException as exc:
            self._note(exc.args[0])
            return None
        return True

    def _callback_of(self, record: _Record) -> OnDelivery:
        return self._delivered if record.headers is None else partial(self._parked, record)

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        # One callback for all reports, without a closure for each: the message holds what is to be sent again.
        if error is not None:
            self._note(error)
            self._returned.append(_Record(self._reports, message.partition(), message.key(), message.value()))

    def _parked(self, record: _Record, error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            self._note(error)
            self._returned.append(record)

    def _renewed(self, acknowledged: Callable[[], None], error: KafkaError | None, _message: Any) -> None:
        if error is None:
            acknowledged()
        else:
            self._note(error)

    def _note(self, error: KafkaError) -> None:
        self._meters.inc("joblog_kafka_errors_total", "worker", error.name())
        if self._clock() >= self._next_warning:
            self._next_warning = self._clock() + WARNING_S
            log.warning("report.returned", extra={"error": error.str()})
