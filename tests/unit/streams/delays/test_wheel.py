import pytest
from joblog.streams.contract.topics import DELAY_TIERS, WAITS_MS, tier_for
from joblog.streams.delays.wheel import HOP_MS_MIN, NOW_MS_MAX, OPEN_FACTOR, Held, Shelf, leaves_ms

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("remaining_ms", "tier"),
    [
        (-DAY, "now"),
        (0, "now"),
        (MINUTE - 1, "now"),
        (MINUTE, "1m"),
        (10 * MINUTE - 1, "1m"),
        (10 * MINUTE, "10m"),
        (HOUR - 1, "10m"),
        (HOUR, "1h"),
        (6 * HOUR, "6h"),
        (DAY, "1d"),
        (7 * DAY - 1, "1d"),
        (7 * DAY, "7d"),
        (36_500 * DAY, "7d"),
        (MINUTE - 0.5, "now"),
    ],
)
def test_a_timer_goes_to_the_longest_tier_that_does_not_wait_too_long(remaining_ms: float, tier: str) -> None:
    assert tier_for(remaining_ms) == tier


def test_every_tier_is_somebodys() -> None:
    assert {tier_for(wait_ms) for wait_ms in WAITS_MS.values()} == DELAY_TIERS.keys()


def test_a_timer_of_the_last_minute_leaves_when_it_is_due() -> None:
    assert leaves_ms("now", NOW + 59 * SECOND, NOW - SECOND, NOW) == NOW + 59 * SECOND
    assert leaves_ms("now", NOW - DAY, NOW - SECOND, NOW) == NOW - DAY


def test_a_timer_that_does_not_belong_into_the_last_minute_leaves_at_once() -> None:
    assert leaves_ms("now", NOW + NOW_MS_MAX, NOW, NOW) == NOW + NOW_MS_MAX
    assert leaves_ms("now", NOW + DAY, NOW, NOW) == NOW
    assert tier_for(NOW_MS_MAX) != "now"


def test_a_waiting_timer_leaves_after_the_wait_of_its_tier() -> None:
    assert leaves_ms("10m", NOW + HOUR, NOW - 2 * SECOND, NOW) == NOW - 2 * SECOND + 10 * MINUTE


def test_a_waiting_timer_that_is_due_earlier_does_not_wait_for_its_tier() -> None:
    assert leaves_ms("10m", NOW + MINUTE, NOW, NOW) == NOW + MINUTE
    assert leaves_ms("10m", NOW - MINUTE, NOW, NOW) == NOW - MINUTE


def test_a_timer_does_not_go_round_faster_when_the_clock_of_the_broker_is_behind() -> None:
    assert leaves_ms("1m", NOW + 9 * MINUTE, NOW - HOUR, NOW) == NOW + HOP_MS_MIN


def test_a_shelf_gives_records_in_the_order_in_which_they_leave_and_none_before_its_time() -> None:
    shelf = Shelf[str](10)
    shelf.add(5, NOW + 2, "later")
    shelf.add(6, NOW, "now")
    shelf.add(7, NOW, "now too")
    assert shelf.next_ms == NOW
    assert shelf.take(NOW - 1) is None
    assert [shelf.take(NOW), shelf.take(NOW), shelf.take(NOW)] == [
        Held(NOW, 6, "now"),
        Held(NOW, 7, "now too"),
        None,
    ]
    assert shelf.take(NOW + 2) == Held(NOW + 2, 5, "later")
    assert shelf.next_ms is None


def test_the_position_is_the_lowest_offset_that_is_not_done() -> None:
    shelf = Shelf[str](10)
    assert shelf.position is None
    for offset in (5, 6, 9):
        shelf.add(offset, NOW, "")
    assert shelf.position == 5
    shelf.done(6)
    assert shelf.position == 5
    shelf.done(5)
    assert shelf.position == 9
    shelf.done(9)
    assert shelf.position == 10


def test_a_record_that_was_taken_holds_the_position_until_it_is_done() -> None:
    shelf = Shelf[str](10)
    shelf.add(5, NOW, "")
    assert shelf.take(NOW) is not None
    assert (len(shelf), shelf.position) == (0, 5)


def test_a_record_that_was_put_back_is_taken_again() -> None:
    shelf = Shelf[str](10)
    shelf.add(5, NOW, "again")
    held = shelf.take(NOW)
    assert held is not None
    shelf.put_back(held, NOW + 500)
    assert shelf.take(NOW + 499) is None
    assert shelf.take(NOW + 500) == Held(NOW + 500, 5, "again")
    assert shelf.position == 5


def test_a_shelf_is_full_at_its_capacity_and_has_room_at_half_of_it() -> None:
    shelf = Shelf[str](4)
    seen = []
    for offset in range(5):
        shelf.add(offset, NOW, "")
        seen.append((shelf.is_full, shelf.has_room))
    assert seen == [(False, True), (False, True), (False, False), (True, False), (True, False)]
    for _ in range(3):
        shelf.take(NOW)
    assert (shelf.is_full, shelf.has_room) == (False, True)


def test_a_shelf_is_full_when_too_much_is_done_behind_a_record_that_is_not() -> None:
    shelf = Shelf[str](4)
    shelf.add(0, NOW + MINUTE, "slow")
    seen = []
    for offset in range(1, 4 * OPEN_FACTOR):
        shelf.add(offset, NOW, "")
        shelf.take(NOW)
        shelf.done(offset)
        seen.append(shelf.is_full)
    assert seen == [False] * (4 * OPEN_FACTOR - 2) + [True]
    assert not shelf.has_room
    shelf.take(NOW + MINUTE)
    shelf.done(0)
    assert (shelf.is_full, shelf.has_room, shelf.position) == (False, True, 4 * OPEN_FACTOR)
