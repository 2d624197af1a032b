import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.worker_results import write_result
from joblog.streams.wire import NO_RAW
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


@pytest.mark.parametrize("value", ["NaN", ["Infinity", "-Infinity"], {"NaN": 'a "NaN" b'}, ["NaN", 10**5000]])
def test_words_for_numbers_are_words(value: object) -> None:
    result, omitted = write_result(value, KIB_256)
    assert omitted is None
    assert bytes(result).startswith((b'"', b"[", b"{"))


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
