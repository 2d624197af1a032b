import asyncio
import json
import math
import threading
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.worker.execution.results import (
    DETAILS_BYTES_MAX,
    DETAILS_LINES_MAX,
    LEVELS_MAX,
    MESSAGE_BYTES_MAX,
    NeverAwaited,
    Succeeded,
    describe,
    keepable,
    last_lines,
    stack_of,
    success_of,
    type_name,
    write_result,
)
from joblog.streams.contract.codec import encode, read_report
from joblog.streams.contract.wire import NO_RAW, RunSucceeded
from msgspec import Raw
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


def test_a_generator_is_run_to_its_end_and_what_it_raises_is_raised() -> None:
    """Its work is that of the task: a success without a result would hide that it was not done."""
    assert success_of((number for number in range(3)), 100) == Succeeded(Raw(b"[0,1,2]"))
    with pytest.raises(ZeroDivisionError):
        success_of((1 // number for number in (1, 0)), 100)


def test_an_async_generator_is_no_success_since_nobody_runs_it() -> None:
    async def made() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(NeverAwaited):
        success_of(made(), 100)


def test_what_is_returned_is_the_success() -> None:
    assert success_of([1], KIB_256) == Succeeded(*write_result([1], KIB_256))


class Broken(ValueError):
    def __str__(self) -> str:
        raise RuntimeError("cannot even say it")


def raised(error: Exception) -> Exception:
    """The error with the traceback of a raise."""

    def throw() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        throw()
    return caught.value


def test_an_exception_is_described_by_type_bases_text_and_traceback() -> None:
    described = describe(raised(KeyError("k")))
    assert (described.type, described.message) == ("KeyError", "'k'")
    assert described.types == ("KeyError", "LookupError", "Exception", "BaseException")
    assert described.details.startswith("Traceback")
    assert "in throw" in described.details


def test_types_of_modules_are_named_with_them() -> None:
    assert type_name(Broken) == f"{__name__}.Broken"


def test_frames_of_the_worker_are_left_out() -> None:
    error = raised(ValueError("x"))
    assert "in raised" in describe(error).details
    details = describe(error, frames_skipped=1).details
    assert "in throw" in details
    assert "in raised" not in details


def test_causes_are_told() -> None:
    second = ValueError("second")
    second.__cause__ = raised(KeyError("first"))
    assert "KeyError: 'first'" in describe(raised(second)).details


def test_an_exception_that_cannot_be_printed_is_described_still() -> None:
    described = describe(raised(Broken()))
    assert described.type.endswith("Broken")
    assert described.message == "<no text: its __str__ raised RuntimeError>"


def test_an_exception_whose_text_wants_to_leave_the_process_is_described() -> None:
    class Leaving(ValueError):
        def __str__(self) -> str:
            raise SystemExit(5)

    assert describe(raised(Leaving())).message == "<no text: its __str__ raised SystemExit>"


def test_nul_and_lone_surrogates_are_replaced_everywhere() -> None:
    described = describe(raised(ValueError("a\0b\ud800c")))
    assert described.message == "a\ufffdb\ufffdc"
    assert "\0" not in described.details
    described.details.encode()


@given(st.text(st.characters(exclude_categories=()), max_size=50).map(lambda text: text * 2_000))
def test_messages_have_a_limit_in_bytes(text: str) -> None:
    message = describe(ValueError(text)).message
    assert len(message.encode()) <= MESSAGE_BYTES_MAX
    assert keepable(text).startswith(message)


@given(st.text(max_size=30), st.integers(0, 300), st.integers(0, 400))
def test_details_are_the_last_lines_within_the_limits(line: str, repeats: int, lines: int) -> None:
    text = f"{line * repeats}\n" * lines
    kept = last_lines(text)
    assert keepable(text).endswith(kept)
    assert len(kept.encode()) <= DETAILS_BYTES_MAX
    assert kept.count("\n") <= DETAILS_LINES_MAX


def test_an_endless_recursion_has_details_within_the_limits() -> None:
    def again(n: int) -> int:
        return again(n + 1) + 1

    with pytest.raises(RecursionError) as caught:
        again(0)
    details = describe(caught.value).details
    assert details.rstrip().endswith("maximum recursion depth exceeded")
    assert len(details) <= DETAILS_BYTES_MAX


def test_the_stack_of_a_thread_tells_where_it_is() -> None:
    assert "test_the_stack_of_a_thread" in stack_of(threading.get_ident())


def test_a_thread_that_ended_has_no_stack() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert stack_of(thread.ident or 0) == ""
