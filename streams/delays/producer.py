"""A producer that survives fatal errors: what it held comes back as failed, and another one takes its place."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

#: How long a broken producer may take to report what it held; it has purged that, so it takes moments.
REPORT_S: Final = 5.0


class StillHeld(RuntimeError):
    """A broken producer did not report all of its records: nobody knows what became of the rest."""


class LastingProducer:
    """An idempotent producer, made anew after a fatal error, after which librdkafka refuses every record.

    Used from one thread, whose callbacks (`on_delivery`) are called within `poll` and `flush`.
    """

    def __init__(self, make: Callable[[], Producer], role: str, meters: Meters) -> None:
        self._make = make
        self._role = role
        self._meters = meters
        self._producer = make()
        self._is_broken = False

    def __len__(self) -> int:
        return len(self._producer)

    def produce(self, topic: str, **record: Any) -> None:
        """Send a record; BufferError when it cannot be taken now, because the queue is full or a new producer is due.

        Raises KafkaException for a record that this producer does not take.
        """
        try:
            self._producer.produce(topic, **record)
        except KafkaException as exc:
            if not self._broke(exc):
                raise
            raise BufferError("the producer is broken") from exc

    def poll(self) -> None:
        """Call the callbacks that are due; put a new producer in the place of a broken one."""
        try:
            self._producer.poll(0)
        except KafkaException as exc:
            if not self._broke(exc):
                raise
        if self._is_broken:
            self._replace()

    def flush(self, timeout_s: float) -> None:
        """Wait until what was sent is acknowledged, or failed, as long as the producer works."""
        try:
            self._producer.flush(timeout_s)
        except KafkaException as exc:
            if not self._broke(exc):
                raise

    def _broke(self, exc: KafkaException) -> bool:
        """Whether the producer is broken; `produce` says so without the flag of a fatal error."""
        error = exc.args[0]
        if not (error.fatal() or error.code() == KafkaError._FATAL):
            return False
        if not self._is_broken:
            self._is_broken = True
            self._meters.inc("joblog_kafka_errors_total", self._role, error.name())
            log.error("producer.broken", extra={"code": error.name(), "error": error.str()})
        return True

    def _replace(self) -> None:
        """Have everything that the broken producer holds reported as failed, then use another one."""
        broken = self._producer
        broken.purge()
        for _ in range(2):  # the first may raise the error itself, once
            with suppress(KafkaException):
                broken.flush(REPORT_S)
        self._producer, self._is_broken = self._make(), False
        self._meters.inc("joblog_producer_rebuilds_total", self._role)
        if held := len(broken):
            raise StillHeld(f"{held} records of a broken producer were not reported")
