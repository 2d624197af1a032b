"""Electors that die in a transaction, sleep through their session, or have a double: inputs are decided once."""

import time
from typing import Any

import pytest

from tests.support.electors import Electors, Log

pytestmark = pytest.mark.broker

ONE_TURN = 10_000


def decided_once(log: Log) -> bool:
    """Whether all jobs that were created are there, each with its first event only, and nothing was rejected."""
    histories = log.histories()
    assert all(events == ["enqueued"] for events in histories.values())
    assert not log.rejections()
    return len(histories) == len(log.created)


def test_an_elector_that_is_killed_inside_a_transaction_loses_nothing_and_doubles_nothing(
    start: Electors, log: Log, wait_until: Any
) -> None:
    victim, _ = start.each_with_a_lane(log)
    deadline = time.monotonic() + 120
    while True:
        assert time.monotonic() < deadline, "no transaction was seen while it was open"
        for _ in range(ONE_TURN):
            log.create(0)
        began = time.monotonic()
        while not log.has_open_transaction(0) and time.monotonic() < began + 5:
            pass  # it is open for some milliseconds, and may be over before it is seen
        victim.pause()
        time.sleep(0.1)  # what was sent before it stopped arrives
        if log.has_open_transaction(0):
            break
        victim.resume()  # it was faster
    victim.kill()
    killed = time.monotonic()
    log.pulse(lambda: log.everywhere(killed), 60)
    wait_until(lambda: decided_once(log), 60, "every job to be decided")


def test_a_transaction_that_a_dead_elector_left_open_holds_nobody_up(
    start: Electors, log: Log, wait_until: Any
) -> None:
    victim, other = start.each_with_a_lane(log)
    victim.kill()
    open_for_minutes = log.leave_open(victim.owner, lane=0)
    killed = time.monotonic()
    # The session's 6 s, and the patience of a busy machine: the transaction itself would last ten minutes.
    log.pulse(lambda: log.everywhere(killed), 90)
    wait_until(lambda: log.each_owned_by(other, other), 60, "the other elector to have both lanes")
    wait_until(lambda: decided_once(log), 60, "every job to be decided")
    assert not log.has_open_transaction(0)
    del open_for_minutes


def test_an_elector_that_slept_through_its_session_commits_nothing_and_disturbs_nobody(
    start: Electors, log: Log, wait_until: Any
) -> None:
    sleeper, other = start.each_with_a_lane(log)
    sleeper.pause()
    slept = time.monotonic()
    log.pulse(lambda: log.everywhere(slept) and log.each_owned_by(other, other), 90)
    sleeper.resume()
    log.pulse(log.both_own, 90)
    woke = time.monotonic()
    log.pulse(lambda: log.everywhere(woke), 90)
    wait_until(lambda: decided_once(log), 60, "every job to be decided")
    sleeper.stop()
    other.stop()
    assert other.metric("joblog_producer_rebuilds_total") == 1, "the elector that took the lanes over was fenced"


def test_of_two_electors_under_one_name_one_ends_although_there_is_much_to_do(
    start: Electors, log: Log, wait_until: Any
) -> None:
    first = start("a")
    log.warm_up()
    second = start("a")
    ended = lambda: [one for one in (first, second) if one.process.poll() is not None]  # noqa: E731
    log.pulse(lambda: bool(ended()), 90)
    alone = time.monotonic()
    log.pulse(lambda: log.everywhere(alone), 90)
    wait_until(lambda: decided_once(log), 60, "every job to be decided")
    assert len(ended()) == 1
    assert "Fenced" in ended()[0].log.read_text()
