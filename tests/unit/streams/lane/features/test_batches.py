"""Batches over several lanes: created as one, counted exactly, waited for, whatever comes in whatever order."""

from joblog.streams.contract.states import AWAITING, PROCESSING, SUCCEEDED, State

from tests.support.batch_world import BatchWorld
from tests.support.lane_world import LANES


def kinds(world: BatchWorld, batch_id: str) -> list[str]:
    return [kind for kind, _ in world.told[batch_id] if kind != "batch.progressed"]


def test_a_batch_ends_when_all_its_jobs_have_and_then_its_continuation_runs() -> None:
    world = BatchWorld()
    first, *rest = world.create([0, 1, 2, 2], lane=1)
    waiter = world.waiter(first.batch_id, lane=2)
    world.send_all([first, *rest, waiter])
    for lane in range(LANES):
        world.turn(lane, 100, 100)
    assert world.folds[waiter.job_id].state is AWAITING
    world.until_quiet()
    assert kinds(world, first.batch_id) == ["batch.created", "batch.succeeded"]
    last = world.told[first.batch_id][-1][1]
    assert (last.total, last.created, last.succeeded, last.state) == (4, 4, 4, SUCCEEDED)
    assert world.folds[waiter.job_id].state is SUCCEEDED
    assert world.started_from_waiting == {waiter.job_id: 1}


def test_a_batch_without_jobs_has_succeeded() -> None:
    world = BatchWorld()
    (first,) = world.create([])
    world.send_all([first])
    world.until_quiet()
    assert kinds(world, first.batch_id) == ["batch.created", "batch.succeeded"]


def test_a_batch_that_waits_holds_its_jobs_back_until_its_parent_has_ended() -> None:
    world = BatchWorld()
    one, *rest = world.create([0, 1])
    two, *more = world.create([0, 1, 2], lane=2, parent=world.waiter(one.batch_id, 0).parent)
    world.send_all([two, *more])
    for _ in range(3):
        for lane in range(LANES):
            world.turn(lane, 100, 100)
    assert {world.folds[job].state for job in world.members[two.batch_id]} == {AWAITING}
    world.send_all([one, *rest])
    world.until_quiet()
    assert kinds(world, two.batch_id) == ["batch.created", "batch.started", "batch.succeeded"]
    assert world.told[two.batch_id][0][1].state is State.AWAITING
    assert all(world.started_from_waiting[job] == 1 for job in world.members[two.batch_id])
    assert PROCESSING not in {fold.state for fold in world.folds.values()}
