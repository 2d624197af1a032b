"""Places in the log as people write them."""

from datetime import UTC, datetime, timedelta

import pytest
from joblog.streams.errors import InvalidData
from joblog.streams.kafka.places import Place, parse_place

NOW = datetime(2027, 1, 31, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("4711", 4711),
        ("-1.5h", NOW - timedelta(minutes=90)),
        (" -2d ", NOW - timedelta(days=2)),
        ("2027-01-31T16:00:00+01:00", NOW),
        ("2027-01-31 15:00", NOW),
    ],
)
def test_an_offset_an_instant_and_so_long_ago_are_places(text: str, place: Place) -> None:
    assert parse_place(text, NOW) == place


@pytest.mark.parametrize("text", ["", "soon", "\u00b2", "-1", "-1y", "-99999999d", f"-{'9' * 400}s"])
def test_all_else_is_none(text: str) -> None:
    with pytest.raises(InvalidData, match="no place"):
        parse_place(text, NOW)
