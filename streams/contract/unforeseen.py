"""An exception that nobody foresaw, as a reason that can be written: into a dead letter, an event or a row."""

from traceback import format_exception, format_exception_only
from typing import Final

from joblog.streams.errors import InternalError

REASON_CHARACTERS_MAX: Final = 500
DETAILS_CHARACTERS_MAX: Final = 2_000


def internal_error(error: Exception) -> InternalError:
    """The error as two texts: `reason` is one line, `details` the end of the traceback, which says where it was."""
    line = " ".join("".join(format_exception_only(error)).split())
    return InternalError(
        _writable(line[:REASON_CHARACTERS_MAX]), _writable("".join(format_exception(error))[-DETAILS_CHARACTERS_MAX:])
    )


def _writable(text: str) -> str:
    """Without lone surrogates, which no encoder takes, and NUL, which Postgres does not."""
    return text.encode(errors="replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")
