"""Jobs that share limits and keys over several lanes, in random lives with crashes: what the log shows."""

import pytest

from tests.support.relations_life import LIMITS, Life

#: With those of all lives 10^5 steps.
STEPS = 5_000
CHECKED_EACH = 250


@pytest.mark.parametrize("seed", range(20))
def test_no_limit_is_exceeded_and_nothing_is_lost_at_any_prefix_of_the_log(seed: int) -> None:
    life = Life(seed)
    for number in range(STEPS):
        life.step()
        if number % CHECKED_EACH == 0:
            life.world.check()
    life.end()
    assert {limit.kind for limit in LIMITS} <= life.world.audit.counted.keys(), "limits of all kinds were used"
