import asyncio
import json
import math
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.worker.execution.results import LEVELS_MAX, NeverAwaited, success_of, write_result
from joblog.services.worker.execution.run import Succeeded
from joblog.streams.contract.codec import encode, read_report
from joblog.streams.contract.wire import NO_RAW, RunSucceeded
from pydantic import BaseModel

KIB_256 = 262_144

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
FINITE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(
    FINITE, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)


def reason(value: object, bytes_max: int = KIB_256) -> str:
    """Why this value is left out."""
    result, omitted = write_result(value, bytes_max)
    assert result == NO_RAW
    assert omitted is not None
    return omitted


@given(JSON)
def test_every_value_of_json_is_written_as_it_is(value: Any) -> None:
    result, omitted = write_result(value, KIB_256)
    assert omitted is None
    assert json.loads(bytes(result)) == value


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int


class Box(BaseModel):
    corner: Point


class Line(msgspec.Struct):
    length: float


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ([Colour.RED, Box(corner=Point(1)), Line(2.0)], ["red", {"corner": {"x": 1}}, {"length": 2.0}]),
        ((1, {2}), [1, [2]]),
        (b"bytes", "bytes"),
    ],
)
def test_what_pydantic_and_msgspec_can_write_is_written(value: object, written: object) -> None:
    result, omitted = write_result(value, KIB_256)
    assert (json.loads(bytes(result)), omitted) == (written, None)


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [1, -math.inf]}, [math.nan, "NaN"], Point(math.nan)])  # type: ignore[arg-type]
def test_numbers_that_json_does_not_know_are_left_out(value: object) -> None:
    assert "NaN or Infinity" in reason(value)


@pytest.mark.parametrize(
    "value", ["NaN", ["Infinity", "-Infinity"], {"NaN": 'a "NaN" b'}, ["NaN", 10**4299], ["9" * 5000]]
)
def test_words_for_numbers_are_words(value: object) -> None:
    result, omitted = write_result(value, KIB_256)
    assert omitted is None
    assert bytes(result).startswith((b'"', b"[", b"{"))


@pytest.mark.parametrize("value", [[10**4300], [-(10**4300)], {"NaN": [1, 10**6000]}])
def test_integers_that_few_can_read_are_left_out(value: object) -> None:
    assert reason(value) == "the result holds an integer of more than 4300 digits"
    assert write_result(-(10**4299), KIB_256)[1] is None


@pytest.mark.parametrize("value", ["\0", {"a\0b": 1}, ["\\\0"]])
def test_a_nul_is_left_out_since_postgres_cannot_keep_it(value: object) -> None:
    assert "NUL" in reason(value)


@pytest.mark.parametrize("value", ["\\u0000", "\\\\u0000", {"\\u0000": "\\"}])
def test_the_spelling_of_a_nul_is_none(value: object) -> None:
    result, omitted = write_result(value, KIB_256)
    assert (json.loads(bytes(result)), omitted) == (value, None)


class Liar(BaseModel):
    x: int = 1

    def __str__(self) -> str:
        raise RuntimeError("no")


def circular() -> list[Any]:
    it: list[Any] = []
    it.append(it)
    return it


def deep() -> list[Any]:
    it: list[Any] = []
    for _ in range(10_000):
        it = [it]
    return it


@pytest.mark.parametrize("value", [object(), "\ud800", b"\xff", circular(), deep(), {1: object()}, lambda: 1])
def test_what_is_not_json_is_left_out_and_the_reason_can_be_kept(value: object) -> None:
    why = reason(value)
    assert "cannot be written as JSON" in why
    assert len(why) < 1_000
    why.encode()
    assert "\0" not in why


def test_an_error_of_the_values_own_serializer_is_a_reason() -> None:
    class Mean:
        def __repr__(self) -> str:
            raise ValueError("mean")

    assert "cannot be written" in reason(Mean())


def test_a_result_of_the_limit_is_written_and_one_byte_more_is_not() -> None:
    assert write_result("x" * 98, 100)[1] is None
    assert reason("x" * 99, 100) == "the result has 101 bytes of JSON, more than the 100 allowed"


def test_no_result_is_null() -> None:
    assert write_result(None, 0) == (NO_RAW, None)


def nested(levels: int, leaf: Any = 1) -> Any:
    """A value in so many lists and dicts."""
    for level in range(levels):
        leaf = [leaf] if level % 3 else {"a": leaf}
    return leaf


def test_a_result_may_have_so_many_levels_and_no_more() -> None:
    assert write_result(nested(LEVELS_MAX), KIB_256)[1] is None
    assert reason(nested(LEVELS_MAX + 1)) == "the result is nested deeper than 99 levels"
    assert "nested deeper" in reason(nested(LEVELS_MAX, []))


@pytest.mark.parametrize("value", ["[" * 200, {"{" * 100: '"['}, ["\\", "[" * 200], [[]] * 200, [{"a": []}] * 100])
def test_brackets_in_strings_and_side_by_side_are_no_levels(value: object) -> None:
    assert write_result(value, KIB_256)[1] is None


ODD: Any = (
    st.integers(4_000, 6_000).map(lambda digits: 10**digits)
    | st.floats()
    | st.sampled_from(["\x01", '\x1f"[', "\\", '\\"', "\u2028", "{[", -0.0, 1e308, 5e-324, 2**64, -(2**63) - 1])
)


@given(st.recursive(JSON | ODD, lambda inner: st.lists(inner, max_size=4), max_leaves=5), st.integers(0, 105))
def test_an_elector_accepts_whatever_is_written(leaf: Any, levels: int) -> None:
    result, omitted = write_result(nested(levels, leaf), KIB_256)
    report = RunSucceeded(
        job_id="018f0000-0000-8001-8000-000000000001",
        lease=1,
        worker="w",
        result=result,
        result_omitted=omitted,
        duration_ms=1.0,
        started_ms=1,
    )
    read: Any = read_report(encode(report))
    assert read.result_omitted == omitted
    assert json.loads(bytes(read.result), parse_int=str) == json.loads(bytes(result), parse_int=str)


async def never() -> None:
    raise AssertionError("somebody ran this")


def test_an_awaitable_is_no_success_since_nobody_awaits_it() -> None:
    returned: Coroutine[Any, Any, None] = never()
    with pytest.raises(NeverAwaited, match="returned an awaitable: make the decorated function async"):
        success_of(returned, KIB_256)
    with pytest.raises(RuntimeError, match="cannot reuse"):  # it is closed, so that nobody warns of it
        returned.send(None)
    loop = asyncio.new_event_loop()
    with pytest.raises(NeverAwaited):
        success_of(loop.create_future(), KIB_256)
    loop.close()


def test_what_is_returned_is_the_success() -> None:
    assert success_of([1], KIB_256) == Succeeded(*write_result([1], KIB_256))
