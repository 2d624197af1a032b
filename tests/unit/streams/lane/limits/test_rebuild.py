"""A lane that owns limits, and whose `state` was lost."""

from joblog.streams.contract.relations import LimitKind
from joblog.streams.contract.wire import Limit
from joblog.streams.lane.limits.claims import id_of, owner_of

from tests.support.lane_world import LANES
from tests.support.limits_world import LimitsWorld

MUTEX = Limit(LimitKind.MUTEX, "m")
OWNER = owner_of(id_of(MUTEX), LANES)
OTHER = (OWNER + 1) % LANES


def turns(world: LimitsWorld, *lanes: int) -> None:
    for lane in lanes:
        world.turn(lane, 100, 100)


def test_it_grants_nothing_until_other_lanes_have_said_which_of_their_jobs_run() -> None:
    world = LimitsWorld([MUTEX])
    for lane in (OWNER, OTHER):
        world.announce(lane, 5)
    runs = world.create(OTHER, MUTEX)
    turns(world, OTHER, OWNER, OTHER, OWNER)
    assert world.held[id_of(MUTEX)] == {runs}
    waits = world.create(OWNER, MUTEX)
    turns(world, OWNER)
    world.take_over(OTHER)
    world.turn(OTHER, 0, 0)  # what it says of itself lies before what it will be asked, and is no answer
    world.rebuild(OWNER)
    world.announce(OWNER, 5)
    turns(world, OWNER)  # nobody has told it that the other lane's job runs
    assert world.held[id_of(MUTEX)] == {runs}
    turns(world, OTHER, OWNER, OTHER, OWNER)
    assert world.held[id_of(MUTEX)] == {runs}
    world.report(OTHER, world.running(OTHER)[0])
    turns(world, OTHER, OWNER)
    assert world.held[id_of(MUTEX)] == {waits}
