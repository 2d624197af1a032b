"""A lane that goes on without reports that were lost, among which were the ends of parents."""

from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.relations import Need, ParentKind
from joblog.streams.contract.states import SUCCEEDED, ContinueOn

from tests.support.batch_world import BatchWorld
from tests.support.lane_world import LANES, QUEUES


def turns(world: BatchWorld, *lanes: int) -> None:
    for lane in lanes:
        world.turn(lane, 100, 100)


def loses_reports(world: BatchWorld, lane: int) -> None:
    """What the lane has not read yet is gone."""
    partition = world.partitions[lane]
    assert partition.read_reports < len(partition.reports)
    world.lose_reports(lane)


def created(world: BatchWorld, lane: int, **fields: object) -> str:
    job_id = world.an_id(lane)
    world.send(wire.CreateJob("t", queue=QUEUES[lane][0], job_id=job_id, **fields), lane)  # type: ignore[arg-type]
    return job_id


def test_its_continuations_hear_of_these_ends_nevertheless() -> None:
    world = BatchWorld()
    world.announce(5)
    one, two = created(world, 0), created(world, 2)
    batch = world.create([0])
    world.send_all(batch)
    after_batch = wire.Parent(batch[0].job_id or "", ContinueOn.ENDED, ParentKind.BATCH)
    waiting = [
        created(world, 1, parent=wire.Parent(one)),
        created(world, 1, parents=wire.Parents((one, two), ContinueOn.SUCCEEDED, Need.ALL)),
        created(world, 1, parent=after_batch),
    ]
    for _ in range(3):
        turns(world, *range(LANES))
    for lane in (0, 2):
        world.report_successes(lane)
    world.now_ms += 20_000
    turns(world, 0, 2, 0, 2, 0)
    loses_reports(world, 1)
    world.until_quiet()
    assert {world.state(job) for job in waiting} == {SUCCEEDED}
    assert {lane_of_job(job) for job in waiting} == {1}
