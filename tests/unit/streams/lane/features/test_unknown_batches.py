"""What waits for a batch of which nobody knows yet."""

from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import AWAITING, DELETED, SUCCEEDED

from tests.support.batch_world import BatchWorld
from tests.support.lane_world import LANES, RULES


def turns(world: BatchWorld) -> None:
    for _ in range(3):
        for lane in range(LANES):
            world.turn(lane, 100, 100)


def test_each_that_waits_does_so_for_a_while_before_the_batch_is_given_up() -> None:
    world = BatchWorld()
    batch_id = world.an_id(0)
    early, late = world.waiter(batch_id, 1), world.waiter(batch_id, 2)
    world.send(early, lane_of_job(early.job_id or ""))
    turns(world)
    world.now_ms += RULES.pending_ms - 1_000
    world.send(late, lane_of_job(late.job_id or ""))
    turns(world)
    world.now_ms += 5_000
    turns(world)
    assert [world.state(str(one.job_id)) for one in (early, late)] == [AWAITING, AWAITING]
    world.send_all(world.create([0], batch_id=batch_id))
    world.until_quiet()
    assert [world.state(str(one.job_id)) for one in (early, late)] == [SUCCEEDED, SUCCEEDED]


def test_a_batch_that_is_never_created_is_given_up() -> None:
    world = BatchWorld()
    waiter = world.waiter(world.an_id(0), 1)
    world.send(waiter, 1)
    turns(world)
    world.now_ms += RULES.pending_ms + 1
    turns(world)
    assert world.state(str(waiter.job_id)) is DELETED
