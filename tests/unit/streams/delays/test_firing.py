"""What leaves a shelf, with a producer that acknowledges when the test says so."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException
from joblog.streams.contract import deadletters
from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import JobDue, Timer
from joblog.streams.delays import firing
from joblog.streams.delays.firing import RETRY_MS, SENT_MAX, Firing
from joblog.streams.delays.partition import Partition, Unusable, decode_timer
from joblog.streams.delays.wheel import Shelf
from joblog.streams.metrics import Meters

NOW = 1_800_000_000_000
JOB = "0198a1b2-c3d4-8001-8000-000000000001"
NAMES = TopicNames("test.")


class SlowProducer:
    """Takes records up to `room`, and acknowledges them, or fails, when it is told to."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent: list[dict[str, Any]] = []
        self.refusal: KafkaError | None = None

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: str | bytes | None,
        partition: int,
        on_delivery: Callable[[KafkaError | None, Any], None],
        headers: Any = None,
    ) -> None:
        if self.refusal is not None:
            raise KafkaException(self.refusal)
        if len(self.sent) == self.room:
            raise BufferError("queue full")
        self.sent.append(
            {
                "topic": topic,
                "value": value,
                "key": key,
                "partition": partition,
                "on_delivery": on_delivery,
                "headers": headers,
            }
        )

    def answer(self, error: KafkaError | None = None) -> None:
        answered, self.sent = self.sent, []
        for record in answered:
            record["on_delivery"](error, None)


class Bench:
    """One partition of the tier `now`, lane 1."""

    def __init__(self, room: int = 10_000) -> None:
        self.producer = SlowProducer(room)
        self.meters = Meters()
        self.now_ms = NOW
        self.partition = Partition("test.delay.now", 1, "now", Shelf(10_000), 0)
        self.firing = Firing(self.producer, NAMES, self.meters, lambda: self.now_ms / 1000)  # type: ignore[arg-type]

    def hold(self, offset: int, due_ms: int, version: int = 1) -> bytes:
        value = msgspec.json.encode(Timer(job_id=JOB, version=version, due_ms=due_ms))
        self.partition.shelf.add(offset, min(due_ms, NOW), value)
        return value

    def send(self) -> list[tuple[str, Any]]:
        self.firing.send(self.partition, self.now_ms)
        return [(record["topic"], record["value"]) for record in self.producer.sent]

    def count(self, metric: str, **labels: str) -> float | None:
        return self.meters.registry.get_sample_value(metric, labels)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_timer_that_is_due_becomes_a_report_in_its_lane(bench: Bench) -> None:
    bench.hold(7, NOW, version=3)
    [(topic, value)] = bench.send()
    assert topic == "test.reports"
    assert msgspec.json.decode(value) == {"type": "job.due", "job_id": JOB, "version": 3}
    assert msgspec.json.decode(value, type=JobDue) == JobDue(job_id=JOB, version=3)
    assert (bench.producer.sent[0]["key"], bench.producer.sent[0]["partition"]) == (JOB, 1)


def test_a_timer_that_is_not_due_is_placed_again_as_it_came(bench: Bench) -> None:
    value = bench.hold(7, NOW + 3_600_000)
    assert bench.send() == [("test.delay.1h", value)]
    assert (bench.producer.sent[0]["key"], bench.producer.sent[0]["partition"]) == (JOB, 1)
    bench.producer.answer()
    assert bench.count("joblog_timers_moved_total", tier="1h") == 1


def test_a_timer_is_done_when_its_report_is_acknowledged_and_not_before(bench: Bench) -> None:
    bench.hold(7, NOW - 250)
    bench.send()
    assert bench.partition.shelf.position == 7
    assert bench.count("joblog_timers_fired_total") == 0
    bench.now_ms += 50
    bench.producer.answer()
    assert bench.partition.shelf.position == 8
    assert bench.count("joblog_timers_fired_total") == 1
    assert bench.count("joblog_timer_lateness_seconds_sum") == pytest.approx(0.3)


