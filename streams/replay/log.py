"""Reads lanes of the topic `events`, one after the other, while the system runs."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from joblog.streams.errors import BrokersAway, TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.replay.stored import StoredEvent, stored_event

READ_MAX: Final = 2_000
TIMEOUT_S: Final = 30.0

#: Called with how many records were read since the last call.
Progress = Callable[[int], object]


class EventReader:
    """A consumer of `events`; each lane is read from an instant to the end that it has when the reading begins."""

    def __init__(self, config: KafkaConfig, topic: str, lanes: int, *, client_id: str) -> None:
        self._topic = topic
        self._consumer: Consumer = clients.reader(config, client_id)
        try:
            self._check(config, lanes)
        except BaseException:
            self._consumer.close()
            raise
        #: Records that are no event which an elector wrote.
        self.unreadable = 0

    def close(self) -> None:
        self._consumer.close()

    def bounds(self, lane: int, from_ms: int | None = None) -> tuple[int, int]:
        """The first offset from an instant on, by the broker's clock, and the end."""
        place = TopicPartition(self._topic, lane)
        low, high = self._consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
        if from_ms is not None:
            asked = [TopicPartition(self._topic, lane, from_ms)]
            (found,) = self._consumer.offsets_for_times(asked, timeout=TIMEOUT_S)
            low = found.offset if found.offset >= 0 else high
        return low, high

    def events(
        self, lane: int, start: int, end: int, progress: Progress = lambda _count: None
    ) -> Iterator[StoredEvent]:
        """The events of the lane's jobs between two offsets; raises as `values` does."""
        for value in self.values(lane, start, end, progress):
            try:
                found = stored_event(value)
            except ValueError:
                self.unreadable += 1
            else:
                if found is not None:
                    yield found

    def values(self, lane: int, start: int, end: int, progress: Progress = lambda _count: None) -> Iterator[bytes]:
        """The records between two offsets; raises BrokersAway when the log stops answering, KafkaException."""
        if start >= end:
            return
        self._consumer.assign([TopicPartition(self._topic, lane, start)])
        heard_s, at = time.monotonic(), start
        while at < end:
            messages = self._consumer.consume(READ_MAX, 0.5)
            if messages:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > TIMEOUT_S:
                raise BrokersAway(f"lane {lane} of {self._topic} did not answer for {TIMEOUT_S:.0f} s")
            before = at
            for message in messages:
                at = _next(message) or at
                if at <= end and message.error() is None:
                    yield message.value() or b""
            progress(min(at, end) - before)

    def _check(self, config: KafkaConfig, lanes: int) -> None:
        try:
            there: Any = self._consumer.list_topics(self._topic, TIMEOUT_S).topics[self._topic]
        except KafkaException as error:
            raise BrokersAway(f"no broker answers at {config.bootstrap_servers}: {error.args[0].str()}") from error
        if there.error is not None:
            raise TopicsError(f"topic {self._topic} cannot be read: {there.error.str()}")
        if len(there.partitions) != lanes:
            raise TopicsError(f"topic {self._topic} has {len(there.partitions)} partitions, not {lanes}")


def _next(message: Message) -> int | None:
    """The offset behind a record, or the end of the lane; None for a passing error, KafkaException for others."""
    error = message.error()
    if error is None:
        return (message.offset() or 0) + 1
    if error.code() == KafkaError._PARTITION_EOF:
        return message.offset()
    if error.fatal() or not error.retriable():
        raise KafkaException(error)
    return None
