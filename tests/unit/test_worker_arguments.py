from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.context import CancellationToken, JobContext
from joblog.services.tasks import ArgumentsError, task
from joblog.services.worker_arguments import ArgumentReader, read_call
from joblog.streams.errors import SettingsError
from joblog.streams.wire import RunJob
from msgspec import Raw
from pydantic import BaseModel

CONTEXT = JobContext(
    RunJob(job_id="x", lease=1, attempt=1, lane=0, task="t", queue="q", spec=Raw(b"{}"), ready_ms=0), "w"
)


class Colour(StrEnum):
    RED = "red"


@dataclass
class Point:
    x: int


class Box(BaseModel):
    corner: Point
    colour: Colour = Colour.RED


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What the function returns for these arguments, once they went through JSON."""
    spec = Raw(msgspec.json.encode({"args": args, "kwargs": kwargs, "priority": 3}))
    found, named = ArgumentReader(task("t")(function)).read(read_call(spec), CONTEXT)
    return function(*found, **named)


def everything(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def test_a_spec_without_arguments_is_a_call_without_arguments() -> None:
    assert read_call(Raw(b"{}")) == read_call(Raw(b'{"args":[],"kwargs":{}}'))


def test_a_call_carries_the_timeout_of_its_job() -> None:
    assert read_call(Raw(b'{"timeout_s":2}')).timeout_s == 2.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=4), st.dictionaries(st.text(), JSON, max_size=4))
def test_arguments_without_annotations_arrive_as_they_were_sent(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert call(everything, *args, **kwargs) == (tuple(args), kwargs)


def test_annotated_arguments_are_made_from_their_json() -> None:
    def run(at: datetime, box: Box, point: Point, *, colour: Colour, share: float = 0.5) -> Any:
        return at, box, point, colour, share

    made = call(run, "2026-01-02T03:04:05Z", {"corner": {"x": 1}}, {"x": "2"}, colour="red", share=1)
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert made == (at, Box(corner=Point(1)), Point(2), Colour.RED, 1.0)


def test_defaults_fill_what_was_not_sent() -> None:
    def run(a: int, b: str = "b", *, c: float = 1.5) -> Any:
        return a, b, c

    assert call(run, 1) == (1, "b", 1.5)


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ([], {}, "image: Missing required argument"),
        (["a", 1], {}, "1: Unexpected positional argument"),
        (["a"], {"image": "b"}, "image: Got multiple values"),
        (["a"], {"colour": 1}, "colour: Unexpected keyword argument"),
        (["a"], {"count": "many"}, "count: Input should be a valid integer"),
    ],
)
def test_arguments_that_do_not_fit_are_named(args: list[Any], kwargs: dict[str, Any], named: str) -> None:
    def run(image: str, *, count: int = 1) -> None: ...

    with pytest.raises(ArgumentsError, match=named):
        call(run, *args, **kwargs)


def test_an_error_does_not_repeat_the_values_which_may_be_secret() -> None:
    def run(password: int) -> None: ...

    with pytest.raises(ArgumentsError) as caught:
        call(run, "s3cr3t")
    assert "s3cr3t" not in str(caught.value)


def test_many_errors_are_counted() -> None:
    def run(*numbers: int) -> None: ...

    with pytest.raises(ArgumentsError, match="and 15 more"):
        call(run, *["x"] * 25)


@pytest.mark.parametrize("spec", [b"{", b"[]", b'{"args":{}}', b'{"kwargs":[]}', b'{"timeout_s":"x"}', b"\xff"])
def test_a_spec_that_is_none_is_an_error_of_the_arguments(spec: bytes) -> None:
    with pytest.raises(ArgumentsError, match="cannot be decoded"):
        read_call(Raw(spec))


def test_a_spec_of_absurd_depth_is_an_error_of_the_arguments() -> None:
    with pytest.raises(ArgumentsError):
        read_call(Raw(b'{"args":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}"))


def test_context_and_token_are_given_wherever_they_are_asked_for() -> None:
    def first(context: JobContext, a: int, b: int = 2) -> Any:
        return context, a, b

    def between(a: int, token: CancellationToken, b: int = 2, *rest: int) -> Any:
        return a, token, b, rest

    def named(*rest: int, context: JobContext, token: "CancellationToken") -> Any:
        return rest, context, token

    def by_place_only(a: int, context: JobContext, /, **more: int) -> Any:
        return a, context, more

    token = CONTEXT.cancellation
    assert call(first, 1) == (CONTEXT, 1, 2)
    assert call(first, a=1, b=3) == (CONTEXT, 1, 3)
    assert call(between, 1, 3, 4, 5) == (1, token, 3, (4, 5))
    assert call(between, 1) == (1, token, 2, ())
    assert call(between, a=1, b=5) == (1, token, 5, ())
    assert call(named, 1, 2) == ((1, 2), CONTEXT, token)
    assert call(by_place_only, 1, x=2) == (1, CONTEXT, {"x": 2})


def test_nobody_can_send_a_context() -> None:
    def run(context: JobContext) -> None: ...

    with pytest.raises(ArgumentsError, match="context: Unexpected keyword argument"):
        call(run, context={})


def test_an_annotation_that_json_cannot_become_is_refused_at_the_start() -> None:
    def run(what: Raw) -> None: ...

    with pytest.raises(SettingsError, match="annotations cannot be read from JSON"):
        ArgumentReader(task("t")(run))


def test_an_annotation_that_does_not_exist_is_refused_at_the_start() -> None:
    def run(what: "NoSuchThing") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(SettingsError, match="NoSuchThing"):
        ArgumentReader(task("t")(run))
