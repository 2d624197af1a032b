"""What a question to the projection may ask for; free of Postgres, so that a command line can check first."""

from typing import Final

from joblog.streams.errors import JoblogError

#: Items on a page at most.
LIMIT_MAX: Final = 500


class InvalidQuestion(JoblogError, ValueError):
    """A filter, limit or cursor that makes no sense; the message says which."""


def checked_limit(limit: int) -> int:
    """The number of items on a page, if it may be one."""
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidQuestion(f"limit must be 1 to {LIMIT_MAX}, not {limit}")
    return limit