def test_a_timer_whose_report_failed_is_sent_again_after_a_while(bench: Bench) -> None:
    bench.hold(7, NOW)
    bench.send()
    bench.producer.answer(KafkaError(KafkaError._MSG_TIMED_OUT))
    assert bench.count("joblog_kafka_errors_total", role="delays", code="_MSG_TIMED_OUT") == 1
    assert bench.count("joblog_timers_fired_total") == 0
    assert bench.send() == []
    bench.now_ms += RETRY_MS
    assert len(bench.send()) == 1
    bench.producer.answer()
    assert bench.partition.shelf.position == 8


def test_what_a_full_queue_does_not_take_stays_and_goes_next() -> None:
    bench = Bench(room=3)
    for offset in range(5):
        bench.hold(offset, NOW)
    assert len(bench.send()) == 3
    assert len(bench.partition.shelf) == 2
    bench.producer.answer()
    assert bench.partition.shelf.position == 3
    assert len(bench.send()) == 2


def test_one_partition_does_not_keep_the_others_waiting(bench: Bench) -> None:
    for offset in range(SENT_MAX + 1):
        bench.hold(offset, NOW)
    assert len(bench.send()) == SENT_MAX
    assert len(bench.send()) == SENT_MAX + 1


def test_what_is_no_timer_is_done_when_its_dead_letter_is_acknowledged(bench: Bench) -> None:
    what = Unusable(7, b"key", b"\xff", [("own", b"1")], "undecodable", "no timer: malformed")
    bench.partition.shelf.add(7, NOW, what)
    assert bench.send() == [("test.deadletters", b"\xff")]
    assert bench.producer.sent[0]["key"] == b"key"
    assert dict(bench.producer.sent[0]["headers"])["joblog-topic"] == b"test.delay.now"
    assert bench.partition.shelf.position == 7
    bench.producer.answer()
    assert bench.partition.shelf.position == 8
    assert bench.count("joblog_quarantined_records_total", role="delays", reason="undecodable") == 1


def test_a_timer_that_fails_in_an_unforeseen_way_is_parked_and_the_others_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = bench.hold(7, NOW, version=13)
    bench.hold(8, NOW, version=1)

    def decode(value: bytes) -> Timer:
        if value == poison:
            raise ZeroDivisionError("odd")
        return decode_timer(value)

    monkeypatch.setattr(firing, "decode_timer", decode)
    assert sorted(topic for topic, _ in bench.send()) == ["test.deadletters", "test.reports"]
    [letter] = [record for record in bench.producer.sent if record["topic"] == "test.deadletters"]
    headers = dict(letter["headers"])
    assert (letter["value"], headers["joblog-reason-code"]) == (poison, b"internal_error")
    assert headers["joblog-offset"] == b"7"
    assert b"ZeroDivisionError: odd" in headers["joblog-reason"]
    assert b"in decode" in headers["joblog-reason"], "the traceback says where it was"
    assert bench.partition.shelf.position == 7
    bench.producer.answer()
    assert bench.partition.shelf.position == 9
    assert bench.count("joblog_quarantined_records_total", role="delays", reason="internal_error") == 1


def test_a_dead_letter_that_fails_is_sent_without_key_and_headers_and_an_error_is_raised_if_that_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = Unusable(7, b"key", b"\xff", [("own", b"1")], "undecodable", "no timer: malformed")
    bench.partition.shelf.add(7, NOW, what)

    def key(raw: bytes | None) -> bytes | None:
        if raw is not None or always:
            raise ZeroDivisionError("odd")
        return raw

    monkeypatch.setattr(deadletters, "key", key)
    always = True
    with pytest.raises(ZeroDivisionError):
        bench.send()
    assert bench.partition.shelf.position == 7
    always = False
    bench.partition.shelf.add(8, NOW, what)
    assert bench.send() == [("test.deadletters", b"\xff")]
    assert (bench.producer.sent[0]["key"], bench.producer.sent[0]["headers"][-1][0]) == (None, "joblog-offset")


def test_a_record_that_the_producer_refuses_for_now_is_sent_again_after_a_while(bench: Bench) -> None:
    bench.hold(7, NOW)
    bench.producer.refusal = KafkaError(KafkaError._UNKNOWN_PARTITION)
    assert bench.send() == []
    assert bench.count("joblog_kafka_errors_total", role="delays", code="_UNKNOWN_PARTITION") == 1
    bench.producer.refusal = None
    assert bench.send() == []
    bench.now_ms += RETRY_MS
    assert len(bench.send()) == 1
