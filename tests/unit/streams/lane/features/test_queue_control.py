"""Queues that are paused, drained and resumed, in one lane."""

from datetime import UTC, datetime, timedelta

import pytest
from joblog.streams.contract.wire import DeleteJob, DrainQueue, MoveJob, PauseQueue, RequeueJob, ResumeQueue
from joblog.streams.lane.features.queue_control import QUEUE_KEY

from tests.support.scene import (
    NOW,
    Pause,
    Scene,
    Tick,
    create,
    id_of,
    queue_in,
    released,
    run_failed,
    succeeded,
    worker,
)

QUEUE = "q0"
PAUSE = PauseQueue(queue=QUEUE, by="ann", reason="why")
RESUME = ResumeQueue(queue=QUEUE, by="bob")
DRAIN = DrainQueue(queue=QUEUE)
IN_A_SECOND = datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(seconds=1)


def test_no_job_of_a_paused_queue_starts_until_it_is_resumed() -> None:
    scene = Scene().given(worker(slots=3))
    scene.when(create("a"), PAUSE, create("b")).then("a1 Enqueued", "queue.paused q0", "b1 Enqueued").and_assigned()
    scene.when(RESUME).then("queue.resumed q0", "a2 Processing #1 by w", "b2 Processing #1 by w")
    event = scene.out.events[0][3]
    assert (event.by, event.reason) == ("bob", None)  # type: ignore[union-attr]
    assert QUEUE_KEY + QUEUE not in scene.kept


def test_other_queues_go_on() -> None:
    scene = Scene().given(worker(slots=3, queues=("q0", "q1")), PAUSE)
    scene.when(create("a"), create("b", queue="q1")).and_assigned("w: run b, lease 2")


def test_what_runs_goes_on_and_what_comes_back_waits() -> None:
    scene = Scene().given(worker(slots=3), create("a"), create("b"), create("c")).given(PAUSE)
    scene.when(succeeded("a", 2)).then("a3 Succeeded")
    scene.when(released("b", 2), RequeueJob(job_id=id_of("c"))).then("b3 Enqueued", "c3 Enqueued")
    scene.when(RESUME).and_assigned("w: run b, lease 4", "w: run c, lease 4")


def test_a_pause_survives_a_takeover() -> None:
    scene = Scene().given(worker(), PAUSE).reloaded()
    scene.when(create("a")).and_assigned()
    scene.when(RESUME).and_assigned("w: run a, lease 2")


def test_a_pause_until_an_instant_ends_by_itself() -> None:
    scene = Scene().given(worker(), PauseQueue(queue=QUEUE, until=IN_A_SECOND), create("a"))
    scene.when(Tick(999)).then()
    scene.reloaded().when(Tick(1)).then("queue.resumed q0", "a2 Processing #1 by w")
    assert scene.reasons[0] == "The pause lasted until 2027-01-15T08:00:01.000+00:00"
    scene.when(Tick(1)).then()


def test_a_second_pause_takes_the_place_of_the_first() -> None:
    scene = Scene().given(worker(), PauseQueue(queue=QUEUE, until=IN_A_SECOND), PAUSE, create("a"))
    scene.when(Tick(5_000)).then()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (RESUME, "not_paused"),
        (PauseQueue(queue=QUEUE, until=IN_A_SECOND - timedelta(seconds=1)), "invalid"),
        (DrainQueue(queue=QUEUE, until=IN_A_SECOND - timedelta(seconds=1)), "invalid"),
    ],
)
def test_what_would_have_no_effect_is_rejected(command: PauseQueue, code: str) -> None:
    Scene().when(command).then(f"rejected {code}")


def test_a_queue_of_another_lane_is_paused_here_for_the_jobs_that_are_moved_to_it() -> None:
    elsewhere = queue_in(1, 2)
    scene = Scene(0, 2).given(PauseQueue(queue=elsewhere), create("a", lanes=2), worker(queues=(elsewhere,)))
    scene.when(MoveJob(job_id=id_of("a"), queue=elsewhere)).then(f"a2 moved to {elsewhere}").and_assigned()
    scene.when(ResumeQueue(queue=elsewhere)).and_assigned("w: run a, lease 3")


# --- draining ---


def test_a_queue_without_running_jobs_is_drained_at_once() -> None:
    scene = Scene().given(create("a"))
    scene.when(DRAIN).then("queue.paused q0", "queue.drained q0")
    scene.when(Tick(100)).then()
    scene.when(worker()).and_assigned()


def test_a_queue_is_drained_when_the_last_of_its_jobs_has_left_the_workers() -> None:
    running = [create("a"), create("b"), create("c"), create("d", queue="q1")]
    scene = Scene().given(worker(slots=4, queues=("q0", "q1")), *running)
    scene.when(DRAIN, create("e")).then("queue.paused q0", "e1 Enqueued")
    scene.when(succeeded("a", 2), Tick(100)).then("a3 Succeeded")
    scene.reloaded().when(run_failed("b", 2), Tick(100)).then("b3 Failed traversed", "b4 Scheduled retry 1")
    scene.when(DeleteJob(job_id=id_of("c")), Tick(100)).then("c3 Deleted", "queue.drained q0")
    scene.when(Pause(100), Tick(100)).then()


def test_a_job_that_starts_after_the_pause_has_ended_is_none_to_wait_for() -> None:
    scene = Scene().given(worker(slots=2), create("a")).given(DRAIN).given(RESUME).given(create("b"))
    scene.when(DRAIN).then("queue.paused q0")
    scene.when(succeeded("a", 2), Tick(100)).then("a3 Succeeded")
    scene.when(succeeded("b", 2), Tick(100)).then("b3 Succeeded", "queue.drained q0")
