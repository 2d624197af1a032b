"""From an exception to the JobException of a report, within the bounds of the contract."""

import re
import sys
import traceback
from typing import Final

from joblog.streams.contract.wire import JobException

MESSAGE_BYTES_MAX: Final = 10_000
DETAILS_BYTES_MAX: Final = 65_536
DETAILS_LINES_MAX: Final = 100
_NAME_CHARS_MAX: Final = 1_000
_TYPES_MAX: Final = 50
# Postgres keeps neither NUL nor half a surrogate pair.
_UNKEEPABLE: Final = re.compile("[\0\ud800-\udfff]")


def describe(error: BaseException, *, frames_skipped: int = 0) -> JobException:
    """Type, bases, text and traceback of an exception, without its first `frames_skipped` frames."""
    types = tuple(type_name(base) for base in type(error).__mro__ if base is not object)
    trace = error.__traceback__
    for _ in range(frames_skipped):
        trace = trace.tb_next if trace is not None and trace.tb_next is not None else trace
    return JobException(
        type=types[0],
        message=_first_bytes(text_of(error), MESSAGE_BYTES_MAX),
        details=last_lines("".join(traceback.format_exception(type(error), error, trace))),
        types=types[:_TYPES_MAX],
    )


def type_name(kind: type) -> str:
    """`ValueError` for a built-in, otherwise with its module: `package.module.Class`."""
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return keepable(name)[:_NAME_CHARS_MAX]


def text_of(error: BaseException) -> str:
    """What the exception says, even if its own `__str__` fails."""
    try:
        return str(error)
    except Exception as exc:  # noqa: BLE001 - a task's exception may do anything in __str__
        return f"<no text: its __str__ raised {type_name(type(exc))}>"


def stack_of(thread: int) -> str:
    """Where a thread is now, for a run that did not come back; empty if it just ended."""
    frame = sys._current_frames().get(thread)
    return last_lines("".join(traceback.format_stack(frame))) if frame is not None else ""


def last_lines(text: str) -> str:
    """The end of a text, at most so many lines and bytes, where the cause of a traceback stands."""
    lines = text.splitlines(keepends=True)
    kept = "".join(lines[-DETAILS_LINES_MAX:])
    data = keepable(kept).encode()
    if len(data) > DETAILS_BYTES_MAX:
        data = data[-DETAILS_BYTES_MAX:]
    return data.decode(errors="ignore")


def keepable(text: str) -> str:
    """The text with U+FFFD for each NUL and lone surrogate."""
    return _UNKEEPABLE.sub("\ufffd", text)


def _first_bytes(text: str, bytes_max: int) -> str:
    return keepable(text[:bytes_max]).encode()[:bytes_max].decode(errors="ignore")
