"""Reads the definitions as they are now, for clients and the command line."""

from collections.abc import Collection
from itertools import count

from confluent_kafka import TopicPartition
from joblog.streams.errors import InvalidData
from joblog.streams.kafka.clients import KafkaConfig, reader
from joblog.streams.kafka.last_records import partitions_of, read_to_end, watermarks
from joblog.streams.recurring.rows import Rows

_TIMEOUT_S = 30.0
_numbers = count()


def read_rows(
    config: KafkaConfig, topic: str, client_id: str, partitions: Collection[int] | None = None
) -> tuple[Rows, list[str]]:
    """The rows of these partitions, or of all, and what is wrong with records that cannot be read.

    Raises KafkaException when the topic cannot be read to its end.
    """
    rows, problems = Rows(), list[str]()
    consumer = reader(config, f"{client_id}-{next(_numbers)}")
    try:
        numbers = partitions_of(consumer, topic) if partitions is None else partitions
        starts = []
        for number in numbers:
            low, high = watermarks(consumer, TopicPartition(topic, number))
            if low < high:
                starts.append(TopicPartition(topic, number, low))
        for record in read_to_end(consumer, starts, _TIMEOUT_S) if starts else ():
            try:
                rows.apply(record.key() or b"", record.value())
            except InvalidData as exc:
                problems.append(f"partition {record.partition()}, offset {record.offset()}: {exc}")
    finally:
        consumer.close()
    return rows, problems
