"""Whoever takes a lane over, and when, decides as the one before would have."""

import pytest

from tests.support.twin_life import TwinLife

STEPS = 1_500
COMPARED_EACH = 25


@pytest.mark.parametrize("seed", range(10))
def test_jobs_and_batches_fare_the_same_whether_lanes_stay_or_are_taken_over_all_the_time(seed: int) -> None:
    life = TwinLife(seed)
    for number in range(STEPS):
        life.step()
        if number % COMPARED_EACH == 0:
            life.read_all()
            assert life.world.differences() == {}
    assert len(life.world.history) > 50
