"""Reads the last records of a topic."""

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed


def last_records(consumer: Consumer, topic: str, each: int, timeout_s: float) -> Iterator[Message]:
    """The last records of each partition, `each` at most, in no order between partitions.

    Raises KafkaException when the topic cannot be read, or not to its end within `timeout_s`.
    """
    starts = []
    for number in partitions_of(consumer, topic):
        low, high = watermarks(consumer, TopicPartition(topic, number))
        starts.append(TopicPartition(topic, number, max(low, high - each)))
    return read_to_end(consumer, starts, timeout_s)


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    """The partitions of a topic; raises KafkaException when it is not there, or no broker answers."""
    found = consumer.list_topics(topic, timeout=10).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    return list(found.partitions)


@retry(retry=retry_if_exception_type(KafkaException), stop=stop_after_delay(10), wait=wait_fixed(0.2), reraise=True)
def watermarks(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """The first and the next offset; repeated, as the partition's leader may have moved."""
    low, high = consumer.get_watermark_offsets(place, timeout=10)
    return low, high


def read_to_end(consumer: Consumer, starts: list[TopicPartition], timeout_s: float) -> Iterator[Message]:
    """The records from these places to where the partitions end now; raises KafkaException after `timeout_s`.

    What is written meanwhile does not hold it up: while one transaction follows the other, a client that waits to be
    told of the end may never be.
    """
    ends = {one.partition: watermarks(consumer, one)[1] for one in starts}
    waiting = {one.partition for one in starts if one.offset < ends[one.partition]}
    deadline = time.monotonic() + timeout_s
    consumer.assign([one for one in starts if one.partition in waiting])
    while waiting:
        if time.monotonic() > deadline:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        first = consumer.poll(0.1)
        # To ask for many would wait for so many, also behind the end.
        for record in [] if first is None else [first, *consumer.consume(1_000, 0)]:
            error, number, offset = record.error(), record.partition(), record.offset()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                if not error.retriable():
                    raise KafkaException(error)
            elif number in waiting and offset is not None:
                if error is None and offset < ends[number]:
                    yield record
                # Before the end there may be markers of transactions, which are not records.
                if error is not None or offset + 1 >= ends[number]:
                    waiting.discard(number)
