"""How much of their time the processes of a rebuild work."""

import pytest
from joblog.projections.replay.rebuild.share import BESIDE, LATE, LOOKS, MORE, REST_MAX_S, Share, rest_s

AT_REST = {0: (100, 1.0), 1: (100, 2.0)}


def test_all_of_the_time_is_taken_while_nothing_arrives() -> None:
    share = Share()
    assert share.now({0: 100, 1: 100}, AT_REST, 0) == 1.0
    assert share.now({0: 101, 1: 100}, AT_REST, 0) == 1.0


def test_a_part_of_the_time_while_events_arrive() -> None:
    share = Share()
    share.now({0: 100, 1: 100}, AT_REST, 0)
    assert share.now({0: 1_000, 1: 100}, {0: (900, 0.2), 1: (100, 1.0)}, 0) == BESIDE
    assert share.now({0: 1_000, 1: 100}, {0: (1_000, 0.2), 1: (100, 1.0)}, 0) == 1.0


def test_hardly_any_while_the_live_tables_fall_behind() -> None:
    share = Share()
    share.now({0: 10_000, 1: 100}, {0: (100, 9.0), 1: (100, 1.0)}, 0)
    assert share.now({0: 20_000, 1: 100}, {0: (900, 9.5), 1: (100, 1.0)}, 0) == LATE


def test_tables_that_nobody_moves_are_not_waited_for() -> None:
    """A rebuild may be what is done while the projector is stopped."""
    share = Share()
    for _ in range(3):
        assert share.now({0: 10_000, 1: 100}, {0: (100, 900.0), 1: (100, None)}, 0) == 1.0


def test_the_part_can_be_set() -> None:
    share = Share(0.05)
    share.now({0: 0}, {}, 0)
    assert share.now({0: 1_000}, {}, 0) == 0.05


@pytest.mark.parametrize(
    ("share", "rate", "rest"),
    [
        (1.0, None, 0.0),
        (0.5, None, 0.2),
        (0.1, None, 1.8),
        (0.01, None, REST_MAX_S),
        (1.0, 1_000, 0.8),
        (0.1, 1_000, 1.8),
    ],
)
def test_a_process_rests_for_its_share_or_its_rate_whichever_is_longer(
    share: float, rate: float | None, rest: float
) -> None:
    assert rest_s(1_000, 0.2, share, rate) == pytest.approx(rest)


def test_a_rate_is_kept_however_low_it_is() -> None:
    assert rest_s(100, 0.0, 0.5, 1.0) == 100.0


def test_a_part_that_does_not_catch_up_becomes_larger_and_one_that_does_stays() -> None:
    slow, fast = Share(0.2), Share(0.2)
    for look in range(2 * LOOKS + 1):
        end = {0: 10_000 + 1_000 * look}
        after_slow = slow.now(end, {0: (end[0], 0.1)}, done=900 * look)
        after_fast = fast.now(end, {0: (end[0], 0.1)}, done=1_100 * look)
    assert after_slow == pytest.approx(0.2 * MORE**2)
    assert after_fast == 0.2
