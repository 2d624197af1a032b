"""Lanes that move: electors that stop, die, sleep and come back, on a real broker."""

import threading
import time
from typing import Any

import pytest
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.elector import Elector
from joblog.streams.errors import Fenced
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

from tests.support.electors import Electors, Log, watched

pytestmark = pytest.mark.broker


def test_the_lanes_of_a_killed_elector_move_and_the_others_hardly_pause(
    start: Electors, log: Log, wait_until: Any
) -> None:
    electors = {one.owner: one for one in (start("a"), start("b"))}
    wait_until(log.both_own, 40, "each elector to own a lane")
    log.warm_up()
    owned = log.owners()
    victim = str(owned[0])
    electors[victim].process.kill()
    killed = time.monotonic()
    silences = log.pulse(lambda: time.monotonic() > killed + 3 and log.everywhere(killed + 3), 30)
    # 6 s of session and the take-over for the dead one's lane; the rest is the patience of a busy machine.
    assert silences[0] < 14, silences
    assert silences[1] < 4, silences
    assert set(log.owners().values()) == {owned[1]}
    for job in {event["subject"] for event in log.events}:
        log.of(job)


def test_an_orderly_stop_and_a_restart_cost_little(start: Electors, log: Log, wait_until: Any) -> None:
    first, second = start("a"), start("b")
    wait_until(log.both_own, 40, "each elector to own a lane")
    log.warm_up()
    first.process.terminate()
    log.pulse(lambda: first.process.poll() is not None, 30)
    stopped = time.monotonic()
    assert first.process.returncode == 0
    # Its session lasts 6 s from its last sign of life on: its lanes were handed over, and not waited for.
    wait_until(lambda: log.is_given(second, set(log.queues)), 3, "the lanes to be handed over")
    log.pulse(lambda: log.everywhere(stopped), 30)
    start("a")
    back = log.pulse(watched(log.both_own), 40)
    assert max(back.values()) < 5.5, back


def test_a_killed_elector_that_restarts_under_its_name_has_its_lanes_at_once(
    start: Electors, log: Log, wait_until: Any
) -> None:
    first = start("a")
    log.warm_up()
    first.kill()
    start("a")
    killed = time.monotonic()
    silences = log.pulse(lambda: log.everywhere(killed + 1), 30)
    assert max(silences.values()) < 5.5, silences


def test_a_second_elector_under_the_same_name_ends_the_first(
    kafka: KafkaConfig, elector: Elector, names: TopicNames, start: Electors, log: Log, wait_until: Any
) -> None:
    caught: list[BaseException] = []
    first = Elector(kafka, names, log.lanes, instance="twin", meters=Meters(), health=(health := Health("elector")))

    def run() -> None:
        try:
            first.run(threading.Event())
        except Fenced as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until(lambda: health.ready, 30, "the first twin")
    start("twin")
    thread.join(30)
    assert caught
    assert "twin" in str(caught[0])


def test_of_two_electors_with_one_id_the_earlier_one_ends_and_the_later_works_on_under_load(
    start: Electors, log: Log, wait_until: Any
) -> None:
    earlier = start("twin")
    log.warm_up()
    later = start("twin")
    log.pulse(lambda: earlier.process.poll() is not None, 30)
    assert "another elector was started with the same id" in earlier.log.read_text()
    ended = time.monotonic()
    silences = log.pulse(lambda: log.everywhere(ended + 15), 40)
    assert later.process.poll() is None
    assert max(silences.values()) < 8, silences
    later.stop()
    assert later.metric("joblog_producer_rebuilds_total") <= 3
    log.histories()


def test_live_jobs_workers_and_memory_survive_a_takeover(start: Electors, log: Log, wait_until: Any) -> None:
    first = start("a")
    log.announce(slots=2)
    ended = log.create(0, idempotency_key="once")
    (run,) = wait_until(log.runs, 30, "an assignment")
    log.succeed(run)
    wait_until(lambda: "succeeded" in log.of(ended), 10, "success")
    jobs = [log.create(0, priority=number) for number in range(5)]
    log.producer.flush()
    wait_until(lambda: len(log.runs()) == 3, 10, "two more assignments")
    first.kill()
    start("a")
    for one in log.runs()[1:]:
        log.succeed(one)
    wait_until(lambda: len(log.runs()) == 5, 20, "assignments by the new elector, without a new announcement")
    order = [one.job_id for one in log.runs()[3:]]
    assert order == sorted(set(jobs) - {one.job_id for one in log.runs()[1:3]}, key=jobs.index, reverse=True)[:2]
    log.command("job.create", {"task": "t", "queue": log.queues[0], "job_id": ended}, 0)
    log.producer.flush()
    wait_until(
        lambda: [e["data"]["code"] for e in log.poll().events if e["type"] == "command.rejected"] == ["duplicate"],
        10,
        "the ended job to be remembered",
    )
