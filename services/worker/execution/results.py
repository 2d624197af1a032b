"""How a run ended, within the limits of the contract: what its task returned or raised, as a report can carry it."""

import inspect
import json
import re
import sys
import traceback
from collections.abc import Coroutine
from itertools import accumulate
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final, TypeAlias

import msgspec
from joblog.streams.contract.cloudevents import DEPTH_MAX, DIGITS_MAX
from joblog.streams.contract.wire import NO_RAW, JobException
from joblog.streams.errors import TaskError
from msgspec import Raw
from pydantic_core import to_json

REASON_CHARS_MAX: Final = 500
#: Deeper results are left out: the elector would refuse their report, which is a level itself.
LEVELS_MAX: Final = DEPTH_MAX - 1

# \u0000, unless its backslash is itself escaped. Postgres can keep it neither in text nor in jsonb.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
# Possibly numbers that not every JSON parser can read, or parts of strings.
_NOT_FINITE: Final = re.compile(rb"NaN|Infinity")
_LONG: Final = re.compile(rb"(?<!\d)\d{%d}" % (DIGITS_MAX + 1))
# A bracket, or a string, in which brackets are text.
_BRACKET: Final = re.compile(rb'[][{}]|"[^"\\]*(?:\\.[^"\\]*)*"')
_STEPS: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


class Succeeded(msgspec.Struct, frozen=True, tag="succeeded"):
    """The task returned; `result` is its JSON, unless `omitted` says why it is left out."""

    result: Raw
    omitted: str | None = None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The task raised, ran too long, or could not be called."""

    exception: JobException


class Released(msgspec.Struct, frozen=True, tag="released"):
    """The job goes back without an outcome; that does not count as a failure."""

    reason: str


Outcome: TypeAlias = Succeeded | Failed | Released

_NOTHING: Final = Succeeded(NO_RAW)


class NeverAwaited(TaskError):
    """A task returned an awaitable, which nothing awaits: its work was not done."""


class _OddNumberError(ValueError):
    """A number cannot be read everywhere; the text says why."""


def success_of(value: object, result_bytes_max: int) -> Succeeded:
    """The outcome of a run whose task returned this; NeverAwaited if that has to be awaited.

    A generator is run to its end here: what it raises is raised, since its work is that of the task.
    """
    if value is None:
        return _NOTHING
    if inspect.isawaitable(value) or isinstance(value, AsyncGeneratorType):
        if isinstance(value, Coroutine):
            value.close()
        raise NeverAwaited(
            "the task returned an awaitable: make the decorated function async, or put @task on the async function"
        )
    if isinstance(value, GeneratorType):
        value = list(value)
    return Succeeded(*write_result(value, result_bytes_max))


def write_result(value: object, bytes_max: int) -> tuple[Raw, str | None]:
    """The result as JSON and None, or no result and why it is left out. Never raises an Exception."""
    if value is None:
        return NO_RAW, None
    try:
        data = to_json(value, inf_nan_mode="constants", fallback=msgspec.to_builtins)
    except Exception as exc:  # noqa: BLE001 - the value's own serializers may raise anything
        return NO_RAW, f"the result cannot be written as JSON: {keepable(text_of(exc))[:REASON_CHARS_MAX]}"
    if len(data) > bytes_max:
        return NO_RAW, f"the result has {len(data)} bytes of JSON, more than the {bytes_max} allowed"
    flaw = _nul(data) or _odd_number(data) or _depth(data)
    return (Raw(data), None) if flaw is None else (NO_RAW, flaw)


def _nul(data: bytes) -> str | None:
    return "the result holds a NUL character, which Postgres cannot keep" if _NUL.search(data) else None


def _odd_number(data: bytes) -> str | None:
    if _NOT_FINITE.search(data) or (len(data) > DIGITS_MAX and _LONG.search(data)):
        try:
            json.loads(data, parse_constant=_refuse, parse_int=_refuse_long)
        except _OddNumberError as exc:
            return str(exc)
    return None


def _refuse(_word: str) -> Any:
    raise _OddNumberError("the result holds NaN or Infinity, which JSON does not know")


def _refuse_long(number: str) -> None:
    if len(number.removeprefix("-")) > DIGITS_MAX:
        raise _OddNumberError(f"the result holds an integer of more than {DIGITS_MAX} digits")


def _depth(data: bytes) -> str | None:
    if data.count(b"[") + data.count(b"{") <= LEVELS_MAX:
        return None
    levels = max(accumulate(_STEPS.get(found[0], 0) for found in _BRACKET.finditer(data)))
    return f"the result is nested deeper than {LEVELS_MAX} levels" if levels > LEVELS_MAX else None


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
        message=first_bytes(text_of(error), MESSAGE_BYTES_MAX),
        details=last_lines("".join(traceback.format_exception(type(error), error, trace))),
        types=types[:_TYPES_MAX],
    )


def type_name(kind: type) -> str:
    """`ValueError` for a built-in, otherwise with its module: `package.module.Class`."""
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return keepable(name)[:_NAME_CHARS_MAX]


def text_of(error: BaseException) -> str:
    """The text of an exception, even if its own `__str__` fails."""
    try:
        return str(error)
    except BaseException as exc:  # noqa: BLE001 - a task's exception may do anything in __str__
        return f"<no text: its __str__ raised {type_name(type(exc))}>"


def stack_of(thread: int) -> str:
    """The stack of a thread, for a run that timed out; empty if the thread has just ended."""
    frame = sys._current_frames().get(thread)
    return last_lines("".join(traceback.format_stack(frame))) if frame is not None else ""


def last_lines(text: str) -> str:
    """The end of a traceback, where its cause is: its last lines, and bytes, up to the limits."""
    lines = text.splitlines(keepends=True)
    kept = "".join(lines[-DETAILS_LINES_MAX:])
    data = keepable(kept).encode()
    if len(data) > DETAILS_BYTES_MAX:
        data = data[-DETAILS_BYTES_MAX:]
    return data.decode(errors="ignore")


def keepable(text: str) -> str:
    """The text with U+FFFD for each NUL and lone surrogate."""
    return _UNKEEPABLE.sub("\ufffd", text)


def first_bytes(text: str, bytes_max: int) -> str:
    """The beginning of a text, as it can be kept, in UTF-8 of at most so many bytes."""
    return keepable(text[:bytes_max]).encode()[:bytes_max].decode(errors="ignore")
