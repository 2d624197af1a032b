"""Where in the log somebody means: an offset, an instant, or so long ago."""

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

from joblog.streams.errors import InvalidData
from joblog.streams.kafka.scan import TopicReader

_AGO: Final = re.compile(r"-(\d+(?:\.\d+)?)(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

#: An offset, or an instant.
Place = int | datetime


def parse_place(text: str, now: datetime) -> Place:
    """`4711` is an offset, `-1h` an hour ago, anything else an ISO 8601 time, in UTC if it has no zone."""
    if text.isdecimal():
        return int(text)
    try:
        if found := _AGO.fullmatch(text.strip()):
            return now - timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
        instant = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise InvalidData(f"{text!r} is no place: write an offset, 2027-01-31T15:00:00Z, or -1h") from error
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def offsets_of(reader: TopicReader, lanes: Collection[int], place: Place) -> dict[int, int]:
    """The offset in each lane of a place; of an instant, what was written up to and with it lies before."""
    if isinstance(place, datetime):
        return reader.offsets_at(list(lanes), place)
    if len(lanes) > 1:
        raise InvalidData(f"an offset ({place}) belongs to one lane: say which one with --lane, or give a time")
    bounds = reader.bounds(list(lanes))
    return {lane: min(max(place, one.start), one.stop) for lane, one in bounds.items()}
