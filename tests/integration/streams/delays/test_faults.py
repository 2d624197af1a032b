"""The delays process on the real broker: bad records, lost positions, members that come, stop and are killed."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import KafkaException, TopicPartition
from joblog.streams.contract.deadletters import VALUE_BYTES_MAX
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import Timer
from joblog.streams.delays.process import Delays
from joblog.streams.delays.reader import Limits
from joblog.streams.errors import TopicsError
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

from tests.support.delays_process import DEADLINE_S, LANES, Log, Process, now_ms, repeats, running, timers

pytestmark = pytest.mark.broker

PROCESS = """
import sys, threading
from joblog.streams.delays.process import Delays
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.contract.topics import TopicNames
bootstrap_servers, prefix, lanes = sys.argv[1:]
delays = Delays(
    KafkaConfig(bootstrap_servers), TopicNames(prefix), int(lanes), meters=Meters(), health=Health("delays")
)
delays.run(threading.Event())
"""


@pytest.fixture
def log(kafka: KafkaConfig, topics: TopicNames) -> Log:
    return Log(kafka, topics)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "undecodable"),
        (b"", "undecodable"),
        (b"\xff\xfe", "undecodable"),
        (b'{"job_id": "\xff"}', "undecodable"),
        (b'{"deep": ' + b"[" * 4_000 + b"]" * 4_000 + b"}", "undecodable"),
        (b'{"version": 1, "due_ms": 1}', "invalid_data"),
        (b"[]", "invalid_data"),
        (b'"' + b"x" * 1_900_000 + b'"', "invalid_data"),
        (b'{"job_id": "' + b"x" * 1_100_000 + b'", "version": 1, "due_ms": 1}', "invalid_data"),
        (b'{"job_id": "job 1", "version": 1, "due_ms": 1}', "invalid_data"),
    ],
    ids=[
        *("null", "empty", "no UTF-8", "no UTF-8 inside", "deep", "no job id", "no object", "huge"),
        *("a huge job id", "another job id"),
    ],
)
def test_what_is_no_timer_is_parked_with_its_reason_and_the_others_go_on(
    kafka: KafkaConfig, log: Log, value: bytes | None, code: str, wait_until: Callable[..., Any]
) -> None:
    log.put_raw("now", 1, value, b"a key", headers=[("traceparent", b"00-1")])
    timer = Timer(job_id=new_job_id(1, now_ms()), version=1, due_ms=now_ms())
    log.put_all([timer])
    with running(kafka, log.names) as process:
        wait_until(lambda: process.count("joblog_timers_fired_total") == 1, DEADLINE_S, "the timer behind it")
        quarantined = "joblog_quarantined_records_total"
        wait_until(lambda: process.count(quarantined, role="delays", reason=code) == 1, DEADLINE_S, "the metric")
    [letter] = log.read(log.names.deadletters)
    headers = dict(letter.headers())
    assert headers.pop("joblog-reason").startswith(b"no timer: ")
    assert headers == {
        "joblog-reason-code": code.encode(),
        "joblog-role": b"delays",
        "joblog-topic": log.names.delay("now").encode(),
        "joblog-partition": b"1",
        "joblog-offset": b"0",
        "traceparent": b"00-1",
    }
    assert letter.key() == b"a key"
    assert letter.value() == (value if value is None else value[:VALUE_BYTES_MAX])


def test_a_position_that_the_log_no_longer_holds_is_counted_and_the_rest_is_fired(
    kafka: KafkaConfig, log: Log, wait_until: Callable[..., Any]
) -> None:
    log.put_all(timers(20, 0))
    with running(kafka, log.names) as process:
        wait_until(lambda: process.count("joblog_timers_fired_total") == 20, DEADLINE_S, "20 timers")
    log.put_all(timers(20, 0))
    # Of each lane: 10 fired, 5 lost, 5 left; the committed offset 10 is out of range now.
    lost = [TopicPartition(log.names.delay("now"), lane, 15) for lane in range(LANES)]
    client = clients.admin(kafka)  # what it was asked for is dropped when the client is
    for future in client.delete_records(lost).values():
        assert future.result(DEADLINE_S).low_watermark == 15
    with running(kafka, log.names) as process:
        wait_until(lambda: process.count("joblog_timers_fired_total") == 10, DEADLINE_S, "what is left")
        errors = process.count("joblog_kafka_errors_total", role="delays", code="_AUTO_OFFSET_RESET")
        assert errors >= LANES
        assert not repeats(log.fired())


def test_two_processes_share_the_partitions_and_one_that_stops_hands_over(
    kafka: KafkaConfig, log: Log, wait_until: Callable[..., Any]
) -> None:
    expected = timers(1_000, 3_000, 10)
    log.put_all(expected)
    with running(kafka, log.names) as first:
        wait_until(lambda: first.health.ready, DEADLINE_S, "the first assignment")
        with running(kafka, log.names) as second:
            wait_until(lambda: first.count("joblog_timers_fired_total") >= 50, DEADLINE_S, "the first one's work")
            wait_until(lambda: second.count("joblog_timers_fired_total") >= 50, DEADLINE_S, "the second one's work")
        at_handover = len(log.fired())
        assert at_handover < 1_000
        wait_until(lambda: len({each.report.job_id for each in log.fired()}) == 1_000, DEADLINE_S, "all timers")
    due_ms = {timer.job_id: timer.due_ms for timer in expected}
    assert all(each.at_ms >= due_ms[each.report.job_id] for each in log.fired())


def test_partitions_that_were_full_at_a_rebalance_are_read_on_after_it(
    kafka: KafkaConfig, log: Log, wait_until: Callable[..., Any]
) -> None:
    limits = Limits(now_max=20, waiting_max=10)
    with running(kafka, log.names, limits=limits) as first:
        wait_until(lambda: first.health.ready, DEADLINE_S, "the first assignment")
        log.put_all(timers(200, 8_000))
        is_paused = lambda: any(each.is_paused for each in list(first.delays._reader.partitions))  # noqa: E731
        wait_until(is_paused, DEADLINE_S, "a full partition")
        with running(kafka, log.names) as second:
            wait_until(lambda: second.health.ready, DEADLINE_S, "the second one's assignment")
        wait_until(lambda: len({each.report.job_id for each in log.fired()}) == 200, DEADLINE_S, "all timers")


def test_timers_of_a_killed_process_are_all_fired_by_another_and_none_is_early(
    kafka: KafkaConfig, log: Log, wait_until: Callable[..., Any]
) -> None:
    expected = timers(2_000, 4_000, 2)
    log.put_all(expected)
    command = [sys.executable, "-c", PROCESS, kafka.bootstrap_servers, log.names.prefix, str(LANES)]
    with subprocess.Popen(command) as victim:
        try:
            wait_until(lambda: len(log.fired()) >= 500, DEADLINE_S, "a quarter of the timers")
        finally:
            victim.send_signal(signal.SIGKILL)
    before = len(log.fired())
    assert before < 2_000
    with running(kafka, log.names):
        wait_until(lambda: len({each.report.job_id for each in log.fired()}) == 2_000, DEADLINE_S, "all timers")
    due_ms = {timer.job_id: timer.due_ms for timer in expected}
    assert all(each.at_ms >= due_ms[each.report.job_id] for each in log.fired())


def test_a_process_whose_name_another_one_takes_ends_with_an_error(
    kafka: KafkaConfig, log: Log, wait_until: Callable[..., Any]
) -> None:
    process = Process(kafka, log.names, instance="one")
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(process.delays.run, process.stop)
        wait_until(lambda: process.health.ready, DEADLINE_S, "an assignment")
        with running(kafka, log.names, instance="one") as heir:
            wait_until(lambda: heir.health.ready, DEADLINE_S, "the heir's assignment")
            with pytest.raises(KafkaException, match="fenced"):
                ended.result(DEADLINE_S)
    assert (process.health.ready, process.health.reason) == (False, "stopped")


def test_topics_with_more_partitions_than_lanes_are_refused(kafka: KafkaConfig, topics: TopicNames) -> None:
    delays = Delays(kafka, topics, LANES - 1, meters=Meters(), health=Health("delays"))
    with pytest.raises(TopicsError, match=r"more partitions than there are lanes \(1\)"):
        delays.run(threading.Event())


def test_a_process_without_partitions_is_alive_but_not_ready(
    kafka: KafkaConfig, names: TopicNames, wait_until: Callable[..., Any]
) -> None:
    with running(kafka, names) as process:
        wait_until(lambda: process.health.reason != "starting", DEADLINE_S, "the first look")
        assert process.health.alive
        assert (process.health.ready, process.health.reason) == (False, "no partitions assigned")
