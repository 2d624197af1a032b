from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.streams.contract.timestamps import EPOCH, format_time, parse_time_ms, time_ms

#: The first and the last millisecond of the years that are written with four digits.
FIRST, LAST = -30_610_224_000_000, 253_402_300_799_999


@pytest.mark.parametrize(
    ("unix_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_732_376_311_120, "2024-11-23T15:38:31.120Z"),
        (FIRST, "1000-01-01T00:00:00.000Z"),
        (LAST, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_is_written_as_rfc_3339_in_utc_with_milliseconds(unix_ms: int, text: str) -> None:
    assert format_time(unix_ms) == text
    assert parse_time_ms(text) == unix_ms


@given(st.integers(FIRST, LAST))
def test_a_time_comes_back_as_it_was(unix_ms: int) -> None:
    assert parse_time_ms(format_time(unix_ms)) == unix_ms


@given(st.integers(FIRST, LAST), st.integers(FIRST, LAST))
def test_written_times_sort_as_they_follow(one: int, other: int) -> None:
    assert (format_time(one) < format_time(other)) is (one < other)


@given(st.datetimes(timezones=st.just(UTC)))
def test_milliseconds_are_never_ahead_of_the_instant(instant: datetime) -> None:
    assert timedelta(0) <= instant - (EPOCH + timedelta(milliseconds=time_ms(instant))) < timedelta(milliseconds=1)


def test_the_zone_of_an_instant_does_not_matter() -> None:
    there = datetime(2024, 11, 23, 17, 38, 31, 120_999, tzinfo=timezone(timedelta(hours=2)))
    assert time_ms(there) == 1_732_376_311_120
    assert parse_time_ms("2024-11-23T17:38:31.120999+02:00") == 1_732_376_311_120
