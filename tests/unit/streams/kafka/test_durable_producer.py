"""A producer that breaks as librdkafka's does: it raises its fatal error once, and refuses records ever after."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from joblog.streams.kafka.durable_producer import DurableProducer, OnDelivery

FATAL = KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True)


class BreakableProducer:
    """Delivers what it holds when it is polled, until `is_broken`."""

    def __init__(self) -> None:
        self.is_broken = False
        self.is_full = False
        self.at_once = threading.Barrier(1)  # so many threads have it before the first is refused
        self.delivered: list[bytes] = []
        self.held: list[tuple[bytes, OnDelivery]] = []
        self._is_raised = False

    def produce(self, _topic: str, value: bytes, _key: str, _partition: int, done: OnDelivery, **_: Any) -> None:
        if self.is_broken:  # as librdkafka does: the code without the flag
            self.at_once.wait()
            raise KafkaException(KafkaError(KafkaError._FATAL))
        if self.is_full:
            raise BufferError
        self.held.append((value, done))

    def poll(self, _timeout: float) -> int:
        self._raise_once()
        if not self.is_broken:
            self._report(None)
        return 0

    def flush(self, timeout: float) -> int:
        self.poll(timeout)
        return len(self.held)

    def purge(self) -> None:
        self._report(KafkaError(KafkaError._PURGE_QUEUE))

    def close(self) -> None: ...

    def __len__(self) -> int:
        return len(self.held)

    def _raise_once(self) -> None:
        if self.is_broken and not self._is_raised:
            self._is_raised = True
            raise KafkaException(FATAL)

    def _report(self, error: KafkaError | None) -> None:
        held, self.held = self.held, []
        for value, done in held:
            if error is None:
                self.delivered.append(value)
            done(error, None)


class Bench:
    def __init__(self) -> None:
        self.made: list[BreakableProducer] = []
        self.replaced = 0
        self.outcomes: list[str | None] = []
        self.producer = DurableProducer(self._make, on_replaced=self._count)

    def _make(self) -> BreakableProducer:
        self.made.append(BreakableProducer())
        return self.made[-1]

    def _count(self) -> None:
        self.replaced += 1

    def produce(self, value: bytes) -> None:
        self.producer.produce("t", value, "k", 0, self._done)

    def _done(self, error: KafkaError | None, _message: Any) -> None:
        self.outcomes.append(error.name() if error else None)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def poll(bench: Bench) -> None:
    bench.producer.poll(0)


def flush(bench: Bench) -> None:
    bench.producer.flush(0)


def produce(bench: Bench) -> None:
    with pytest.raises(KafkaException):
        bench.produce(b"refused")


@pytest.mark.parametrize("notice", [poll, flush, produce])
def test_a_broken_producer_is_replaced_and_hands_back_what_it_held(
    bench: Bench, notice: Callable[[Bench], None]
) -> None:
    bench.produce(b"held")
    bench.made[0].is_broken = True
    notice(bench)
    assert (len(bench.made), bench.replaced, bench.outcomes) == (2, 1, ["_PURGE_QUEUE"])
    bench.produce(b"again")
    bench.producer.poll(0)
    assert (bench.made[1].delivered, bench.outcomes) == ([b"again"], ["_PURGE_QUEUE", None])
    assert (len(bench.producer), len(bench.made)) == (0, 2)


def test_an_error_that_is_not_fatal_is_the_callers(bench: Bench) -> None:
    bench.made[0].is_full = True
    with pytest.raises(BufferError):
        bench.produce(b"no room")
    assert (len(bench.made), bench.replaced) == (1, 0)


def test_many_threads_that_notice_the_error_at_once_make_one_producer(bench: Bench) -> None:
    bench.made[0].is_broken = True
    bench.made[0].at_once = threading.Barrier(8)

    def notice() -> None:
        try:
            bench.produce(b"x")
        except KafkaException:
            bench.produce(b"x")

    with ThreadPoolExecutor(8) as threads:
        for one in [threads.submit(notice) for _ in range(8)]:
            one.result()
    bench.producer.poll(0)
    assert (len(bench.made), bench.replaced) == (2, 1)
    assert bench.made[1].delivered == [b"x"] * 8
