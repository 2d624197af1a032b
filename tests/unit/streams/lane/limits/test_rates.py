"""How much of a rate is reached in the steady state, in the lane that owns it and in others."""

import pytest
from joblog.streams.contract.relations import LimitKind
from joblog.streams.contract.wire import Limit
from joblog.streams.lane.limits.claims import id_of, owner_of
from joblog.streams.lane.limits.rates import SKEW_MS, Bucket, Window

from tests.support.lane_world import LANES
from tests.support.limits_world import LimitsWorld

SECONDS = 10
RATES = [
    Limit(LimitKind.SLIDING_WINDOW, "w", 50, 1.0),
    Limit(LimitKind.SLIDING_WINDOW, "w", 1, 0.1),
    Limit(LimitKind.SLIDING_WINDOW, "many", 300, 2.0),
    Limit(LimitKind.FIXED_WINDOW, "f", 50, 1.0),
    Limit(LimitKind.TOKEN_BUCKET, "b", 20, 1.0),
]


def reached(limit: Limit, lanes: set[int], hop_ms: int) -> float:
    """The share of the rate at which jobs of these lanes start, where a turn takes so long."""
    world = LimitsWorld([limit])
    rate = limit.capacity / (limit.interval_s or 1)
    for lane in lanes:
        for _ in range(round(rate * SECONDS) + limit.capacity):
            world.create(lane, limit)
    began_ms = world.now_ms
    while world.now_ms - began_ms < SECONDS * 1000:
        for lane in range(LANES):
            if (world.now_ms - began_ms) % 1_000 < hop_ms:
                world.announce(lane, 10_000)
            for report in world.running(lane):
                world.report(lane, report)
            world.turn(lane, 10_000, 10_000)
        world.now_ms += hop_ms
    world.check_rates()
    starts = [at_ms for at_ms in world.starts[id_of(limit)] if at_ms - began_ms >= 2_000]
    return len(starts) / (rate * (SECONDS - 2))


@pytest.mark.parametrize("limit", RATES, ids=lambda one: f"{one.kind} {one.capacity}")
def test_a_rate_is_reached_by_jobs_of_the_lane_that_owns_it(limit: Limit) -> None:
    assert reached(limit, {owner_of(id_of(limit), LANES)}, 10) >= (0.85 if limit.interval_s == 0.1 else 0.95)


@pytest.mark.parametrize("limit", [RATES[0], RATES[3], RATES[4]], ids=lambda one: f"{one.kind} {one.capacity}")
def test_a_rate_is_nearly_reached_by_jobs_of_other_lanes(limit: Limit) -> None:
    others = set(range(LANES)) - {owner_of(id_of(limit), LANES)}
    assert reached(limit, others, 20) >= 0.9


def test_a_permit_that_is_not_used_counts_until_its_start() -> None:
    window = Window(LimitKind.SLIDING_WINDOW)
    window.define(2, 1_000)
    assert [window.reserve(5_000), window.reserve(5_000)] == [0, 0]
    assert window.earliest(9_000) is None
    window.started(8_000, True)
    assert window.earliest(8_500) == 9_000
    assert window.reserve(8_500) == 9_000
    assert window.earliest(9_000) is None
    window.given_back(9_000)
    assert window.earliest(8_500) == 9_000


def test_a_fixed_window_begins_at_a_multiple_of_its_interval() -> None:
    window = Window(LimitKind.FIXED_WINDOW)
    window.define(1, 1_000)
    window.reserve(5_990)
    window.started(5_990, True)
    assert window.earliest(5_995) == 6_000


def test_fewer_slots_than_are_taken_have_to_become_free_first() -> None:
    window = Window(LimitKind.SLIDING_WINDOW)
    window.define(3, 1_000)
    for at_ms in (5_000, 5_100, 5_200):
        window.reserve(at_ms)
        window.started(at_ms, True)
    window.define(1, 1_000)
    assert window.earliest(5_300) == 6_200
    window.reserve(5_300)
    window.started(6_200, True)
    assert window.earliest(6_300) == 7_200


def test_a_bucket_is_spent_at_once_and_filled_step_by_step() -> None:
    bucket = Bucket()
    bucket.define(3, 900)
    for from_ms in (0, 5_000, 5_000):
        assert bucket.reserve(5_000) == from_ms
        bucket.started(5_000, True)
    assert bucket.earliest(5_000) == 5_300
    assert bucket.earliest(6_000) == 5_300
    assert bucket.idle_ms() == 5_900 + SKEW_MS


def test_a_rate_goes_on_after_a_clock_that_was_a_day_ahead() -> None:
    day_ms = 86_400_000
    window, bucket = Window(LimitKind.SLIDING_WINDOW), Bucket()
    for one in (window, bucket):
        one.define(1, 1_000)
        one.reserve(day_ms)
        one.started(2 * day_ms, True)
        assert (one.earliest(day_ms) or 0) <= day_ms + 1_000


@pytest.mark.parametrize("kind", [LimitKind.SLIDING_WINDOW, LimitKind.FIXED_WINDOW])
def test_a_record_holds_what_a_window_needs_and_stays_small(kind: LimitKind) -> None:
    window = Window(kind)
    window.define(10_000, 60_000)
    for at_ms in range(10_000):
        window.reserve(at_ms)
        window.started(at_ms, True)
    assert len(window.record()[1]) <= 257
    again = Window(kind, window.record())
    again.define(10_000, 60_000)
    assert again.earliest(20_000) == window.earliest(20_000)
