"""Unix milliseconds to RFC 3339 and back, as the log writes them."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@lru_cache(maxsize=256)  # what is made at once has one time
def format_time(unix_ms: int) -> str:
    """`1732376311120` as `2024-11-23T15:38:31.120Z`."""
    seconds, ms = divmod(unix_ms, 1000)
    return f"{_whole_seconds(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=1024)
def _whole_seconds(seconds: int) -> str:
    return (EPOCH + timedelta(seconds=seconds)).isoformat()[:19]  # strftime writes the year 1 with one digit


def time_ms(instant: datetime) -> int:
    """The unix milliseconds of an instant with a zone."""
    return (instant - EPOCH) // _MILLISECOND


def parse_time_ms(text: str) -> int:
    """The unix milliseconds of an RFC 3339 time."""
    return time_ms(datetime.fromisoformat(text))
