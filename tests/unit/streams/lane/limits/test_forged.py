"""Reports on limits that no lane has written, or that come twice: none makes a lane fail."""

from random import Random

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.states import State

from tests.support.lane_world import LANES, NOW
from tests.support.limits_world import LimitsWorld, chaos
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
