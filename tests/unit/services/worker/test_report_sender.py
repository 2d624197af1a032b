from collections import deque
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from joblog.services.worker.report_sender import FULL_TRIES_MAX, RETRY_S, ReportSender
from joblog.streams.contract.record_headers import Headers
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.durable_producer import DurableProducer
from joblog.streams.metrics import Meters


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Returned:
    """A message as a delivery callback sees it."""

    def __init__(self, lane: int, key: str, value: bytes) -> None:
        self._fields = (lane, key, value)

    def partition(self) -> int:
        return self._fields[0]

    def key(self) -> str:
        return self._fields[1]

    def value(self) -> bytes:
        return self._fields[2]


class FakeProducer:
    """A producer whose deliveries happen when polled, with the errors that the test put into `fates`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.delivered: list[tuple[int, str, bytes]] = []
        self.fates: deque[KafkaError] = deque()
        self.refusals: deque[Exception] = deque()
        self._queue: deque[tuple[Returned, Any]] = deque()
        self.headers: list[Any] = []
        self.is_stuck = False
        self.is_broken = False
        self._is_told = False

    def produce(
        self, topic: str, value: bytes, key: str | bytes, partition: int, callback: Any, headers: Any = None
    ) -> None:
        assert topic in {"t.reports", "t.deadletters"}
        if self.refusals:
            raise self.refusals.popleft()
        if self.is_broken:  # as librdkafka does: without the flag
            raise KafkaException(KafkaError(KafkaError._FATAL))
        if headers is not None:
            self.headers.append(headers)
        self._queue.append((Returned(partition, key if isinstance(key, str) else key.decode(), value), callback))

    def poll(self, timeout: float) -> int:
        self._clock.now += timeout
        if self.is_broken and not self._is_told:  # as librdkafka does: once, and from nowhere else
            self._is_told = True
            raise KafkaException(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True))
        while self._queue and not self.is_stuck:
            message, callback = self._queue.popleft()
            error = self.fates.popleft() if self.fates else None
            if error is None:
                self.delivered.append((message.partition(), message.key(), message.value()))
            callback(error, message)
        return 0

    def purge(self) -> None:
        for message, callback in list(self._queue):
            callback(KafkaError(KafkaError._PURGE_QUEUE), message)
        self._queue.clear()

    def flush(self, timeout: float) -> int:
        self.poll(timeout)
        return len(self._queue)

    def __len__(self) -> int:
        return len(self._queue)


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.meters = Meters()
        self.producers: list[FakeProducer] = []
        self.sender = ReportSender(DurableProducer(self._producer), TopicNames("t."), self.meters, self.clock)

    def _producer(self) -> FakeProducer:
        self.producers.append(FakeProducer(self.clock))
        return self.producers[-1]

    def turn(self, after_s: float = RETRY_S) -> None:
        self.clock.now += after_s
        self.sender.turn()

    def errors(self, code: str) -> float:
        labels = {"role": "worker", "code": code}
        return self.meters.registry.get_sample_value("joblog_kafka_errors_total", labels) or 0


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_report_arrives_in_its_lane(bench: Bench) -> None:
    bench.sender.send(3, "job", b"{}")
    bench.turn()
    assert bench.producers[0].delivered == [(3, "job", b"{}")]


def test_a_report_that_came_back_is_sent_again(bench: Bench) -> None:
    bench.producers[0].fates.extend([KafkaError(KafkaError.NOT_ENOUGH_REPLICAS)] * 3)
    bench.sender.send(3, "job", b"{}")
    for _ in range(8):
        bench.turn()
    assert bench.producers[0].delivered == [(3, "job", b"{}")]
    assert bench.errors("NOT_ENOUGH_REPLICAS") == 3


def test_reports_that_come_back_are_not_sent_again_without_a_pause(bench: Bench) -> None:
    bench.producers[0].fates.extend([KafkaError(KafkaError.NOT_ENOUGH_REPLICAS)] * 1_000)
    bench.sender.send(3, "job", b"{}")
    for _ in range(100):
        bench.turn(after_s=RETRY_S / 10)
    assert 5 <= bench.errors("NOT_ENOUGH_REPLICAS") <= 11


def test_a_report_that_timed_out_is_sent_again_however_long_it_takes(bench: Bench) -> None:
    bench.producers[0].fates.extend([KafkaError(KafkaError._MSG_TIMED_OUT)] * 1_000)
    bench.sender.send(3, "job", b"{}")
    for _ in range(1_002):
        bench.turn()
    assert bench.producers[0].delivered == [(3, "job", b"{}")]


def test_a_full_queue_is_waited_for(bench: Bench) -> None:
    bench.producers[0].refusals.extend([BufferError(), BufferError()])
    bench.sender.send(3, "job", b"{}")
    bench.turn()
    assert bench.producers[0].delivered == [(3, "job", b"{}")]


def test_a_queue_that_stays_full_is_not_waited_for_endlessly_and_the_report_is_kept(bench: Bench) -> None:
    bench.producers[0].refusals.extend(BufferError() for _ in range(FULL_TRIES_MAX))
    bench.sender.send(3, "job", b"{}")
    assert bench.producers[0].delivered == []
    bench.turn()
    bench.turn()
    assert bench.producers[0].delivered == [(3, "job", b"{}")]


def test_a_report_that_the_client_refuses_is_tried_again(bench: Bench) -> None:
    bench.producers[0].refusals.append(KafkaException(KafkaError(KafkaError._STATE)))
    bench.sender.send(3, "job", b"{}")
    bench.turn()
    bench.turn()
    assert bench.producers[0].delivered == [(3, "job", b"{}")]


def test_after_a_fatal_error_a_new_producer_sends_everything_that_was_left(bench: Bench) -> None:
    bench.producers[0].is_stuck = True
    bench.sender.send(1, "first", b"1")
    bench.producers[0].is_broken = True
    bench.sender.send(2, "second", b"2")
    bench.turn()
    bench.turn()
    assert len(bench.producers) == 2
    delivered = bench.producers[0].delivered + bench.producers[1].delivered
    assert sorted(delivered) == [(1, "first", b"1"), (2, "second", b"2")]


def test_a_dead_letter_that_came_back_is_sent_again_with_its_headers(bench: Bench) -> None:
    headers: Headers = [("joblog-reason-code", b"undecodable")]
    bench.producers[0].fates.append(KafkaError(KafkaError.NOT_ENOUGH_REPLICAS))
    bench.sender.park(b"w", b"x", headers)
    for _ in range(3):
        bench.turn()
    assert bench.producers[0].delivered == [(-1, "w", b"x")]
    assert bench.producers[0].headers == [headers, headers]


def test_a_renewal_is_acknowledged_once_kafka_has_it(bench: Bench) -> None:
    heard: list[str] = []
    bench.producers[0].is_stuck = True
    bench.sender.renew(1, "w", b"1", lambda: heard.append("first"))
    bench.turn()
    assert heard == []
    bench.producers[0].is_stuck = False
    bench.turn()
    assert heard == ["first"]


def test_a_renewal_that_came_back_is_neither_acknowledged_nor_sent_again(bench: Bench) -> None:
    heard: list[str] = []
    bench.producers[0].fates.append(KafkaError(KafkaError._MSG_TIMED_OUT))
    bench.sender.renew(1, "w", b"1", lambda: heard.append("first"))
    bench.turn()
    bench.turn()
    assert (heard, bench.producers[0].delivered) == ([], [])


def test_draining_waits_for_what_came_back(bench: Bench) -> None:
    bench.producers[0].fates.append(KafkaError(KafkaError.NOT_ENOUGH_REPLICAS))
    bench.sender.send(3, "job", b"{}")
    assert bench.sender.drain(5)
    assert bench.producers[0].delivered == [(3, "job", b"{}")]


def test_draining_says_when_it_was_in_vain(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.producers[0].is_stuck = True
    bench.sender.send(3, "job", b"{}")
    assert not bench.sender.drain(1)
    assert "reports.undelivered" in caplog.messages


@pytest.mark.parametrize("is_sent_before", [True, False])
def test_a_producer_that_broke_is_replaced_however_that_is_heard_of(bench: Bench, is_sent_before: bool) -> None:
    broken = bench.producers[0]
    broken.is_stuck = True
    if is_sent_before:
        bench.sender.send(3, "job", b"{}")
    broken.is_broken = True
    if not is_sent_before:
        bench.sender.send(3, "job", b"{}")
    for _ in range(3):
        bench.turn()
    assert bench.producers[1].delivered == [(3, "job", b"{}")]
    assert len(bench.producers) == 2
    assert bench.sender.drain(1.0)


def test_what_waits_for_room_keeps_the_order_of_its_run(bench: Bench) -> None:
    bench.producers[0].refusals.extend([BufferError()] * (FULL_TRIES_MAX + 1))
    bench.sender.send_in_order(1, "j", b"progress", b"end")
    bench.turn()  # there is still no room
    bench.sender.send(1, "k", b"other")
    bench.turn()
    bench.turn()
    assert [value for _, _, value in bench.producers[0].delivered] == [b"other", b"progress", b"end"]


def test_with_room_what_a_run_says_is_sent_before_its_end(bench: Bench) -> None:
    bench.sender.send_in_order(1, "j", b"progress", b"end")
    bench.turn()
    assert [value for _, _, value in bench.producers[0].delivered] == [b"progress", b"end"]
