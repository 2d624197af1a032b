"""A lane that goes on without reports that were lost: no limit that it owns, or uses, is held for ever."""

from random import Random

import pytest
from joblog.streams.contract.relations import LimitKind
from joblog.streams.contract.states import FINAL_STATES
from joblog.streams.contract.wire import Limit
from joblog.streams.lane.limits.claims import id_of, owner_of

from tests.support.lane_world import LANES
from tests.support.limits_world import LimitsWorld, chaos

MUTEX = Limit(LimitKind.MUTEX, "m")
RATE = Limit(LimitKind.SLIDING_WINDOW, "r", 2, 1.0)
OWNER = owner_of(id_of(MUTEX), LANES)
OTHER = (OWNER + 1) % LANES


def turns(world: LimitsWorld, *lanes: int) -> None:
    for lane in lanes:
        world.turn(lane, 100, 100)


def begun(lane: int) -> LimitsWorld:
    """A job of this lane runs with the mutex."""
    world = LimitsWorld([MUTEX, RATE])
    for number in range(LANES):
        world.announce(number, 5)
    runs = world.create(lane, MUTEX, RATE)
    turns(world, *range(LANES), *range(LANES), *range(LANES))
    assert world.held[id_of(MUTEX)] == {runs}
    return world


def test_an_owner_that_was_not_told_of_an_end_asks_who_runs() -> None:
    world = begun(OTHER)
    world.report(OTHER, world.running(OTHER)[0])
    turns(world, OTHER)
    world.lose_reports(OWNER)
    waits = world.create(OWNER, MUTEX)
    world.announce(OWNER, 5)
    turns(world, *range(LANES), *range(LANES))
    assert world.held[id_of(MUTEX)] == {waits}


def test_an_owner_that_was_not_told_of_an_end_still_counts_those_that_run() -> None:
    world = begun(OTHER)
    world.create((OTHER + 1) % LANES, MUTEX)
    turns(world, (OTHER + 1) % LANES)  # what it asks is lost
    world.lose_reports(OWNER)
    world.create(OWNER, MUTEX)
    world.announce(OWNER, 5)
    turns(world, *range(LANES), *range(LANES))
    assert len(world.held[id_of(MUTEX)]) == 1


@pytest.mark.parametrize("lane", range(LANES))
def test_all_jobs_end_whichever_lane_has_lost_reports(lane: int) -> None:
    world = begun(OTHER)
    for number in range(12):
        world.create(number % LANES, MUTEX, RATE)
    turns(world, *range(LANES))
    world.report(OTHER, world.running(OTHER)[0])
    turns(world, *(number for number in range(LANES) if number != lane))
    world.lose_reports(lane)
    world.finish()
    world.check_rates()
    assert all(job.state in FINAL_STATES for job in world.folds.values())


@pytest.mark.parametrize("seed", range(6))
def test_no_limit_is_exceeded_and_nothing_waits_for_ever_whenever_reports_are_lost(seed: int) -> None:
    world, random = LimitsWorld([MUTEX, Limit(LimitKind.SEMAPHORE, "s", 2), RATE]), Random(seed)
    for _ in range(5):
        chaos(world, random, 60)
        lane = random.randrange(LANES)
        world.lose_reports(lane)
        world.turn(lane, 0, 0)
    world.finish()
    assert world.most[id_of(MUTEX)] == 1
