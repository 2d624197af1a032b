"""Reading to the end that a partition has now, with a client whose log grows while it is read."""

from collections import deque
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from joblog.streams.kafka.last_records import read_to_end

TOPIC = "events"


def record(number: int, offset: int, error: int | None = None) -> Any:
    return SimpleNamespace(
        partition=lambda: number, offset=lambda: offset, error=lambda: None if error is None else KafkaError(error)
    )


def end(number: int, offset: int) -> Any:
    return record(number, offset, KafkaError._PARTITION_EOF)


class Consumer:
    """Hands out what was fetched, a few at a time; `grows` is a partition that gets another record at each look."""

    def __init__(self, ends: dict[int, int], fetched: list[Any], grows: int | None = None) -> None:
        self._ends, self._fetched, self._grows = ends, deque(fetched), grows
        self._next = ends.get(grows, 0) if grows is not None else 0
        self.assigned: list[int] = []

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:  # noqa: ARG002
        return 0, self._ends[place.partition]

    def assign(self, places: list[TopicPartition]) -> None:
        self.assigned = [one.partition for one in places]

    def poll(self, _timeout_s: float) -> Any:
        if self._grows is not None:
            self._fetched.append(record(self._grows, self._next))
            self._next += 1
        return self._fetched.popleft() if self._fetched else None

    def consume(self, count: int, _timeout_s: float) -> list[Any]:
        return [self._fetched.popleft() for _ in range(min(count, 2, len(self._fetched)))]


def read(consumer: Any, *starts: tuple[int, int], timeout_s: float = 5) -> list[tuple[int, int]]:
    found = read_to_end(consumer, [TopicPartition(TOPIC, *start) for start in starts], timeout_s)
    return [(one.partition() or 0, one.offset() or 0) for one in islice(found, 1_000)]


def test_a_log_that_grows_at_each_look_is_read_to_where_it_ended() -> None:
    consumer = Consumer({0: 3}, [record(0, 0), record(0, 1), record(0, 2)], grows=0)
    assert read(consumer, (0, 0)) == [(0, 0), (0, 1), (0, 2)]


def test_one_partition_that_has_ended_gives_no_more_while_another_is_read() -> None:
    consumer = Consumer({0: 1, 1: 2}, [record(0, 0), record(0, 1), record(1, 0), record(0, 2), record(1, 1)])
    assert read(consumer, (0, 0), (1, 0)) == [(0, 0), (1, 0), (1, 1)]


@pytest.mark.parametrize("told", [end(0, 2), record(0, 2)], ids=["the end", "a record behind"])
def test_markers_of_transactions_before_the_end_are_no_records_to_wait_for(told: Any) -> None:
    assert read(Consumer({0: 2}, [record(0, 0), told]), (0, 0)) == [(0, 0)]


def test_a_partition_that_holds_nothing_from_there_on_is_not_waited_for() -> None:
    consumer = Consumer({0: 0, 1: 7, 2: 1}, [record(2, 0)])
    assert read(consumer, (0, 0), (1, 7), (2, 0)) == [(2, 0)]
    assert consumer.assigned == [2]


def test_an_error_that_passes_is_waited_out_and_another_one_raised() -> None:
    passing = record(0, -1, KafkaError._ALL_BROKERS_DOWN)
    passing.error = lambda: KafkaError(KafkaError._ALL_BROKERS_DOWN, retriable=True)
    assert read(Consumer({0: 1}, [passing, record(0, 0)]), (0, 0)) == [(0, 0)]
    with pytest.raises(KafkaException):
        read(Consumer({0: 1}, [record(0, -1, KafkaError.TOPIC_AUTHORIZATION_FAILED)]), (0, 0))


def test_a_log_that_does_not_come_is_not_waited_for_for_ever() -> None:
    with pytest.raises(KafkaException) as raised:
        read(Consumer({0: 1}, []), (0, 0), timeout_s=0.01)
    assert raised.value.args[0].code() == KafkaError._TIMED_OUT
