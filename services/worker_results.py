"""From what a task returned to the JSON of its result, or the reason why there is none."""

import json
import re
from typing import Any, Final

import msgspec
from joblog.services.worker_failures import keepable, text_of
from joblog.streams.wire import NO_RAW
from msgspec import Raw
from pydantic_core import to_json

REASON_CHARS_MAX: Final = 500
_NOT_FINITE: Final = re.compile(rb"NaN|Infinity")
# \u0000, unless its backslash is itself escaped. Postgres can keep it neither in text nor in jsonb.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class _NotFiniteError(ValueError):
    """JSON has no word for this number."""


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
    if _NUL.search(data):
        return NO_RAW, "the result holds a NUL character, which Postgres cannot keep"
    if _NOT_FINITE.search(data) and _holds_not_finite(data):
        return NO_RAW, "the result holds NaN or Infinity, which JSON does not know"
    return Raw(data), None


def _holds_not_finite(data: bytes) -> bool:
    """Whether one of these words stands there as a number, and not in a string."""
    try:
        # Python refuses to read integers of more than 4300 digits; they are finite.
        json.loads(data, parse_constant=_refuse, parse_int=str)
    except _NotFiniteError:
        return True
    return False


def _refuse(word: str) -> Any:
    raise _NotFiniteError(word)
