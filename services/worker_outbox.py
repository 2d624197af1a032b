"""The worker's letters to the electors: sent again when they come back, until the lease is over."""

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

#: Seconds between two tries of a letter that came back, and between two looks at a full queue.
RETRY_S: Final = 0.1
#: Seconds between two warnings, since thousands of letters may come back for one reason.
WARNING_S: Final = 1.0


class Letter(NamedTuple):
    """One record of the reports topic; `until` (monotonic) it is worth sending."""

    lane: int
    key: str | bytes
    value: bytes
    until: float


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
        lease_s: float,
        meters: Meters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_sender = make_sender
        self._sender = make_sender()
        self._topic = topic
        self._lease_s = lease_s
        self._meters = meters
        self._clock = clock
        self._returned: deque[Letter] = deque()
        self._next_retry = 0.0
        self._next_warning = 0.0
        self._is_broken = False

    def send(self, lane: int, key: str, value: bytes) -> None:
        """Send a letter that must arrive; waits while the producer's queue is full, for a lease at most."""
        self._produce(Letter(lane, key, value, 0.0), self._delivered)

    def renew(self, lane: int, key: str, value: bytes, acknowledged: Callable[[], None]) -> None:
        """Send a letter that the next one replaces; `acknowledged` is called once Kafka has it."""
        self._produce(Letter(lane, key, value, 0.0), partial(self._renewed, acknowledged))

    def turn(self) -> None:
        """Hear of deliveries, and send again what came back."""
        self._sender.poll(0)
        if self._is_broken:
            self._replace_sender()
        now = self._clock()
        if self._returned and now >= self._next_retry:
            self._next_retry = now + RETRY_S
            for _ in range(len(self._returned)):
                self._retry(self._returned.popleft(), now)

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything arrived; false, and an error in the log, if it did not in time."""
        end = self._clock() + timeout_s
        while self._returned or len(self._sender):
            if self._clock() >= end:
                log.error("reports.undelivered", extra={"count": len(self._returned) + len(self._sender)})
                return False
            self._sender.poll(RETRY_S)
            self.turn()
        return True

    def _produce(self, letter: Letter, delivered: Callable[[Any, Any], None]) -> None:
        end: float | None = None
        while True:
            sender = self._sender
            try:
                sender.produce(self._topic, letter.value, letter.key, letter.lane, delivered)
            except BufferError:
                end = end or self._clock() + self._lease_s
                if self._clock() >= end:
                    return self._lose(letter, "the producer's queue stayed full")
                sender.poll(RETRY_S)
            except KafkaException as exc:
                return self._take_back(exc.args[0], letter)
            else:
                return None

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            # -1 when the client never tried it; the lease began when the letter was written.
            age_s = max(0.0, message.latency() or 0.0)
            until = self._clock() + self._lease_s - age_s
            self._take_back(error, Letter(message.partition(), message.key(), message.value(), until))

    def _redelivered(self, letter: Letter, error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            self._take_back(error, letter)

    def _renewed(self, acknowledged: Callable[[], None], error: KafkaError | None, _message: Any) -> None:
        if error is None:
            acknowledged()
        else:
            self._note(error)

    def _take_back(self, error: KafkaError, letter: Letter) -> None:
        self._note(error)
        self._returned.append(letter if letter.until else letter._replace(until=self._clock() + self._lease_s))

    def _note(self, error: KafkaError) -> None:
        self._meters.inc("joblog_kafka_errors_total", "worker", error.name())
        if self._clock() >= self._next_warning:
            self._next_warning = self._clock() + WARNING_S
            log.warning("report.returned", extra={"error": error.str()})
        self._is_broken = self._is_broken or error.fatal()

    def _retry(self, letter: Letter, now: float) -> None:
        if now >= letter.until:
            self._lose(letter, "it could not be delivered before the lease was over")
        else:
            self._produce(letter, partial(self._redelivered, letter))

    def _lose(self, letter: Letter, reason: str) -> None:
        """Give up: the elector will find the lease over, and elects the job anew."""
        self._meters.inc("joblog_kafka_errors_total", "worker", "REPORT_LOST")
        log.error("report.lost", extra={"key": letter.key, "lane": letter.lane, "reason": reason})

    def _replace_sender(self) -> None:
        """An idempotent producer that hit a fatal error does nothing any more: what it has comes back."""
        self._meters.inc("joblog_producer_rebuilds_total", "worker")
        old, self._sender = self._sender, self._make_sender()
        self._is_broken = False
        old.purge()
        old.flush(RETRY_S)
