"""Whatever happens to jobs and lanes, no limit is exceeded in any prefix of the log, and nothing waits for ever."""

from random import Random

import pytest
from joblog.streams.contract.relations import LimitKind
from joblog.streams.contract.states import FINAL_STATES
from joblog.streams.contract.wire import Limit

from tests.support.lane_world import LANES
from tests.support.limits_world import LimitsWorld, chaos

LIMITS = (
    *(Limit(LimitKind.MUTEX, f"m{n}") for n in range(4)),
    Limit(LimitKind.SEMAPHORE, "s1", 3),
    Limit(LimitKind.SEMAPHORE, "s2", 2),
    Limit(LimitKind.SLIDING_WINDOW, "r1", 3, 1.0),
    Limit(LimitKind.SLIDING_WINDOW, "r2", 1, 0.2),
    Limit(LimitKind.FIXED_WINDOW, "f", 2, 0.5),
    Limit(LimitKind.TOKEN_BUCKET, "b", 3, 1.0),
)


@pytest.mark.parametrize("seed", range(8))
def test_no_limit_is_exceeded_and_nothing_waits_for_ever(seed: int) -> None:
    random = Random(seed)
    skews = (0, 0, 0) if seed % 2 else (0, random.choice((-900, 900)), random.choice((-5_000, 5_000)))
    world = LimitsWorld(LIMITS, skews)
    chaos(world, random, 2_500)
    world.finish()
    world.check_rates()
    assert all(job.state in FINAL_STATES for job in world.folds.values())
    assert not any(world.held.values())
    for lane in range(LANES):
        feature = world.feature(lane)
        assert not feature.claims
        assert not feature.elsewhere
        assert not [one for one, shared in feature.owner.limits() if shared.entries]
