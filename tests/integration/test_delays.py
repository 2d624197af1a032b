"""The delays process on the real broker: what is put into the delay topics becomes reports, in time."""

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import pytest
from confluent_kafka import KafkaException, TopicPartition
from joblog.streams import kafka as clients
from joblog.streams.delay_reader import LIMITS, READ_MAX, Limits
from joblog.streams.delays import Delays
from joblog.streams.errors import TopicsError
from joblog.streams.health import Health
from joblog.streams.ids import lane_of_job, new_job_id
from joblog.streams.kafka import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.topics import DELAY_TIERS, TopicNames
from joblog.streams.wheel import tier_for
from joblog.streams.wire import JobDue, Timer

pytestmark = pytest.mark.broker

LANES = 2
#: How late a timer may be on a machine that runs other tests beside this one; the bench measures lateness.
LATE_MS_MAX = 1_000
DEADLINE_S = 30

PROCESS = """
import sys, threading
from joblog.streams.delays import Delays
from joblog.streams.errors import TopicsError
from joblog.streams.health import Health
from joblog.streams.kafka import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.topics import TopicNames
bootstrap_servers, prefix, lanes = sys.argv[1:]
delays = Delays(
    KafkaConfig(bootstrap_servers), TopicNames(prefix), int(lanes), meters=Meters(), health=Health("delays")
)
delays.run(threading.Event())
"""


def now_ms() -> int:
    return int(time.time() * 1000)


class Fired(NamedTuple):
    """A report as the log has it."""

    report: JobDue
    key: bytes | None
    lane: int
    at_ms: int


class Process:
    """A delays process in a thread of the test."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames, **options: Any) -> None:
        self.meters = Meters()
        self.health = Health("delays")
        self.stop = threading.Event()
        self.delays = Delays(kafka, names, LANES, meters=self.meters, health=self.health, **options)
        self.ended: Future[None] = Future()

    def count(self, metric: str, **labels: str) -> float:
        if self.ended.done():
            self.ended.result()  # it failed: say so, rather than wait for what will not come
        return self.meters.registry.get_sample_value(metric, labels) or 0


@contextmanager
def running(kafka: KafkaConfig, names: TopicNames, **options: Any) -> Iterator[Process]:
    """A process that runs until the end of the block, and that fails the test if it fails."""
    process = Process(kafka, names, **options)
    with ThreadPoolExecutor(1) as executor:
        process.ended = executor.submit(process.delays.run, process.stop)
        try:
            yield process
        finally:
            process.stop.set()
        process.ended.result(DEADLINE_S)


class Log:
    """The topics around the delays process, as the elector sees them."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames) -> None:
        self.names = names
        self.kafka = kafka
        self.producer = clients.producer(kafka, "test", linger_ms=1)

    def put(self, timer: Timer, tier: str) -> None:
        self.put_raw(tier, lane_of_job(timer.job_id), msgspec.json.encode(timer), timer.job_id.encode())

    def put_raw(self, tier: str, lane: int, value: bytes | None, key: bytes | None = None, **rest: Any) -> None:
        self.producer.produce(self.names.delay(tier), value=value, key=key, partition=lane, **rest)
        self.producer.poll(0)

    def put_all(self, timers: list[Timer], tier: str = "now") -> None:
        for timer in timers:
            self.put(timer, tier)
        self.flush()

    def flush(self) -> None:
        assert self.producer.flush(DEADLINE_S) == 0

    def read(self, topic: str, partitions: int = LANES) -> list[Any]:
        """All records of a topic, from the first to the last there is now."""
        reader = clients.reader(self.kafka, "test-reader")
        places = [TopicPartition(topic, number, 0) for number in range(partitions)]
        left = {place.partition for place in places if reader.get_watermark_offsets(place, DEADLINE_S)[1] > 0}
        reader.assign(places)
        records = []
        while left:
            for message in reader.consume(500, 0.1):
                if message.error():
                    left.discard(message.partition())
                else:
                    records.append(message)
        reader.close()
        return records

    def fired(self) -> list[Fired]:
        return [
            Fired(msgspec.json.decode(each.value(), type=JobDue), each.key(), each.partition(), each.timestamp()[1])
            for each in self.read(self.names.reports)
        ]


