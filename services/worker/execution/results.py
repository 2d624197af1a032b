"""From what a task returned to the JSON of its result, or the reason why there is none."""

import inspect
import json
import re
from collections.abc import Coroutine
from itertools import accumulate
from typing import Any, Final

import msgspec
from joblog.services.worker.execution.failures import keepable, text_of
from joblog.services.worker.execution.run import Succeeded
from joblog.streams.contract.cloudevents import DEPTH_MAX, DIGITS_MAX
from joblog.streams.contract.wire import NO_RAW
from joblog.streams.errors import TaskError
from msgspec import Raw
from pydantic_core import to_json

REASON_CHARS_MAX: Final = 500
#: Deeper results are left out: the elector would refuse their report, which is a level itself.
LEVELS_MAX: Final = DEPTH_MAX - 1

# \u0000, unless its backslash is itself escaped. Postgres can keep it neither in text nor in jsonb.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
# What may be numbers that not everybody can read, or parts of strings.
_NOT_FINITE: Final = re.compile(rb"NaN|Infinity")
_LONG: Final = re.compile(rb"(?<!\d)\d{%d}" % (DIGITS_MAX + 1))
# A bracket, or a string, in which brackets are text.
_BRACKET: Final = re.compile(rb'[][{}]|"[^"\\]*(?:\\.[^"\\]*)*"')
_STEPS: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


_NOTHING: Final = Succeeded(NO_RAW)


class NeverAwaited(TaskError):
    """A task returned an awaitable, which nobody awaits: what it stands for did not happen."""


class _OddNumberError(ValueError):
    """A number cannot be read everywhere; the text says why."""


def success_of(value: object, result_bytes_max: int) -> Succeeded:
    """The outcome of a run whose task returned this value; raises NeverAwaited for an awaitable."""
    if value is None:
        return _NOTHING
    if inspect.isawaitable(value):
        if isinstance(value, Coroutine):
            value.close()
        raise NeverAwaited(
            "the task returned an awaitable: make the decorated function async, or put @task on the async function"
        )
    return Succeeded(*write_result(value, result_bytes_max))


def write_result(value: object, bytes_max: int) -> tuple[Raw, str | None]:
    """The result as JSON, and None; or no result, and why it is left out. Never raises an Exception."""
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
