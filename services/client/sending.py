"""Sends commands and waits until Kafka has them; many threads share one producer.

Acknowledgements come as callbacks, which one thread polls for everybody: a caller that polled for itself
could sleep on while another caller's poll consumed its acknowledgement.

An idempotent producer that hits a fatal error refuses everything from then on. Whoever notices puts a new one in
its place: the polling thread, where `poll` raises the error, or a caller, where `produce` does.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from joblog.services.client.templates import Record
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.errors import EnqueueError, JoblogError, TopicsError

log = logging.getLogger(__name__)

_POLL_S: Final = 0.5
#: Waits beyond the producer's own time-out, after which it must have reported every record.
_REPORT_S: Final = 5.0
_FULL_WAIT_S: Final = 0.005
#: How long a call that has handed over its records keeps the producer from lingering for more.
_HURRY_S: Final = 0.1
#: Between two new producers, should each fail at once, and until a broken one has reported what it held.
_BROKEN_S: Final = 0.1


class NotAcknowledged(EnqueueError):
    """An EnqueueError with its jobs. Calling again with these ids (options.job_id, or Call.job_id) is safe.

    - job_ids: all of the call, in its order.
    - unacknowledged: those whose outcome is unknown.
    """

    def __init__(self, reason: str, job_ids: Sequence[str], unacknowledged: Sequence[str]) -> None:
        few = ", ".join(unacknowledged[:3]) + (", ..." if len(unacknowledged) > 3 else "")
        super().__init__(
            f"{len(unacknowledged)} of {len(job_ids)} commands were not acknowledged ({reason}): their outcome is "
            f"unknown. Sending them again with the same job id is safe: {few}"
        )
        self.job_ids = tuple(job_ids)
        self.unacknowledged = tuple(unacknowledged)


class _Delivery:
    """The acknowledgements of one call: counted by the polling thread, awaited by the calling one."""

    __slots__ = ("_done", "_expected", "_reported", "_waiting", "reason")

    def __init__(self, job_ids: Sequence[str]) -> None:
        self._waiting = set(job_ids)
        self._done = threading.Event()
        self._expected = -1
        self._reported = 0
        self.reason = "no report came"

    def on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._waiting.discard((message.key() or b"").decode())
        else:
            self.reason = error.str()
        self._reported += 1
        if self._reported == self._expected:
            self._done.set()

    def expect(self, count: int) -> None:
        """All is sent; from now on the last report ends the waiting."""
        self._expected = count
        if self._reported == count:
            self._done.set()

    def wait(self, timeout_s: float) -> set[str]:
        """The jobs that nobody acknowledged."""
        self._done.wait(timeout_s)
        return self._waiting


class Sender:
    """A producer of commands with its polling thread. It does not survive a fork: make one in each process."""

    def __init__(
        self, make_producer: Callable[[], Producer], servers: str, topic: str, lanes: int, timeout_s: float
    ) -> None:
        self._make_producer = make_producer
        self._servers = servers
        self._topic = topic
        self._lanes = lanes
        self._timeout_s = timeout_s
        self._producer = make_producer()
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._replacing = threading.Lock()
        self._checked = False
        self._thread = threading.Thread(target=self._poll, name="joblog-client", daemon=True)
        self._thread.start()

    def send(self, records: Sequence[Record]) -> None:
        """Send all, and return when Kafka has acknowledged all. Raises NotAcknowledged, TopicsError."""
        if os.getpid() != self._pid:
            raise JoblogError("this client was made before the process forked: make one after the fork")
        if self._stop.is_set():
            raise JoblogError("this client is closed")
        if not records:
            return
        job_ids = [record.job_id for record in records]
        delivery = _Delivery(job_ids)
        try:
            self._check_topic()
            for record in records:
                self._produce(record, delivery)
        except (KafkaException, BufferError) as exc:
            raise NotAcknowledged(_told(exc), job_ids, job_ids) from exc
        delivery.expect(len(records))
        self._hurry()
        unacknowledged = delivery.wait(self._timeout_s + _REPORT_S)
        if unacknowledged:
            left = [job_id for job_id in job_ids if job_id in unacknowledged]
            raise NotAcknowledged(f"brokers {self._servers}: {delivery.reason}", job_ids, left)

    def close(self) -> None:
        """Stop; calls that still wait in other threads get their reports first."""
        if self._stop.is_set() or os.getpid() != self._pid:
            return
        with suppress(KafkaException):
            self._producer.flush(self._timeout_s)
        with self._replacing:
            self._stop.set()
        self._thread.join()
        self._producer.close()

    def _produce(self, record: Record, delivery: _Delivery) -> None:
        lane = lane_of_job(record.job_id)
        deadline: float | None = None
        while True:
            current = self._producer
            try:
                # By place: names of arguments double the cost of the call.
                current.produce(self._topic, record.value, record.job_id, lane, delivery.on_delivery)
            except KafkaException as exc:
                if exc.args[0].code() == KafkaError._FATAL:  # without the flag that `fatal` reads
                    self._replace(current, exc)
                raise
            except BufferError:
                # The producer holds as much as it may; the polling thread makes room as brokers acknowledge.
                deadline = deadline or time.monotonic() + self._timeout_s
                if time.monotonic() > deadline:
                    raise
                self._stop.wait(_FULL_WAIT_S)
            else:
                return

    def _hurry(self) -> None:
        """Have the producer send what it holds without lingering for more."""
        current = self._producer
        try:
            current.flush(_HURRY_S)
        except KafkaException as exc:  # for fatal errors only, of which `_poll` then does not hear
            self._replace(current, exc)

    def _check_topic(self) -> None:
        """Once: a job sent by the wrong number of lanes would be rejected, or wait where no one serves it."""
        if self._checked:
            return
        found = self._producer.list_topics(self._topic, timeout=self._timeout_s).topics[self._topic]
        if found.error is not None:
            raise TopicsError(f"topic {self._topic} cannot be used: {found.error.str()}; see `joblog topics create`")
        if len(found.partitions) != self._lanes:
            raise TopicsError(
                f"topic {self._topic} has {len(found.partitions)} partitions, but lanes is set to {self._lanes}: "
                "set lanes to what the topic has, or choose another topic_prefix"
            )
        self._checked = True

    def _poll(self) -> None:
        while not self._stop.is_set():
            current = self._producer
            try:
                current.poll(_POLL_S)
            except KafkaException as exc:  # for fatal errors only
                self._replace(current, exc)
                self._stop.wait(_BROKEN_S)

    def _replace(self, broken: Producer, why: KafkaException) -> None:
        """Go on with a new producer; what the broken one held is reported as not acknowledged."""
        with self._replacing:
            if self._producer is not broken or self._stop.is_set():
                return
            self._producer = self._make_producer()
        log.warning("client.producer_replaced", extra={"error": _told(why)})
        broken.purge()
        # Twice, as it may raise its error once. Not closed: other threads may be about to hand it their records.
        for _ in range(2):
            with suppress(KafkaException):
                broken.flush(_BROKEN_S)


def _told(exc: Exception) -> str:
    error = exc.args[0] if exc.args else exc
    return error.str() if isinstance(error, KafkaError) else str(error)
