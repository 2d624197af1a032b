import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from joblog.services.client.sending import CommandSender, NotAcknowledged
from joblog.services.client.templates import CommandRecord
from joblog.streams.contract.ids import new_job_id
from joblog.streams.kafka.durable_producer import DurableProducer

Report = Callable[[KafkaError | None, Any], None]


class FakeProducer:
    """A producer that breaks when told to, as librdkafka's does.

    From then on it refuses records, without the flag of a fatal error; what it holds is reported as purged; the
    first poll or flush raises the error itself. `is_acknowledging` off stands for slow brokers, `is_quiet` for an
    error that `produce` meets first.
    """

    def __init__(self) -> None:
        self.is_acknowledging = True
        self.is_quiet = False
        self.sent: list[str] = []
        self.held: list[tuple[str, Report]] = []
        self._is_broken = False
        self._is_told = False
        self._changed = threading.Condition()

    def break_down(self) -> None:
        with self._changed:
            self._is_broken = True
            self._changed.notify_all()

    def produce(self, _topic: str, _value: bytes, key: str, partition: int, on_delivery: Report, **_: Any) -> None:
        with self._changed:
            if self._is_broken:
                raise KafkaException(KafkaError(KafkaError._FATAL))
            assert partition == 0
            self.held.append((key, on_delivery))
            self._changed.notify_all()

    def poll(self, timeout: float) -> int:
        with self._changed:
            if not self.held and not self._is_broken:
                self._changed.wait(min(timeout, 0.01))
            if self._is_broken and not self.is_quiet:
                self._tell()
            return self._report(None) if self.is_acknowledging and not self._is_broken else 0

    def flush(self, timeout: float) -> int:
        if not self._is_broken:
            return self.poll(timeout)
        with self._changed:
            self._tell()
            return self._report(KafkaError(KafkaError._PURGE_QUEUE))

    def _tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            raise KafkaException(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True))

    def _report(self, error: KafkaError | None) -> int:
        held, self.held = self.held, []
        for key, report in held:
            if error is None:
                self.sent.append(key)
            report(error, SimpleNamespace(key=key.encode))
        return len(held)

    def list_topics(self, topic: str, timeout: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=[timeout])})

    def __len__(self) -> int:
        return len(self.held)

    def purge(self) -> None: ...
    def close(self) -> None: ...


class Bench:
    """A sender with all the producers that it ever had."""

    def __init__(self) -> None:
        self.producers: list[FakeProducer] = []
        self.sender = CommandSender(DurableProducer(self._make), "nowhere", "commands", 1, timeout_s=5)

    def _make(self) -> Producer:
        self.producers.append(FakeProducer())
        return cast("Producer", self.producers[-1])

    def send(self) -> str:
        job_id = new_job_id(0, 1)
        self.sender.send([CommandRecord(job_id, b"{}")])
        return job_id

    def is_at_work(self, count: int) -> bool:
        """Whether so many producers were made, and the last one sent something."""
        return len(self.producers) >= count and len(self.producers[-1].sent) >= 5


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.sender.close()


@contextmanager
def quickly() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("is_quiet", [True, False])
def test_the_call_after_a_fatal_error_goes_through_a_new_producer(
    bench: Bench, wait_until: Callable[..., Any], is_quiet: bool
) -> None:
    bench.send()
    bench.producers[0].is_quiet = is_quiet
    bench.producers[0].break_down()
    with quickly():
        if is_quiet:
            with pytest.raises(NotAcknowledged, match="Fatal"):
                bench.send()
        else:
            wait_until(lambda: len(bench.producers) == 2, 4, "another producer")
        job_id = bench.send()
    assert [one.sent for one in bench.producers[1:]] == [[job_id]]


def test_a_call_that_waits_hears_of_a_fatal_error_and_the_next_one_works(
    bench: Bench, wait_until: Callable[..., Any]
) -> None:
    bench.producers[0].is_acknowledging = False
    with ThreadPoolExecutor(1) as threads, quickly():
        waiting = threads.submit(bench.send)
        wait_until(lambda: bench.producers[0].held, 4, "the record to be with the producer")
        bench.producers[0].break_down()
        with pytest.raises(NotAcknowledged, match="Purged"):
            waiting.result()
        job_id = bench.send()
    assert bench.producers[1].sent == [job_id]


class BreaksAfterProduce(FakeProducer):
    """Breaks with the first record that it is given; `poll` finds out later than `flush`."""

    def produce(self, topic: str, value: bytes, key: str, partition: int, on_delivery: Report) -> None:
        super().produce(topic, value, key, partition, on_delivery)
        self.break_down()


def test_a_fatal_error_that_the_call_itself_hears_of_leads_to_a_new_producer() -> None:
    broken, working = BreaksAfterProduce(), FakeProducer()
    broken.is_quiet = True
    producers = iter([broken, working])
    sender = CommandSender(DurableProducer(lambda: next(producers)), "nowhere", "commands", 1, timeout_s=5)
    with quickly(), pytest.raises(NotAcknowledged):
        sender.send([CommandRecord(new_job_id(0, 1), b"{}")])
    job_id = new_job_id(0, 2)
    sender.send([CommandRecord(job_id, b"{}")])
    assert working.sent == [job_id]
    sender.close()


def test_many_threads_go_on_after_each_of_several_fatal_errors(bench: Bench, wait_until: Callable[..., Any]) -> None:
    stop = threading.Event()

    def send_on() -> tuple[set[str], int]:
        sent, failures = set[str](), 0
        while not stop.is_set():
            try:
                sent.add(bench.send())
            except NotAcknowledged:
                failures += 1
        return sent, failures

    with ThreadPoolExecutor(4) as threads, quickly():
        running = [threads.submit(send_on) for _ in range(4)]
        for count in range(1, 6):
            wait_until(partial(bench.is_at_work, count), 4, f"producer {count} to send")
            bench.producers[-1].break_down()
        stop.set()
    told = set[str]().union(*(one.result()[0] for one in running))
    assert told == {job_id for one in bench.producers for job_id in one.sent}
    assert len(bench.producers) in {5, 6}


def test_a_sender_with_a_broken_producer_can_be_closed() -> None:
    bench = Bench()
    bench.send()
    bench.producers[0].break_down()
    bench.sender.close()
    assert len(bench.producers) <= 2