@pytest.fixture
def log(kafka: KafkaConfig, topics: TopicNames) -> Log:
    return Log(kafka, topics)


def timers(count: int, first_ms: float, step_ms: float = 0) -> list[Timer]:
    """Timers due from `first_ms` ahead, in turns in each lane."""
    start = now_ms() + first_ms
    dues = [round(start + number * step_ms) for number in range(count)]
    return [
        Timer(job_id=new_job_id(number % LANES, due_ms), version=number + 1, due_ms=due_ms)
        for number, due_ms in enumerate(dues)
    ]


def repeats(fired: list[Fired]) -> set[str]:
    counted = Counter(each.report.job_id for each in fired)
    return {job_id for job_id, times in counted.items() if times > 1}


def test_timers_are_fired_when_they_are_due_and_not_before(
    kafka: KafkaConfig, log: Log, wait_until: Callable[..., Any]
) -> None:
    with running(kafka, log.names) as process:
        wait_until(lambda: process.health.ready, DEADLINE_S, "an assignment")
        expected = {timer.job_id: timer for timer in timers(300, 50, 10)}
        log.put_all(list(expected.values()))
        wait_until(lambda: process.count("joblog_timers_fired_total") == 300, DEADLINE_S, "300 timers")
        assert process.count("joblog_timer_lateness_seconds_count") == 300
        wait_until(
            lambda: process.meters.registry.get_sample_value("joblog_timers_waiting") == 0, 5, "no timer waiting"
        )
    fired = log.fired()
    assert {each.report.job_id for each in fired} == expected.keys()
    assert not repeats(fired)
    for each in fired:
        timer = expected[each.report.job_id]
        assert each.report.version == timer.version
        assert each.key == timer.job_id.encode()
        assert each.lane == lane_of_job(timer.job_id)
        assert 0 <= each.at_ms - timer.due_ms < LATE_MS_MAX


def test_timers_that_were_due_while_nobody_ran_are_fired_at_once_from_every_tier(
    kafka: KafkaConfig, log: Log, wait_until: Callable[..., Any]
) -> None:
    overdue = timers(len(DELAY_TIERS), -5_000)
    for timer, tier in zip(overdue, DELAY_TIERS, strict=True):
        log.put(timer, tier)
    log.flush()
    with running(kafka, log.names):
        wait_until(lambda: len(log.fired()) >= len(overdue), DEADLINE_S, "all overdue timers")
    assert {each.report.job_id for each in log.fired()} == {timer.job_id for timer in overdue}


def test_a_timer_moves_to_the_tier_for_what_remains_after_the_wait_of_its_tier(
    kafka: KafkaConfig, log: Log, wait_until: Callable[..., Any]
) -> None:
    ahead_s = 0.0
    [timer] = timers(1, 100_000)
    assert tier_for(100_000) == "1m"
    log.put_all([timer], "1m")
    raw = log.read(log.names.delay("1m"))[0].value()
    with running(kafka, log.names, clock=lambda: time.time() + ahead_s) as process:
        wait_until(lambda: process.health.ready, DEADLINE_S, "an assignment")
        ahead_s = 50
        time.sleep(0.5)  # time in which nothing may happen
        assert log.read(log.names.delay("now")) == []
        ahead_s = 65
        wait_until(lambda: process.count("joblog_timers_moved_total", tier="now") == 1, DEADLINE_S, "the move")
        [moved] = log.read(log.names.delay("now"))
        assert (moved.value(), moved.key(), moved.partition()) == (
            raw,
            timer.job_id.encode(),
            lane_of_job(timer.job_id),
        )
        assert log.fired() == []
        ahead_s = 101
        wait_until(lambda: process.count("joblog_timers_fired_total") == 1, DEADLINE_S, "the firing")
    assert [each.report for each in log.fired()] == [JobDue(job_id=timer.job_id, version=1)]


