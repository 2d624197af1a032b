"""The delays process and exceptions that nobody foresaw, on the real broker."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import Timer
from joblog.streams.delays import partition, process
from joblog.streams.delays.firing import Firing
from joblog.streams.delays.reader import DelayReader
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig

from tests.support.delays_process import DEADLINE_S, Log, Process, running, timers

pytestmark = pytest.mark.broker

#: The version of timers that break what handles them.
POISON = 4711


@pytest.fixture
def log(kafka: KafkaConfig, topics: TopicNames) -> Log:
    return Log(kafka, topics)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "START_OVER_S", (0.01, 0.01, 0.01))


def jobs(log: Log) -> set[str]:
    return {each.report.job_id for each in log.fired()}


def fail_while_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = partition.decode_timer

    def decode_timer(value: bytes) -> Timer:
        timer = decode(value)
        if timer.version == POISON:
            raise ZeroDivisionError("while kept")
        return timer

    monkeypatch.setattr(partition, "decode_timer", decode_timer)


def fail_in(step: str) -> Callable[[pytest.MonkeyPatch], None]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(Firing, step)

        def method(self: Firing, source: Any, record: Any, timer: Timer, *rest: Any) -> None:
            if timer.version == POISON:
                raise ZeroDivisionError(f"in {step}")
            original(self, source, record, timer, *rest)

        monkeypatch.setattr(Firing, step, method)

    return patch


@pytest.mark.parametrize(
    ("due_in_ms", "fail"),
    [(-1, fail_while_kept), (-1, fail_in("_fire")), (3_600_000, fail_in("_move"))],
    ids=["kept", "fired", "moved"],
)
def test_a_record_that_fails_in_an_unforeseen_way_is_parked_and_the_others_go_on(
    kafka: KafkaConfig,
    log: Log,
    due_in_ms: int,
    fail: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., Any],
) -> None:
    fail(monkeypatch)
    [poison] = (Timer(one.job_id, POISON, one.due_ms) for one in timers(1, due_in_ms))
    others = timers(20, -1)
    log.put_all([poison, *others])
    with running(kafka, log.names) as delays:
        labels = {"role": "delays", "reason": "internal_error"}
        wait_until(lambda: delays.count("joblog_timers_fired_total") == 20, DEADLINE_S, "the other timers")
        wait_until(lambda: delays.count("joblog_quarantined_records_total", **labels) == 1, DEADLINE_S, "the metric")
        assert delays.count("joblog_internal_errors_total", role="delays") == 0
    assert jobs(log) == {one.job_id for one in others}
    [letter] = log.read(log.names.deadletters)
    headers = dict(letter.headers())
    assert headers["joblog-reason-code"] == b"internal_error"
    assert b"Traceback" in headers["joblog-reason"] or b"ZeroDivisionError" in headers["joblog-reason"]
    assert (headers["joblog-role"], headers["joblog-topic"]) == (b"delays", log.names.delay("now").encode())
    assert poison.job_id.encode() in (letter.value() or b"")
    with running(kafka, log.names) as again:
        wait_until(lambda: again.health.ready, DEADLINE_S, "an assignment")
        log.put_all(timers(1, -1))
        wait_until(lambda: again.count("joblog_timers_fired_total") == 1, DEADLINE_S, "the next timer only")
    assert len(log.read(log.names.deadletters)) == 1


class Breaking:
    """A real producer that has a fatal error when told to: it refuses records, and its next poll raises it."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self.is_broken = self.is_raised = False

    def __len__(self) -> int:
        return len(self._producer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def produce(self, *args: Any, **rest: Any) -> None:
        if self.is_broken:
            raise KafkaException(KafkaError(KafkaError._FATAL))
        self._producer.produce(*args, **rest)

    def poll(self, timeout: float) -> int:
        if self.is_broken and not self.is_raised:
            self.is_raised = True
            raise KafkaException(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True))
        return self._producer.poll(timeout)


def test_fatal_errors_of_the_producer_lose_no_timer(
    kafka: KafkaConfig, log: Log, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    made: list[Breaking] = []
    real = clients.producer

    def make(*args: Any, **options: Any) -> Breaking:
        made.append(Breaking(real(*args, **options)))
        return made[-1]

    expected = timers(2_000, 500, 1)
    log.put_all(expected)
    monkeypatch.setattr(clients, "producer", make)
    with running(kafka, log.names) as delays:
        for fired in (100, 800):
            wait_until(lambda fired=fired: delays.count("joblog_timers_fired_total") > fired, DEADLINE_S, "timers")
            made[-1].is_broken = True
        wait_until(lambda: jobs(log) == {one.job_id for one in expected}, DEADLINE_S, "all timers")
        assert delays.count("joblog_producer_rebuilds_total", role="delays") == 2
        assert delays.count("joblog_internal_errors_total", role="delays") == 0
    assert len(made) == 3


def test_an_exception_in_an_acknowledgement_makes_the_process_start_over_and_no_timer_is_lost(
    kafka: KafkaConfig, log: Log, wait_until: Callable[..., Any]
) -> None:
    expected = timers(200, -1)
    log.put_all(expected)
    delays = Process(kafka, log.names)
    observe, failures = delays.meters.observe, iter([ZeroDivisionError("in a callback")])

    def observe_or_fail(name: str, seconds: float, *labels: str) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        observe(name, seconds, *labels)

    delays.meters.observe = observe_or_fail  # type: ignore[method-assign]
    with running(kafka, log.names, process=delays):
        wait_until(lambda: jobs(log) == {one.job_id for one in expected}, DEADLINE_S, "all timers")
        wait_until(lambda: delays.count("joblog_internal_errors_total", role="delays") == 1, DEADLINE_S, "the metric")
        wait_until(lambda: delays.health.ready, DEADLINE_S, "an assignment")


@pytest.mark.parametrize("callback", ["_on_assign", "_on_revoke"])
def test_an_exception_in_a_rebalance_makes_the_process_start_over(
    kafka: KafkaConfig, log: Log, callback: str, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    original, failures = getattr(DelayReader, callback), iter([ZeroDivisionError("in a rebalance")])

    def failing(self: DelayReader, *args: Any) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        original(self, *args)

    monkeypatch.setattr(DelayReader, callback, failing)
    log.put_all(timers(10, -1))
    with running(kafka, log.names) as delays:
        if callback == "_on_revoke":
            wait_until(lambda: delays.health.ready, DEADLINE_S, "an assignment")
            with running(kafka, log.names) as second:
                wait_until(lambda: second.health.ready, DEADLINE_S, "the second one's assignment")
        errors = "joblog_internal_errors_total"
        wait_until(lambda: delays.count(errors, role="delays") == 1, DEADLINE_S, "the metric")
        wait_until(lambda: delays.health.ready, DEADLINE_S, "an assignment")
        wait_until(lambda: len(jobs(log)) == 10, DEADLINE_S, "all timers")


def test_an_exception_that_comes_again_and_again_ends_the_process(
    kafka: KafkaConfig, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []

    def failing(*_: Any) -> None:
        calls.append(time.monotonic())
        raise ZeroDivisionError("always")

    monkeypatch.setattr(DelayReader, "_on_assign", failing)
    delays = Process(kafka, log.names)
    with pytest.raises(ZeroDivisionError, match="always"):
        delays.delays.run(delays.stop)
    assert len(calls) == 4
