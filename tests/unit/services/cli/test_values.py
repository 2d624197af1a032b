from datetime import UTC, datetime, timedelta, timezone

import pytest
from joblog.services.cli.values import NotJson, given, parse_delay, parse_instant, parse_json
from joblog.streams.errors import InvalidData


@pytest.mark.parametrize(
    ("text", "delay"),
    [
        ("90", timedelta(seconds=90)),
        ("90s", timedelta(seconds=90)),
        ("250ms", timedelta(milliseconds=250)),
        ("1.5h", timedelta(minutes=90)),
        (" 2 d ", timedelta(days=2)),
        ("0", timedelta(0)),
    ],
)
def test_delays(text: str, delay: timedelta) -> None:
    assert parse_delay(text) == delay


@pytest.mark.parametrize("text", ["", "-1", "soon", "1y", "1 s 2", "9" * 30 + "d"])
def test_what_is_no_delay(text: str) -> None:
    with pytest.raises(InvalidData):
        parse_delay(text)


def test_instants_without_a_zone_are_in_utc() -> None:
    assert parse_instant("2027-01-31T15:00") == datetime(2027, 1, 31, 15, tzinfo=UTC)
    assert parse_instant("2027-01-31T15:00:00Z") == datetime(2027, 1, 31, 15, tzinfo=UTC)
    assert parse_instant("2027-01-31T15:00+02:00") == datetime(2027, 1, 31, 15, tzinfo=timezone(timedelta(hours=2)))


def test_what_is_no_instant() -> None:
    with pytest.raises(InvalidData, match="2027-01-31"):
        parse_instant("tomorrow")


def test_json_that_is_none_names_what_it_should_be() -> None:
    assert parse_json('{"a": [1, null]}', "--kwargs") == {"a": [1, None]}
    with pytest.raises(InvalidData, match="--kwargs"):
        parse_json("{a: 1}", "--kwargs")


def test_json_that_is_too_deep_is_told_apart_from_text() -> None:
    with pytest.raises(InvalidData, match="nested too deeply") as told:
        parse_json("[" * 5_000, "argument")
    assert not isinstance(told.value, NotJson)


def test_given_leaves_out_what_is_not() -> None:
    assert given(a=0, b=None, c="") == {"a": 0, "c": ""}
