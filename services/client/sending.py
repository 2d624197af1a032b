"""Sends commands and waits until Kafka has acknowledged them; many threads share one producer.

Acknowledgements arrive as callbacks, and one thread polls for all callers: a caller that polled for itself could
wait on after the poll of another one had received its acknowledgement.
"""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from confluent_kafka import KafkaError, KafkaException, Message
from joblog.services.client.forks import Process
from joblog.services.client.templates import CommandRecord
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.errors import EnqueueError, JoblogError, TopicsError
from joblog.streams.kafka.durable_producer import DurableProducer

#: Closing a client waits for the end of such a wait: a command of `joblog` would show it.
_POLL_S: Final = 0.1
#: How much longer than the producer's own time-out to wait: by then it has reported every record.
_REPORT_S: Final = 5.0
_FULL_WAIT_S: Final = 0.005
#: How long a call that has handed over its records keeps the producer from lingering for more.
_HURRY_S: Final = 0.1


class Sender(Protocol):
    """What takes commands: Kafka (`CommandSender`), or lanes in memory (services/testing)."""

    def send(self, records: Sequence[CommandRecord]) -> None:
        """Send all, and return when they are kept."""

    def close(self) -> None:
        """No more commands come."""


class TogetherSender(Protocol):
    """What takes commands that become true together."""

    def send(self, records: Sequence[CommandRecord], job_ids: Sequence[str]) -> None:
        """Send all or none."""

    def close(self) -> None:
        """No more commands come."""


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
    """The acknowledgements of one call, awaited by the calling thread.

    They come in the polling thread and in those that flush, several at a time: they are counted by a list, whose
    `append` is one step for all threads, as `+=` on a number is not.
    """

    __slots__ = ("_done", "_expected", "_reported", "_waiting", "reason")

    def __init__(self, job_ids: Sequence[str]) -> None:
        self._waiting = set(job_ids)
        self._done = threading.Event()
        self._expected = -1
        self._reported: list[None] = []
        self.reason = "no report came"

    def on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._waiting.discard((message.key() or b"").decode())
        else:
            self.reason = error.str()
        self._reported.append(None)
        if len(self._reported) == self._expected:
            self._done.set()

    def expect(self, count: int) -> None:
        """All records have been handed over: `wait` returns after this many reports."""
        self._expected = count
        if len(self._reported) == count:
            self._done.set()

    def wait(self, timeout_s: float) -> set[str]:
        """Wait for the reports; returns the ids of the jobs that were not acknowledged."""
        self._done.wait(timeout_s)
        return self._waiting


class CommandSender:
    """A producer of commands and its polling thread. Cannot be used after a fork: make one in each process."""

    def __init__(self, producer: DurableProducer, servers: str, topic: str, lanes: int, timeout_s: float) -> None:
        self._producer = producer
        self._servers = servers
        self._topic = topic
        self._lanes = lanes
        self._timeout_s = timeout_s
        self._process = Process()
        self._stop = threading.Event()
        self._checked = False
        self._thread = threading.Thread(target=self._poll, name="joblog-client", daemon=True)
        self._thread.start()

    def send(self, records: Sequence[CommandRecord]) -> None:
        """Send all, and return when Kafka has acknowledged all. Raises NotAcknowledged, TopicsError."""
        self._process.check()
        if self._stop.is_set():
            raise JoblogError("this client is closed")
        if not records:
            return
        job_ids = [record.job_id for record in records]
        delivery = _Delivery(job_ids)
        try:
            self.check_topic()
            self._hand_over(records, delivery)
        except (KafkaException, BufferError) as exc:
            raise NotAcknowledged(_reason(exc), job_ids, job_ids) from exc
        delivery.expect(len(records))
        self._producer.flush(_HURRY_S)
        unacknowledged = delivery.wait(self._timeout_s + _REPORT_S)
        if unacknowledged:
            left = [job_id for job_id in job_ids if job_id in unacknowledged]
            raise NotAcknowledged(f"brokers {self._servers}: {delivery.reason}", job_ids, left)

    def close(self) -> None:
        """Close the producer, after the calls of other threads that are in progress."""
        if self._stop.is_set() or not self._process.is_this:
            return
        self._producer.flush(self._timeout_s)
        self._stop.set()
        self._thread.join()
        self._producer.close()

    def _hand_over(self, records: Sequence[CommandRecord], delivery: _Delivery) -> None:
        produce, topic, on_delivery = self._producer.produce, self._topic, delivery.on_delivery
        for record in records:
            job_id, lane = record.job_id, record.lane
            if lane is None:
                lane = lane_of_job(job_id)
            try:
                produce(topic, record.value, job_id, lane, on_delivery)
            except BufferError:
                self._wait_for_room(partial(produce, topic, record.value, job_id, lane, on_delivery))

    def _wait_for_room(self, produce: Callable[[], None]) -> None:
        """Try again while the producer's queue is full; the polling thread makes room as brokers acknowledge."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            self._stop.wait(_FULL_WAIT_S)
            try:
                return produce()
            except BufferError:
                if time.monotonic() > deadline:
                    raise

    def check_topic(self) -> None:
        """Check the topic once: with another number of lanes a job would be rejected, or wait in the wrong lane."""
        if self._checked:
            return
        found = self._producer.list_topics(self._topic, self._timeout_s).topics[self._topic]
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
            self._producer.poll(_POLL_S)


def _reason(exc: Exception) -> str:
    error = exc.args[0] if exc.args else exc
    return error.str() if isinstance(error, KafkaError) else str(error)
