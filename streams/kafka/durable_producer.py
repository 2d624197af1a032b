"""The worker's letters to the electors: sent again and again until they arrive.

A report may be late, but never lost: the elector would wait for it as long as the worker renews its lease. One
that comes after its lease was over is rejected there, which is harmless.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

#: Seconds between two tries of a letter that came back, and between two looks at a full queue.
RETRY_S: Final = 0.1
#: How often a sender waits for room in a full queue, before it leaves its letter to `turn`.
FULL_TRIES_MAX: Final = 10
#: Seconds between two warnings, since thousands of letters may come back for one reason.
WARNING_S: Final = 1.0


class Letter(NamedTuple):
    """One record of the reports topic."""

    lane: int
    key: str | bytes
    value: bytes


class Sender(Protocol):
    """What is needed of a Kafka producer."""

    def produce(
        self, topic: str, value: bytes, key: str | bytes, partition: int, callback: Callable[[Any, Any], None]
    ) -> None: ...
    def poll(self, timeout: float) -> int: ...
    def purge(self) -> None: ...
    def flush(self, timeout: float) -> int: ...
    def __len__(self) -> int: ...


class Outbox:
    """Sends from any thread; `turn` belongs to the worker's loop."""

    def __init__(
        self,
        make_sender: Callable[[], Sender],
        topic: str,
        meters: Meters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_sender = make_sender
        self._sender = make_sender()
        self._topic = topic
        self._meters = meters
        self._clock = clock
        self._returned: deque[Letter] = deque()
        self._next_retry = 0.0
        self._next_warning = 0.0
        self._is_broken = False

    def send(self, lane: int, key: str, value: bytes) -> None:
        """Send a letter that must arrive; waits a little while the queue is full, to slow down who fills it."""
        letter = Letter(lane, key, value)
        for _ in range(FULL_TRIES_MAX):
            if self._put(letter, self._delivered):
                return
            self._poll(RETRY_S)
        self._returned.append(letter)

    def renew(self, lane: int, key: str, value: bytes, acknowledged: Callable[[], None]) -> None:
        """Send a letter that the next one replaces; `acknowledged` is called once Kafka has it."""
        self._put(Letter(lane, key, value), partial(self._renewed, acknowledged))

    def turn(self) -> None:
        """Hear of deliveries, and send again what came back."""
        self._poll(0)
        if self._is_broken:
            self._replace_sender()
        if self._returned and self._clock() >= self._next_retry:
            self._next_retry = self._clock() + RETRY_S
            for _ in range(len(self._returned)):
                letter = self._returned.popleft()
                if not self._put(letter, self._delivered):
                    self._returned.append(letter)
                    break

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything arrived; false, and an error in the log, if it did not in time."""
        end = self._clock() + timeout_s
        while self._returned or len(self._sender):
            if self._clock() >= end:
                log.error("reports.undelivered", extra={"count": len(self._returned) + len(self._sender)})
                return False
            self._poll(RETRY_S)
            self.turn()
        return True

    def _poll(self, timeout_s: float) -> None:
        """Hear of deliveries; a fatal error is raised here, once, and by no other call with its flag."""
        try:
            self._sender.poll(timeout_s)
        except KafkaException as exc:
            self._is_broken = True
            self._note(exc.args[0])

    def _put(self, letter: Letter, delivered: Callable[[Any, Any], None]) -> bool:
        """Hand it to the producer; false if there is no room, or it will not have it now."""
        try:
            self._sender.produce(self._topic, letter.value, letter.key, letter.lane, delivered)
        except BufferError:
            return False
        except KafkaException as exc:
            self._note(exc.args[0])
            return False
        return True

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._note(error)
            self._returned.append(Letter(message.partition(), message.key(), message.value()))

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
        self._is_broken = self._is_broken or error.fatal() or error.code() == KafkaError._FATAL

    def _replace_sender(self) -> None:
        """An idempotent producer that hit a fatal error does nothing any more: what it has comes back."""
        self._meters.inc("joblog_producer_rebuilds_total", "worker")
        old, self._sender = self._sender, self._make_sender()
        self._is_broken = False
        old.purge()
        # Twice, as it may raise its error once.
        for _ in range(2):
            with suppress(KafkaException):
                old.flush(RETRY_S)
