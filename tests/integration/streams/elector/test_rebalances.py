"""Lanes that an elector gave back and is given again, after a rebalance that took its time.

A rebalance lasts as long as its slowest member: here one that is stopped holds it up until its session is over.
Lane n goes to the n-th elector in the order of their names.
"""

import time
from typing import Any

import pytest

from tests.support.electors import WORKER, ElectorProcess, Electors, Log, OtherSituation, all_along

pytestmark = pytest.mark.broker


def hold_up_a_rebalance(start: Electors, log: Log, wait_until: Any, slow: ElectorProcess) -> ElectorProcess:
    """Let an elector join while another one sleeps; return it when lane 0 was given back, and nobody has it yet."""
    with start.at_the_start("d") as joined:
        slow.pause()
    wait_until(lambda: log.owners()[0] is None, 60, "the lane to be given back")
    return joined


def test_a_lane_that_another_elector_had_meanwhile_is_loaded_from_the_log(
    start: Electors, log: Log, wait_until: Any
) -> None:
    first, second = start("a"), start("b")
    wait_until(lambda: log.each_owned_by(first, second), 60, "the electors to share the lanes")
    known = log.create(0)
    log.producer.flush()
    wait_until(lambda: log.of(known), 30, "a job that the first elector knows")
    third = hold_up_a_rebalance(start, log, wait_until, second)
    first.pause()
    second.kill()
    wait_until(lambda: log.each_owned_by(third, third), 90, "the third elector to have the lanes")
    unknown = log.create(0)
    log.command("job.delete", {"job_id": known}, 0)
    log.producer.flush()
    wait_until(lambda: log.of(known) == ["enqueued", "deleted"] and log.of(unknown), 30, "its decisions")
    first.resume()
    wait_until(lambda: log.each_owned_by(first, third), 90, "the first elector to have its lane again")
    log.command("job.delete", {"job_id": unknown}, 0)
    log.producer.flush()
    wait_until(lambda: log.of(unknown) == ["enqueued", "deleted"], 30, "it to know what the third one decided")
    assert log.of(known) == ["enqueued", "deleted"]
    assert not log.rejections()


def test_no_worker_is_lost_since_a_rebalance_took_long(start: Electors, log: Log, wait_until: Any) -> None:
    first = start("a", rules={"lease_ms": 2_000}, first_fetch_s=0.5)
    second = start("b")
    wait_until(lambda: log.each_owned_by(first, second), 60, "the electors to share the lanes")
    with all_along(lambda: log.renew(WORKER, 0), 0.2):
        time.sleep(3)
        log.renew("dead", 0, slots=0)
        third = hold_up_a_rebalance(start, log, wait_until, second)
        wait_until(lambda: log.each_owned_by(first, third), 90, "the first elector to have its lane again")
        wait_until(lambda: "dead" in log.lost(), 90, "the worker that is lost to be noticed")
        assert log.lost() == ["dead"]


def test_an_elector_that_slept_while_it_took_lanes_over_writes_nothing(
    start: Electors, log: Log, wait_until: Any
) -> None:
    first, second = start("a"), start("b")
    wait_until(lambda: log.each_owned_by(first, second), 60, "the electors to share the lanes")
    log.make_slow_to_load(1)
    second.stop()
    wait_until(lambda: log.is_given(first, {0, 1}), 60, "the first elector to be given both lanes")
    first.pause_while_loading()
    if log.owners() != {0: None, 1: None}:
        raise OtherSituation("it was not stopped in the middle of it")
    third, fourth = start("c"), start("d")
    wait_until(lambda: log.each_owned_by(third, fourth), 90, "the others to have the lanes")
    job = log.create(0)
    log.command("job.delete", {"job_id": job}, 0)
    log.producer.flush()
    wait_until(lambda: log.of(job) == ["enqueued", "deleted"], 30, "their decisions")
    third.kill()
    first.resume()
    wait_until(lambda: log.each_owned_by(first, fourth), 90, "the first elector to be let in again")
    later = log.create(0)
    log.producer.flush()
    wait_until(lambda: log.of(later), 60, "it to decide")
    assert log.histories() == {job: ["enqueued", "deleted"], later: ["enqueued"]}
    assert not log.rejections(), "commands were decided twice"


def test_an_elector_that_slept_after_a_failed_transaction_does_not_fence_the_one_that_took_over(
    start: Electors, log: Log, wait_until: Any
) -> None:
    first, second = start("a"), start("b")
    wait_until(lambda: log.each_owned_by(first, second), 60, "the electors to share the lanes")
    log.make_slow_to_load(0)
    log.leave_open(first.owner, lane=0)
    log.create(0)
    log.producer.flush()
    wait_until(lambda: "step_back" in first.log.read_text(), 60, "its transaction to fail")
    first.pause_while_loading()
    if "elector.lanes" in first.log.read_text().partition("step_back")[2]:
        raise OtherSituation("it was not stopped while it loaded its lane")
    wait_until(lambda: log.each_owned_by(second, second), 90, "the other to have the lanes")
    first.resume()
    wait_until(lambda: log.each_owned_by(first, second), 90, "the first elector to be let in again")
    wait_until(lambda: len(log.histories()) == 1, 60, "the job")
    second.stop()
    assert second.metric("joblog_producer_rebuilds_total") == 1, "the elector that took over was fenced"
