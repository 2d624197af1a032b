"""What a benchmark reads from the log: how many jobs succeeded, and how far a group has read."""

import threading
import time
from collections.abc import Callable
from typing import Final, Self

from confluent_kafka import Consumer, Message, TopicPartition
from joblog.services.bench.processes import Cluster
from joblog.streams.errors import JoblogError
from joblog.streams.kafka.clients import group_consumer, reader

SUCCEEDED: Final = b'"type":"job.succeeded"'


class TooSlow(JoblogError):
    """A benchmark did not finish in time."""


class EventWatch:
    """Follows the events of all lanes in a thread, and counts the jobs that succeeded."""

    def __init__(self, cluster: Cluster, on_success: Callable[[Message], None] = lambda _message: None) -> None:
        self.succeeded = 0
        self._on_success = on_success
        self._stop = threading.Event()
        self._reader: Consumer = reader(cluster.kafka, "joblog-bench")
        self._reader.assign(
            [TopicPartition(cluster.names.events, lane, self._end(cluster, lane)) for lane in range(cluster.lanes)]
        )
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def _end(self, cluster: Cluster, lane: int) -> int:
        _low, high = self._reader.get_watermark_offsets(TopicPartition(cluster.names.events, lane), 30)
        return int(high)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._reader.close()

    def wait(self, succeeded: int, timeout_s: float) -> float:
        """Wait until so many jobs have succeeded; returns when the last one was seen, by `time.perf_counter()`."""
        deadline = time.monotonic() + timeout_s
        while self.succeeded < succeeded:
            if time.monotonic() > deadline:
                raise TooSlow(f"{self.succeeded} of {succeeded} jobs succeeded within {timeout_s:g} s")
            time.sleep(0.002)
        return self.last

    def _follow(self) -> None:
        while not self._stop.is_set():
            # In large batches, since the watch shares the cores with what it measures.
            messages = self._reader.consume(10_000, 0.05)
            found = [message for message in messages if message.error() is None and _succeeded(message.value())]
            for message in found:
                self._on_success(message)
            if found:
                self.last = time.perf_counter()
                self.succeeded += len(found)


def _succeeded(value: bytes | None) -> bool:
    return value is not None and value.find(SUCCEEDED, 0, 250) >= 0


class GroupWatch:
    """How far the electors have committed in one topic."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._consumer = group_consumer(cluster.kafka, f"{cluster.names.prefix}electors", "joblog-bench-offsets")
        self._partitions = [TopicPartition(topic, lane) for lane in range(cluster.lanes)]

    def read(self) -> int:
        """The number of records read and committed, over all lanes."""
        return sum(max(one.offset, 0) for one in self._consumer.committed(self._partitions, 30))

    def rate(self, until: int, timeout_s: float) -> float:
        """Records per second, from the first commit seen to `until`."""
        deadline = time.monotonic() + timeout_s
        first, began = self.read(), time.perf_counter()
        start = first
        while (now := self.read()) < until:
            if now == start:  # nothing is committed yet
                first, began = now, time.perf_counter()
            if time.monotonic() > deadline:
                raise TooSlow(f"{now} of {until} records were read within {timeout_s:g} s")
            time.sleep(0.005)
        return (until - first) / (time.perf_counter() - began)

    def close(self) -> None:
        self._consumer.close()
