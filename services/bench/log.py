"""What a benchmark reads from the log: how many jobs succeeded, when the last one did, how far a group has read."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Self

from confluent_kafka import Consumer, IsolationLevel, Message, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec
from joblog.services.bench.processes import Cluster
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.errors import JoblogError
from joblog.streams.kafka.clients import admin, group_consumer, reader
from joblog.streams.kafka.last_records import read_to_end

SUCCEEDED: Final = b'"type":"job.succeeded"'
#: A job that succeeds has so many events: enqueued, processing, succeeded.
EVENTS_MIN: Final = 3
LOOK_S: Final = 0.02
#: When nothing was written for so long, the log is read.
QUIET_S: Final = 0.3
ANSWER_S: Final = 30.0


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


class EndWatch:
    """Notes how far the log has grown, and when; reads it only when it grows no more.

    A benchmark that reads every event meanwhile measures itself, too: a twentieth of the processor's time.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._topic = cluster.names.events
        self._partitions = [TopicPartition(self._topic, lane) for lane in range(cluster.lanes)]
        self._admin = admin(cluster.kafka, "joblog-bench-ends")
        self._admin.list_topics(self._topic, timeout=ANSWER_S)  # or the first question may wait for it for seconds
        self._reader: Consumer = reader(cluster.kafka, "joblog-bench")
        self._next = self._ends()
        self._succeeded = 0

    def close(self) -> None:
        self._reader.close()

    def wait(self, succeeded: int, timeout_s: float) -> float:
        """Wait until so many jobs more have succeeded; returns when the last one had, by `time.perf_counter()`."""
        wanted = self._succeeded + succeeded
        deadline = time.monotonic() + timeout_s
        looks = [(time.perf_counter(), self._next)]
        least = sum(self._next.values()) + EVENTS_MIN * succeeded
        while True:
            time.sleep(LOOK_S)
            ends, now = self._ends(), time.perf_counter()
            if ends != looks[-1][1]:
                looks.append((now, ends))
            is_late = time.monotonic() > deadline
            if is_late or (sum(ends.values()) >= least and now - looks[-1][0] >= QUIET_S):
                last = self._read(ends, timeout_s)
                if self._succeeded >= wanted:
                    return next(at for at, then in looks if all(then[lane] > last[lane] for lane in last))
                least = sum(ends.values()) + 1
            if is_late:
                raise TooSlow(f"{self._succeeded} of {wanted} jobs succeeded within {timeout_s:g} s")

    def _ends(self) -> Mapping[int, int]:
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = dict.fromkeys(self._partitions, latest)
        found = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_S
        )
        return {place.partition: future.result().offset for place, future in found.items()}

    def _read(self, ends: Mapping[int, int], timeout_s: float) -> dict[int, int]:
        """Count the successes up to there; the offset of the last one of each lane that has any."""
        last = {}
        starts = [TopicPartition(self._topic, lane, offset) for lane, offset in self._next.items()]
        for record in read_to_end(self._reader, starts, timeout_s):
            lane, offset = record.partition() or 0, record.offset() or 0
            if offset < ends[lane] and _succeeded(record.value()):
                self._succeeded += 1
                last[lane] = offset
        self._next = ends
        return last


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


class BatchWatch:
    """Reads the events of one batch, from now on; of its lane only, as it shares the cores with what it watches."""

    def __init__(self, cluster: Cluster, batch_id: str) -> None:
        self._key = batch_id.encode()
        self._reader: Consumer = reader(cluster.kafka, "joblog-bench")
        place = TopicPartition(cluster.names.events, lane_of_job(batch_id))
        place.offset = self._reader.get_watermark_offsets(place, 30)[1]
        self._reader.assign([place])

    def close(self) -> None:
        self._reader.close()

    def wait(self, kind: str, timeout_s: float) -> float:
        """Wait for an event of this type; returns when it was seen, by `time.perf_counter()`."""
        deadline, wanted = time.monotonic() + timeout_s, f'"type":"{kind}"'.encode()
        while True:
            for message in self._reader.consume(10_000, 0.01):
                if message.error() is None and message.key() == self._key and wanted in (message.value() or b""):
                    return time.perf_counter()
            if time.monotonic() > deadline:
                raise TooSlow(f"the batch had no {kind} within {timeout_s:g} s")
