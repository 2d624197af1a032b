from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblog.streams.contract.recurring import Interval
from joblog.streams.errors import InvalidData
from joblog.streams.recurring.due import latest
from joblog.streams.recurring.schedule import MACROS, Every, between, cron, upcoming

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def local(expression: str, zone: str, after: str, count: int) -> list[str]:
    """The next occurrences in local time, with their offsets."""
    start = datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(zone))
    found = upcoming(cron(expression, zone), start, count)
    return [one.astimezone(ZoneInfo(zone)).isoformat() for one in found]


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # Clocks go forward: a fixed time that does not exist moves to the next one that does, once.
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]),
        ("15,45 2 * * *", BERLIN, "2026-03-28T12:00", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:15:00+02:00"]),
        ("*/30 2 * * *", BERLIN, "2026-03-28T12:00", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]),
        ("0 30 2 * * *", NEW_YORK, "2026-03-07T12:00", ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"]),
        ("15 2 * * *", LORD_HOWE, "2026-10-03T12:00", ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]),
        ("30 2 29 3 *", BERLIN, "2026-03-28T12:00", ["2026-03-29T03:00:00+02:00", "2027-03-29T02:30:00+02:00"]),
        # What comes every hour anyway leaves the hour out that does not exist.
        ("15 * * * *", BERLIN, "2026-03-29T00:30", ["2026-03-29T01:15:00+01:00", "2026-03-29T03:15:00+02:00"]),
        # Clocks go back: fixed times come once, the first time.
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]),
        ("0 30 1 * * *", NEW_YORK, "2026-10-31T12:00", ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-04T12:00", ["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"]),
        # Intervals (stars, ranges, steps) come on both sides.
        ("30 * * * *", BERLIN, "2026-10-25T02:00", ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]),
        ("30 1-2 * * *", BERLIN, "2026-10-25T02:00", ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]),
        ("0 0/30 1 * * *", NEW_YORK, "2026-11-01T01:00", ["2026-11-01T01:30:00-04:00", "2026-11-01T01:00:00-05:00"]),
        ("*/30 * * * *", LORD_HOWE, "2026-04-05T01:15", ["2026-04-05T01:30:00+11:00", "2026-04-05T01:30:00+10:30"]),
        # No change of clocks.
        ("0 12 L * *", "UTC", "2026-02-01T00:00", ["2026-02-28T12:00:00+00:00", "2026-03-31T12:00:00+00:00"]),
        ("0 12 * * 5#2", "UTC", "2026-02-01T00:00", ["2026-02-13T12:00:00+00:00", "2026-03-13T12:00:00+00:00"]),
        ("0 12 ? * MON", "UTC", "2026-02-01T00:00", ["2026-02-02T12:00:00+00:00", "2026-02-09T12:00:00+00:00"]),
        ("0 0 29 2 *", "UTC", "2026-02-01T00:00", ["2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00"]),
        ("@weekly", "UTC", "2026-02-01T00:00", ["2026-02-08T00:00:00+00:00", "2026-02-15T00:00:00+00:00"]),
        ("@every_second", "UTC", "2026-02-01T00:00", ["2026-02-01T00:00:01+00:00", "2026-02-01T00:00:02+00:00"]),
    ],
)
def test_occurrences_are_as_written_here(expression: str, zone: str, after: str, expected: list[str]) -> None:
    assert local(expression, zone, after, len(expected)) == expected


@pytest.mark.parametrize("start_minute", range(0, 180, 7))
def test_the_first_occurrence_does_not_depend_on_where_one_starts_within_a_change_of_clocks(
    start_minute: int,
) -> None:
    start = datetime(2026, 10, 24, 23, 30, tzinfo=UTC) + timedelta(minutes=start_minute)
    whole = list(between(cron("10 2 * * *", BERLIN), datetime(2026, 10, 24, tzinfo=UTC), start + timedelta(days=2)))
    assert cron("10 2 * * *", BERLIN).next_after(start) == next(one for one in whole if one > start)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("61 * * * *", "the minute at position 1, '61', can be 0 to 59"),
        ("0 0 15W * *", "the day of the month at position 5, '15W', uses W"),
        ("0 22-4 * * *", "write 22-23,0-4"),
        ("0 0 * * FOO", "the day of the week at position 9"),
        ("* * *", "has 3 fields"),
        ("0 0 31 2 *", "never comes"),
        ("@nope", "is no macro: write one of @yearly"),
    ],
)
def test_an_expression_that_cannot_be_used_says_where_and_shows_a_valid_one(expression: str, said: str) -> None:
    with pytest.raises(InvalidData) as caught:
        cron(expression)
    assert said in str(caught.value)
    assert "0 2 * * *" in str(caught.value) or "@daily" in str(caught.value)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/New_York"])
def test_nothing_comes_after_the_end_of_the_calendar(zone: str) -> None:
    schedule = cron("0 12 * * *", zone)
    first, end = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    for late in (end, end - timedelta(hours=1), end - timedelta(days=1)):
        assert schedule.next_after(late) is None or schedule.next_after(late) > late  # type: ignore[operator]
    assert schedule.next_after(end) is None
    assert (schedule.next_after(first) or end).year == 1


def test_an_unknown_zone_is_refused_with_an_example() -> None:
    with pytest.raises(InvalidData, match="Europe/Berlin"):
        cron("0 2 * * *", "Mars/Olympus")


def test_an_interval_counts_from_its_anchor_also_when_that_lies_ahead() -> None:
    anchor = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
    every = Every(Interval(every_s=10, anchor=anchor))
    assert every.next_after(anchor - timedelta(days=1)) == anchor
    assert every.next_after(anchor) == anchor + timedelta(seconds=10)
    assert every.next_after(anchor + timedelta(seconds=14)) == anchor + timedelta(seconds=20)


EXPRESSIONS = st.sampled_from(
    ["30 2 * * *", "*/20 * * * *", "0 1-3 * * *", "5,35 1,2 * * *", "*/15 30 1 * * *", "0 */2 * * *", *MACROS]
).filter(lambda one: one != "@every_second")
ZONES = st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, "UTC", "Africa/Casablanca", "Asia/Kathmandu"])
INSTANTS = st.integers(0, 94_000_000).map(
    lambda seconds: datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
HOURS = st.integers(1, 72).map(lambda hours: timedelta(hours=hours))


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS, ZONES, INSTANTS, HOURS, HOURS)
def test_two_windows_have_the_occurrences_of_one_and_these_increase(
    expression: str, zone: str, start: datetime, first: timedelta, second: timedelta
) -> None:
    schedule, middle = cron(expression, zone), start + first
    whole = list(between(schedule, start, middle + second))
    assert whole == list(between(schedule, start, middle)) + list(between(schedule, middle, middle + second))
    assert all(one < other for one, other in pairwise(whole))
    assert latest(schedule, start, middle + second, 5) == whole[-5:]
