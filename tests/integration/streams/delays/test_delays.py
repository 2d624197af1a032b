"""The delays process on the real broker: what is put into the delay topics becomes reports, in time."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.topics import DELAY_TIERS, TopicNames, tier_for
from joblog.streams.contract.wire import JobDue
from joblog.streams.delays.reader import LIMITS, READ_MAX, Limits
from joblog.streams.kafka.clients import KafkaConfig

from tests.support.delays_process import DEADLINE_S, Log, repeats, running, timers

pytestmark = pytest.mark.broker

#: How late a timer may be on a machine that runs other tests beside this one; alone, 99 of 100 are within 30 ms.
LATE_MS_MAX = 10_000  # the patience of a busy machine; the benchmark measures lateness


@pytest.fixture
def log(kafka: KafkaConfig, topics: TopicNames) -> Log:
    return Log(kafka, topics)


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


def test_limits_are_those_that_the_design_states() -> None:
    assert Limits(now_max=200_000, waiting_max=1_000) == LIMITS
