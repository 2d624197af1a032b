"""Reads the last records of a topic."""

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed


def last_records(consumer: Consumer, topic: str, each: int, timeout_s: float) -> Iterator[Message]:
    """The last records of each partition, `each` at most, in no order between partitions; one is held at a time.

    Raises KafkaException when the topic cannot be read, or not to its end within `timeout_s`.
    """
    found = consumer.list_topics(topic, timeout=10).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    starts = []
    for number in found.partitions:
        low, high = _watermarks(consumer, TopicPartition(topic, number))
        starts.append(TopicPartition(topic, number, max(low, high - each)))
    return _to_end(consumer, starts, time.monotonic() + timeout_s)


@retry(retry=retry_if_exception_type(KafkaException), stop=stop_after_delay(10), wait=wait_fixed(0.2), reraise=True)
def _watermarks(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """The first and the next offset; the leader may have moved since it was asked for."""
    low, high = consumer.get_watermark_offsets(place, timeout=10)
    return low, high


def _to_end(consumer: Consumer, starts: list[TopicPartition], deadline: float) -> Iterator[Message]:
    waiting = {one.partition for one in starts}
    consumer.assign(starts)
    while waiting:
        if time.monotonic() > deadline:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        for record in consumer.consume(100, 0.1):
            error = record.error()
            if error is None:
                yield record
            elif error.code() == KafkaError._PARTITION_EOF:
                waiting.discard(record.partition())
            elif not error.retriable():
                raise KafkaException(error)
