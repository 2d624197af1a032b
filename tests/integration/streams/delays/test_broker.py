"""The delays process while its broker is away, on a broker of the test's own."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError, TopicPartition
from joblog.services.embedded.stack import EmbeddedStack
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import JobDue, Timer
from joblog.streams.delays.process import Delays
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.admin import create_topics
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

pytestmark = pytest.mark.broker

DEADLINE_S = 60
#: Longer than what the process grants the client to leave, shorter than what an orchestrator grants the process.
STOP_S_MAX = 20
NAMES = TopicNames("away.")


@pytest.fixture
def broker() -> Iterator[EmbeddedStack]:
    with TemporaryDirectory(prefix="joblog-") as name, EmbeddedStack(Path(name), postgres=False) as stack:
        yield stack


def put(config: KafkaConfig, timers: list[Timer]) -> None:
    producer = clients.producer(config, "test")
    for timer in timers:
        producer.produce(NAMES.delay("now"), key=timer.job_id, value=msgspec.json.encode(timer), partition=0)
    assert producer.flush(DEADLINE_S) == 0


def fired(config: KafkaConfig) -> dict[str, int]:
    """The jobs reported due, and when their (first) reports were appended."""
    reader = clients.reader(config, "test-reader")
    reader.assign([TopicPartition(NAMES.reports, 0, 0)])
    found: dict[str, int] = {}
    while True:
        message = reader.poll(DEADLINE_S)
        assert message is not None
        if (error := message.error()) is None:
            report = msgspec.json.decode(message.value() or b"", type=JobDue)
            found.setdefault(report.job_id, message.timestamp()[1])
        elif error.code() == KafkaError._PARTITION_EOF:
            reader.close()
            return found


def timers(count: int, first_ms: int, step_ms: int) -> list[Timer]:
    start = int(time.time() * 1000) + first_ms
    dues = [start + number * step_ms for number in range(count)]
    return [Timer(job_id=new_job_id(0, due_ms), version=1, due_ms=due_ms) for due_ms in dues]


def test_timers_wait_for_a_broker_that_comes_back_and_a_stop_does_not(
    broker: EmbeddedStack, wait_until: Callable[..., Any]
) -> None:
    config = KafkaConfig(broker.addresses.bootstrap_servers, {"log_level": "0"})
    create_topics(config, NAMES, 1)
    stop, health, meters = threading.Event(), Health("delays"), Meters()
    delays = Delays(config, NAMES, 1, meters=meters, health=health)

    def count() -> float:
        return meters.registry.get_sample_value("joblog_timers_fired_total") or 0

    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(delays.run, stop)
        try:
            wait_until(lambda: health.ready, DEADLINE_S, "an assignment")
            expected = timers(300, 1_000, 20)
            put(config, expected)
            wait_until(lambda: count() > 50, DEADLINE_S, "the first timers")
            broker.kill_broker()
            time.sleep(3)  # the time that the broker is away
            assert not ended.done()
            assert count() < len(expected)
            broker.start_broker()
            wait_until(lambda: count() >= len(expected), DEADLINE_S, "all timers")
            wait_until(lambda: health.ready, DEADLINE_S, "an assignment")
            at_ms = fired(config)
            assert at_ms.keys() == {timer.job_id for timer in expected}
            assert all(at_ms[timer.job_id] >= timer.due_ms for timer in expected)
            before = count()
            put(config, timers(1_000, 0, 20))
            wait_until(lambda: count() > before + 50, DEADLINE_S, "more timers")
            broker.kill_broker()
            time.sleep(1)  # reports are under way, and there is something to commit
        finally:
            stop.set()
        began = time.monotonic()
        ended.result(DEADLINE_S)
        assert time.monotonic() - began < STOP_S_MAX
