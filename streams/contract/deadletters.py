"""Dead letters: records that no role could process, as they came, with headers that say why."""

from traceback import format_exception, format_exception_only
from typing import Final

from joblog.streams.contract.record_headers import Headers, size_of
from joblog.streams.errors import InternalError

#: A dead letter must fit into a record: the clients send 2,000,000 bytes at most (kafka/clients.py).
VALUE_BYTES_MAX: Final = 1_800_000
KEY_BYTES_MAX: Final = 100_000
HEADERS_BYTES_MAX: Final = 64_000
REASON_CHARACTERS_MAX: Final = 2_000
#: Of an exception that nobody foresaw: its own line, and the end of its traceback.
LINE_CHARACTERS_MAX: Final = 500
TRACEBACK_CHARACTERS_MAX: Final = 2_000


def headers(
    reason_code: str,
    reason: str,
    role: str,
    topic: str,
    partition: int,
    offset: int,
    extra: Headers | None = None,
) -> Headers:
    """Headers that say why (`reason_code`: one word; `reason`: one line), who gave up, and where it was.

    The record's own headers (`extra`) follow as they were, as far as they fit into `HEADERS_BYTES_MAX`.
    """
    ours = {
        "joblog-reason-code": reason_code,
        "joblog-reason": reason[:REASON_CHARACTERS_MAX],
        "joblog-role": role,
        "joblog-topic": topic,
        "joblog-partition": str(partition),
        "joblog-offset": str(offset),
    }
    made: Headers = [(name, text.encode(errors="replace")) for name, text in ours.items()]
    return made + _fitting(extra or [])


def value(raw: bytes | None) -> bytes | None:
    """The record's value as it came, cut after `VALUE_BYTES_MAX`; the headers say where the whole one is."""
    return raw if raw is None else raw[:VALUE_BYTES_MAX]


def key(raw: bytes | None) -> bytes | None:
    """The record's key as it came, cut after `KEY_BYTES_MAX`."""
    return raw if raw is None else raw[:KEY_BYTES_MAX]


def _fitting(own: Headers) -> Headers:
    size = 0
    for index, one in enumerate(own):
        size += size_of([one])
        if size > HEADERS_BYTES_MAX:
            return own[:index]
    return own


def internal_error(error: Exception) -> InternalError:
    """The error as two texts: `reason` is one line, `details` the end of the traceback, which says where it was."""
    line = " ".join("".join(format_exception_only(error)).split())
    return InternalError(
        _writable(line[:LINE_CHARACTERS_MAX]), _writable("".join(format_exception(error))[-TRACEBACK_CHARACTERS_MAX:])
    )


def _writable(text: str) -> str:
    """Without lone surrogates, which no encoder takes, and NUL, which Postgres does not."""
    return text.encode(errors="replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")