def test_a_timer_of_a_year_goes_round_and_a_misplaced_one_leaves_the_last_minute(
    kafka: KafkaConfig, log: Log, wait_until: Callable[..., Any]
) -> None:
    [timer] = timers(1, 365 * 86_400_000)
    log.put_all([timer], "now")
    ahead_s = 0.0
    with running(kafka, log.names, clock=lambda: time.time() + ahead_s) as process:
        wait_until(lambda: process.count("joblog_timers_moved_total", tier="7d") == 1, DEADLINE_S, "tier 7d")
        ahead_s = 8 * 86_400
        # Only this clock went ahead, so for it the wait is over at once after each append.
        wait_until(lambda: process.count("joblog_timers_moved_total", tier="7d") > 3, DEADLINE_S, "more rounds")
        assert process.count("joblog_timers_fired_total") == 0


def test_what_is_done_is_not_done_again_after_an_orderly_stop(
    kafka: KafkaConfig, log: Log, wait_until: Callable[..., Any]
) -> None:
    for first, total in ((0, 50), (100, 100)):
        log.put_all(timers(50, first))
        with running(kafka, log.names):
            wait_until(lambda total=total: len(log.fired()) >= total, DEADLINE_S, f"{total} timers")
    fired = log.fired()
    assert len(fired) == 100
    assert not repeats(fired)


def test_partitions_that_hold_too_much_are_paused_and_nothing_is_lost(
    kafka: KafkaConfig, log: Log, wait_until: Callable[..., Any]
) -> None:
    ahead_s = 0.0
    soon = timers(2_000, 4_000, 0.5)
    later = timers(500, 90_000, 1)
    log.put_all(soon)
    log.put_all(later, "1m")
    limits = Limits(now_max=50, waiting_max=10)
    with running(kafka, log.names, limits=limits, clock=lambda: time.time() + ahead_s) as process:
        wait_until(lambda: process.health.ready, DEADLINE_S, "an assignment")
        waiting = "joblog_timers_waiting"
        wait_until(lambda: process.meters.registry.get_sample_value(waiting), DEADLINE_S, "timers in memory")
        # A poll may hand out what was fetched before the pause, but not thousands.
        assert process.meters.registry.get_sample_value(waiting) < 2_000
        wait_until(lambda: process.count("joblog_timers_fired_total") >= 2_000, DEADLINE_S, "the timers of now")
        ahead_s = 91
        wait_until(lambda: process.count("joblog_timers_fired_total") >= 2_500, DEADLINE_S, "the timers of 1m")
    fired = log.fired()
    assert {each.report.job_id for each in fired} == {timer.job_id for timer in soon + later}


def test_more_timers_than_one_reading_takes_are_all_fired(
    kafka: KafkaConfig, log: Log, wait_until: Callable[..., Any]
) -> None:
    many = timers(5 * READ_MAX + 3, -1)
    log.put_all(many)
    with running(kafka, log.names) as process:
        wait_until(lambda: process.count("joblog_timers_fired_total") >= len(many), DEADLINE_S, "all timers")
    assert {each.report.job_id for each in log.fired()} == {timer.job_id for timer in many}


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "undecodable"),
        (b"", "undecodable"),
        (b"\xff\xfe", "undecodable"),
        (b'{"job_id": "\xff"}', "undecodable"),
        (b'{"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "undecodable"),
        (b'{"version": 1, "due_ms": 1}', "invalid_data"),
        (b"[]", "invalid_data"),
        (b'"' + b"x" * 990_000 + b'"', "invalid_data"),
    ],
    ids=["null", "empty", "no UTF-8", "no UTF-8 inside", "deep", "no job id", "no object", "huge"],
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
    assert letter.value() == (value if value is None else value[:800_000])


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


def test_limits_are_those_that_the_design_states() -> None:
    assert Limits(now_max=200_000, waiting_max=1_000) == LIMITS
