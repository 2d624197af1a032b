"""Over the lanes of a queue no limit is exceeded in any prefix of the log, whatever happens; nothing is left over."""

from random import Random

import pytest
from joblog.streams.contract.relations import LimitKind
from joblog.streams.contract.states import FINAL_STATES
from joblog.streams.elector.lane_records import read_state, write_state
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.limits.gate import QueueLimit

from tests.support.lane_world import LANES, QUEUES, RULES, SHARDED, WIDE
from tests.support.queue_limits_world import QueueLimitsWorld, chaos


@pytest.mark.parametrize("seed", range(6))
def test_the_limit_of_a_queue_holds_over_its_lanes_and_nothing_is_left_out(seed: int) -> None:
    random = Random(seed)
    skews = (0, 0, 0) if seed % 2 else (0, random.choice((-900, 900)), random.choice((-5_000, 5_000)))
    world = QueueLimitsWorld(skews, (WIDE, WIDE, SHARDED, QUEUES[0][0])[seed % 4])
    chaos(world, random, 1_200)
    if any(skews):  # between clocks that differ, rates are slow
        world.set_limit(LimitKind.SEMAPHORE, 3)
    world.finish()
    world.settled()
    world.check_rates()
    assert all(job.state in FINAL_STATES for job in world.folds.values())
    assert len(world.folds) > 100


SHARDS = QueueLimitsWorld().shards
OWNER = SHARDS[0]


def world_with(kind: LimitKind, capacity: int, interval_s: float | None = None, slots: int = 20) -> QueueLimitsWorld:
    world = QueueLimitsWorld()
    for lane in SHARDS:
        world.announce(lane, slots)
    world.set_limit(kind, capacity, interval_s)
    turns(world)
    return world


def turns(world: QueueLimitsWorld, count: int = 3) -> None:
    for _ in range(count):
        for lane in SHARDS:
            world.turn(lane, 1000, 1000)


def running(world: QueueLimitsWorld) -> list[int]:
    return [len(world.running(lane)) for lane in SHARDS]


def test_lanes_that_want_to_start_jobs_take_turns() -> None:
    world = world_with(LimitKind.SEMAPHORE, 6)
    for number in range(60):
        world.create(number % len(SHARDS))
    started: list[int] = [0] * len(SHARDS)
    for _ in range(40):
        turns(world, 1)
        assert sum(running(world)) <= 6
        started = [before + now for before, now in zip(started, running(world), strict=True)]
        for lane in SHARDS:
            for report in world.running(lane):
                world.report(lane, report)
    assert sum(started) == 60
    assert max(started) - min(started) <= 2


def test_a_lane_that_is_alone_keeps_its_units_and_says_nothing_of_each_job() -> None:
    world = world_with(LimitKind.SEMAPHORE, 4)
    for _ in range(40):
        world.create(1)
    turns(world)
    assert running(world) == [0, 4, 0]
    sent = world.reports_sent
    for _ in range(5):
        for report in world.running(SHARDS[1]):
            world.report(SHARDS[1], report)
        turns(world, 1)
        assert running(world) == [0, 4, 0]
    assert world.reports_sent - sent <= 2


def test_a_queue_gets_its_limit_while_jobs_run() -> None:
    world = QueueLimitsWorld()
    for lane in SHARDS:
        world.announce(lane, 20)
    for number in range(9):
        world.create(number)
    turns(world)
    assert running(world) == [3, 3, 3]
    world.set_limit(LimitKind.SEMAPHORE, 4)
    for number in range(9):
        world.create(number)
    for _ in range(20):
        turns(world, 1)
        for lane in SHARDS[1:]:
            for report in world.running(lane)[:1]:
                world.report(lane, report)
    assert running(world)[0] >= 3  # they go on, and count
    assert world.at_capacity
    assert sum(running(world)) == 4


def test_a_limit_that_is_taken_away_while_jobs_wait_lets_them_all_start() -> None:
    world = world_with(LimitKind.MUTEX, 1)
    for number in range(9):
        world.create(number)
    turns(world)
    assert sum(running(world)) == 1
    world.set_limit(LimitKind.MUTEX, None)
    turns(world)
    assert running(world) == [3, 3, 3]
    assert not any(key.startswith("queue_limit:") for one in world.partitions for key in one.state)


def test_no_job_starts_before_all_lanes_have_heard_of_the_limit() -> None:
    world = QueueLimitsWorld()
    for lane in SHARDS:
        world.announce(lane, 20)
    world.set_limit(LimitKind.SEMAPHORE, 2)
    world.turn(OWNER, 1000, 1000)
    world.create(SHARDS.index(OWNER))
    world.turn(OWNER, 1000, 1000)
    assert sum(running(world)) == 0
    turns(world)
    assert sum(running(world)) == 1


def test_units_that_no_worker_of_a_lane_could_use_are_not_kept_from_the_others() -> None:
    world = world_with(LimitKind.SEMAPHORE, 2, slots=1)
    for _ in range(4):
        world.create(1)
    world.create(2)
    turns(world)
    assert running(world) == [0, 1, 1]


def test_a_rate_is_one_for_all_lanes() -> None:
    world = world_with(LimitKind.SLIDING_WINDOW, 3, 1.0)
    for number in range(30):
        world.create(number)
    for _ in range(400):
        turns(world, 1)
        world.now_ms += 10
    starts = [number for numbers in world.starts_under.values() for number in numbers]
    assert 12 <= len(starts) <= 15
    world.check_rates()


def test_a_queue_that_gets_more_lanes_has_its_limit_in_all_of_them() -> None:
    world = world_with(LimitKind.SEMAPHORE, 2)
    for lane in SHARDS:
        known = world.partitions[lane].state
        known.pop("queue_limit:wide/owner", None)
        if lane == OWNER:  # as it was when the queue lived there only
            known["queue_limit:wide"] = write_state(QueueLimit(LimitKind.SEMAPHORE, 2, 0)) or b""
        else:
            known.pop("queue_limit:wide", None)
        world.take_over(lane)
    world.known.clear()
    turns(world)
    for number in range(12):
        world.create(number)
    turns(world)
    assert sum(running(world)) == 2


@pytest.mark.parametrize("lane", SHARDS)
def test_a_lane_that_goes_on_without_reports_that_were_lost_joins_anew(lane: int) -> None:
    world = world_with(LimitKind.SEMAPHORE, 2)
    for number in range(12):
        world.create(number)
    world.set_limit(LimitKind.SEMAPHORE, 3)
    world.turn(OWNER, 1000, 1000)
    if lane == OWNER:  # what is lost are the answers, and not what they answer
        turns(world, 1)
    partition = world.partitions[lane]
    assert partition.read_reports < len(partition.reports)
    partition.read_reports = len(partition.reports)
    world.lanes[lane] = Lane(lane, LANES, RULES)
    for key, value in partition.state.items():
        world.lanes[lane].load(key, read_state(key, value), world.now_ms)
    world.lanes[lane].reports_lost()
    world.lanes[lane].loaded(world.now_ms)
    world.finish()
    world.settled()
    assert all(job.state in FINAL_STATES for job in world.folds.values())


def test_an_owner_whose_record_is_lost_lets_all_lanes_join_anew() -> None:
    world = world_with(LimitKind.SLIDING_WINDOW, 3, 1.0)
    for number in range(12):
        world.create(number)
    turns(world)
    assert sum(running(world)) == 3
    del world.partitions[OWNER].state["queue_limit:wide/owner"]
    world.take_over(OWNER)
    world.finish()
    world.settled()
    world.check_rates()
