"""Reads ranges of partitions once, in large batches: for tools that look at the log, and own no part of it."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from joblog.streams.contract.timestamps import time_ms
from joblog.streams.errors import TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.last_records import watermarks

BATCH: Final = 5_000
#: A healthy broker answers within milliseconds; this long a silence is an error.
SILENCE_S: Final = 60.0
ANSWER_S: Final = 15.0
#: So much is fetched in advance, over all partitions: enough for one batch, little enough for a small machine.
_FETCHING: Final = {"queued.max.messages.kbytes": 32_768, "fetch.wait.max.ms": 20}


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets of one partition: from `start`, up to and without `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many records at most; markers of transactions count, too."""
        return max(self.stop - self.start, 0)


Ranges = Mapping[int, Range]


class TopicReader:
    """A reader of one topic's committed records that answers where it begins, where it ends, and what is in it."""

    def __init__(self, config: KafkaConfig, topic: str, client_id: str = "joblog-replay") -> None:
        self.topic = topic
        self._config, self._client_id = config, client_id
        self._consumer: Consumer = clients.reader(config, client_id, **_FETCHING)

    def close(self) -> None:
        self._consumer.close()

    def partitions(self) -> list[int]:
        """The topic's partitions; TopicsError if there is no such topic."""
        found = self._consumer.list_topics(self.topic, timeout=ANSWER_S).topics[self.topic]
        if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicsError(f"topic {self.topic} is missing: mind the prefix (topic_prefix)")
        if found.error is not None:
            raise KafkaException(found.error)
        return sorted(found.partitions)

    def check_partitions(self, wanted: int) -> None:
        """Raise TopicsError unless the topic has so many partitions."""
        if (there := len(self.partitions())) != wanted:
            raise TopicsError(f"topic {self.topic} has {there} partitions, not {wanted}: mind the setting `lanes`")

    def cluster(self) -> str | None:
        """The id of the cluster, if its brokers tell it."""
        found = self._consumer.list_topics(self.topic, timeout=ANSWER_S).cluster_id
        return None if found is None else str(found)

    def bounds(self, partitions: list[int]) -> dict[int, Range]:
        """The first offset of each partition, and its present end: behind the last committed record."""
        return {n: Range(*watermarks(self._consumer, TopicPartition(self.topic, n))) for n in partitions}

    def offsets_at(self, partitions: list[int], at: datetime) -> dict[int, int]:
        """Where each partition stood at that time: the first offset that the broker wrote later, or the end."""
        after_ms = time_ms(at) + 1
        asked = [TopicPartition(self.topic, n, max(after_ms, 0)) for n in partitions]
        # A consumer's answer to this can be an offset behind what readers see: never go beyond that.
        bounds = self.bounds(partitions)
        offsets = {}
        for one in self._consumer.offsets_for_times(asked, timeout=ANSWER_S):
            if one.error is not None:
                raise KafkaException(one.error)
            bound = bounds[one.partition]
            offsets[one.partition] = bound.stop if one.offset < 0 else min(max(one.offset, bound.start), bound.stop)
        return offsets

    def read(self, ranges: Ranges, waiting_told: Callable[[], object] = lambda: None) -> Iterator[list[Message]]:
        """The records of these ranges, in the order of each partition, in batches. Raises KafkaException.

        - waiting_told: called twice a second while no broker sends anything; what it raises ends the reading.
        """
        waiting = {n: one.stop for n, one in ranges.items() if one.length}
        if not waiting:
            return
        consumer = self._consumer
        consumer.assign([TopicPartition(self.topic, n, ranges[n].start) for n in waiting])
        deadline = time.monotonic() + SILENCE_S
        try:
            while waiting:
                messages = consumer.consume(1, 0.5)
                if messages:
                    messages += consumer.consume(BATCH - 1, 0)
                    deadline = time.monotonic() + SILENCE_S
                    if records := self._within(messages, waiting):
                        yield records
                        deadline = time.monotonic() + SILENCE_S
                else:
                    waiting_told()
                    self._check_silence(deadline, waiting)
        finally:
            consumer.unassign()

    def _check_silence(self, deadline: float, waiting: Collection[int]) -> None:
        if time.monotonic() > deadline:
            what = f"{self.topic}: nothing came of the partitions {sorted(waiting)} for {SILENCE_S:g} s"
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, what))

    def _within(self, messages: list[Message], waiting: dict[int, int]) -> list[Message]:
        """Those that lie in their range; forgets the partitions whose range has ended."""
        found = []
        for message in messages:
            error, number, offset = message.error(), message.partition(), message.offset()
            assert number is not None
            assert offset is not None
            if error is None:
                stop = waiting.get(number)
                if stop is None:
                    continue
                if offset < stop:
                    found.append(message)
                if offset + 1 >= stop:
                    self._finish(number, waiting)
            elif error.code() == KafkaError._PARTITION_EOF:
                # Between the last record and the end there may be markers of transactions.
                if offset >= waiting.get(number, offset + 1):
                    self._finish(number, waiting)
            elif error.fatal() or not error.retriable():
                raise KafkaException(error)
        return found

    def _finish(self, number: int, waiting: dict[int, int]) -> None:
        if waiting.pop(number, None) is not None and waiting:
            self._consumer.incremental_unassign([TopicPartition(self.topic, number)])


def reading(config: KafkaConfig, topic: str) -> closing[TopicReader]:
    """A reader of a topic, closed at the end of the block."""
    return closing(TopicReader(config, topic))
