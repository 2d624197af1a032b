"""Jobs in a lane where their queue does not live: how its workers hear of it."""

import pytest
from joblog.streams.contract.ids import lane_of_queue
from joblog.streams.contract.wire import MoveJob, QueueElsewhere, ServeQueue, WorkerStopping
from joblog.streams.lane.features.queues_elsewhere import AGAIN_MS, REPORTED_MAX
from joblog.streams.lane.features.workers import TOLD_MS

from tests.support.scene import Scene, Tick, create, id_of, queue_in, succeeded, worker

HERE, THERE = queue_in(0, 2), queue_in(1, 2)
SAID = f"lane 1: {THERE} has jobs in lane 0"
TOLD = QueueElsewhere(queue=THERE, lane=0)


@pytest.fixture
def scene() -> Scene:
    """Lane 0, which has a worker of its own."""
    return Scene(0, 2).given(Tick(0), worker(queues=(HERE,), slots=9))


def test_a_job_that_is_moved_elsewhere_is_reported_to_the_first_lane_of_its_new_queue(scene: Scene) -> None:
    scene.given(create("a", lanes=2, queue=THERE))
    scene.and_told(SAID)
    scene.when(worker("v", queues=(HERE, THERE))).and_assigned("v: run a, lease 2")


def test_it_is_said_again_while_the_job_waits_and_not_when_none_came_since(scene: Scene) -> None:
    scene.given(create("a", lanes=2, queue=THERE))
    scene.when(Tick(AGAIN_MS - 1)).and_told()
    scene.when(Tick(1)).and_told(SAID)
    scene.when(worker("v", queues=(THERE,))).and_assigned("v: run a, lease 2")
    scene.when(Tick(AGAIN_MS)).and_told()
    scene.when(succeeded("a", 2, "v"), create("b", lanes=2, queue=THERE)).and_told(SAID)
    scene.when(succeeded("b", 2, "v"), create("c", lanes=2, queue=THERE)).and_told()
    scene.when(Tick(AGAIN_MS)).and_told(SAID)
    scene.when(Tick(AGAIN_MS)).and_told()


def test_a_lane_that_was_taken_over_says_it_anew(scene: Scene) -> None:
    scene.given(create("a", lanes=2, queue=THERE)).reloaded().when(Tick(0)).and_told(SAID)


def test_a_queue_that_lives_here_is_not_reported(scene: Scene) -> None:
    scene.when(create("a", lanes=2, queue=HERE)).and_told()
    scene.when(Tick(AGAIN_MS)).and_told()


def test_many_queues_are_reported_by_and_by() -> None:
    queues = [name for n in range(3 * REPORTED_MAX) if lane_of_queue(name := f"e{n}", 4096)][: 2 * REPORTED_MAX + 1]
    scene = (
        Scene(0, 4096).given(Tick(0)).when(*(create(chr(1_000 + n), queue=queue) for n, queue in enumerate(queues)))
    )
    counts = [len(scene.out.reports)]
    for _ in range(3):
        scene.when(Tick(0))
        counts.append(len(scene.out.reports))
    assert counts == [REPORTED_MAX, REPORTED_MAX, 1, 0]


def test_the_workers_of_the_queue_are_told_and_those_again_that_heard_it_long_ago() -> None:
    first = Scene(1, 2).given(worker(queues=(THERE,)), worker("v", queues=(queue_in(1, 2) + "x",)))
    first.when(TOLD).and_assigned(f"w: serve {THERE} in lane 0")
    assert isinstance(first.out.assignments[0][2], ServeQueue)
    first.when(TOLD, worker("late", queues=(THERE,)), TOLD).and_assigned(f"late: serve {THERE} in lane 0")
    for _ in range(3):
        first.when(Tick(TOLD_MS // 4), worker(queues=(THERE,)), worker("late", queues=(THERE,)), TOLD).and_assigned()
    first.when(Tick(TOLD_MS // 4), TOLD).and_assigned(f"w: serve {THERE} in lane 0", f"late: serve {THERE} in lane 0")
    first.when(WorkerStopping(worker="w"), WorkerStopping(worker="late"), TOLD).and_assigned()


def test_a_moved_job_keeps_its_place_by_priority_and_age(scene: Scene) -> None:
    scene = Scene(0, 2).given(create("a", lanes=2, queue=HERE), create("b", lanes=2, queue=THERE))
    scene.given(create("c", lanes=2, queue=THERE, priority=5))
    scene.when(MoveJob(job_id=id_of("a"), queue=THERE)).then(f"a2 moved to {THERE}")
    scene.when(worker(queues=(THERE,), slots=9))
    scene.and_assigned("w: run c, lease 2", "w: run a, lease 3", "w: run b, lease 2")
