"""Reports on limits that no lane has written, or that come twice: none makes a lane fail."""

from random import Random

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.relations import LimitKind
from joblog.streams.contract.states import State

from tests.support.lane_world import LANES, NOW, WIDE
from tests.support.limits_world import LimitsWorld, chaos
from tests.support.queue_limits_world import QueueLimitsWorld
from tests.support.queue_limits_world import chaos as chaos_of_queues
from tests.unit.streams.lane.limits.test_properties import LIMITS


class Forged(LimitsWorld):
    """A world that does not look at limits: what is forged may break them."""

    def _read(self, job_id: str, state: State, at_ms: int) -> None:
        pass


def forged(random: Random, world: LimitsWorld) -> wire.AnyReport:
    lane = random.randrange(LANES)
    known = [*world.limits_of, new_job_id(lane, NOW, 999)]
    job_id, limit = random.choice(known), random.choice(LIMITS)
    named = {"job_id": job_id, "kind": limit.kind, "key": limit.key}
    asked = {"epoch": random.randrange(3), "ask": random.randrange(50)}
    return random.choice(
        [
            wire.LimitAsked(job_id=job_id, limit=limit, priority=0, created_ms=0, **asked),
            wire.LimitStarted(job_id=job_id, limit=limit, at_ms=world.now_ms + random.choice((0, 10**9))),
            wire.LimitReleased(**named),
            wire.LimitGranted(**named, **asked, from_ms=world.now_ms),
            wire.LimitWaits(**named, **asked, waits_for="?"),
            wire.LimitsForgotten(lane=lane),
            wire.LimitsRebuilt(lane=lane, rebuild=1),
        ]
    )


class ForgedShares(QueueLimitsWorld):
    """The same of the limit of a queue."""

    def _started(self, lane: int, at_ms: int) -> None:
        pass

    def _read(self, job_id: str, state: State, at_ms: int) -> None:
        pass


def forged_share(random: Random, world: ForgedShares, lane: int) -> wire.AnyReport:
    gate = world.gate(lane)
    number = random.choice((0, 7, gate.share.number if gate is not None else 1))
    here = {"queue": WIDE, "number": number}
    return random.choice(
        [
            wire.QueueLimitTold(**here, kind=LimitKind.SEMAPHORE, capacity=random.choice((None, 2))),
            wire.QueueLimitTold(**here, kind=LimitKind.FIXED_WINDOW, capacity=2, interval_ms=100, changed=True),
            wire.QueueLimitJoined(**here, lane=random.randrange(LANES), running=random.choice((0, 2))),
            wire.QueueLimitUsed(
                **here, lane=random.randrange(LANES), returned=2, used=(5, 6), at_ms=7, unused=(8, 0), more=3
            ),
            wire.QueueLimitGiven(**here, times=(0, 1), others_wait=True),
        ]
    )


@pytest.mark.parametrize("seed", range(2))
def test_no_report_on_the_limits_of_queues_makes_a_lane_fail(seed: int) -> None:
    random = Random(seed)
    world = ForgedShares()
    for _ in range(60):
        chaos_of_queues(world, random, 10)
        for lane in range(LANES):
            world.report(lane, forged_share(random, world, lane))
            reports = world.partitions[lane].reports
            reports.append(random.choice(reports))
    world.check()


@pytest.mark.parametrize("seed", range(3))
def test_no_report_on_limits_makes_a_lane_fail(seed: int) -> None:
    random = Random(seed)
    world = Forged(LIMITS)
    for _ in range(150):
        chaos(world, random, 10)
        for lane in range(LANES):
            world.report(lane, forged(random, world))
            reports = world.partitions[lane].reports
            reports.append(random.choice(reports))
    world.check()
