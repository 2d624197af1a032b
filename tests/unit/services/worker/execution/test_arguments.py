from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.client.json_values import encode_json
from joblog.services.tasks.context import CancellationToken, JobContext
from joblog.services.tasks.task import ArgumentsError, task
from joblog.services.worker.execution.arguments import ArgumentReader, read_call
from joblog.streams.contract.wire import RunJob
from joblog.streams.errors import SettingsError
from msgspec import Raw
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, computed_field
from typing_extensions import TypedDict, Unpack

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


class Size(Enum):
    SMALL = 1
    LARGE = 2


@dataclass
class File:
    name: str
    content: bytes
    parts: list[bytes]
    at: datetime | None = None


class Pair(NamedTuple):
    number: int
    content: bytes


class Row(TypedDict):
    content: bytes
    day: date


class Sealed(msgspec.Struct):
    name: str
    content: bytes


@dataclass
class Opened:
    name: str
    content: bytes


class Parcel(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    content: bytes
    pieces: dict[str, bytes]
    until: timedelta


class Aliased(BaseModel):
    """Sent by one name, known to others by several."""

    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)
    user_id: int = Field(alias="userId")
    sent: str = Field(serialization_alias="out", validation_alias="in")
    either: int = Field(validation_alias=AliasChoices("one", "other"))
    deep: int = Field(validation_alias=AliasPath("way", 0))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.user_id


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime
    key: UUID
    colour: Colour
    numbers: frozenset[int]
    price: Decimal


class Tree(BaseModel):
    """With a definition of its own in the schema of the arguments."""

    at: date
    below: list["Tree"] = []


numbers = st.integers() | st.integers(-(10**300), 10**300)
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=20)
zones = st.none() | st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
datetimes = st.datetimes(timezones=zones)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
built = {
    File: st.builds(File, texts, st.binary(), st.lists(st.binary(), max_size=3), st.none() | datetimes),
    Parcel: st.builds(
        Parcel, content=st.binary(), pieces=st.dictionaries(texts, st.binary(), max_size=3), until=st.timedeltas()
    ),
    Strict: st.builds(
        Strict,
        at=datetimes,
        key=st.uuids(),
        colour=st.sampled_from(Colour),
        numbers=st.frozensets(numbers),
        price=decimals,
    ),
}
SENT_AND_READ: dict[Any, st.SearchStrategy[Any]] = {
    int: numbers,
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: texts,
    bytes: st.binary(),
    bool: st.booleans(),
    None: st.none(),
    datetime: datetimes,
    date: st.dates(),
    time: st.times(timezones=zones),
    timedelta: st.timedeltas(),
    UUID: st.uuids(),
    Decimal: decimals,
    Colour: st.sampled_from(Colour),
    Size: st.sampled_from(Size),
    tuple[int, bytes, date]: st.tuples(numbers, st.binary(), st.dates()),
    set[UUID]: st.sets(st.uuids(), max_size=3),
    frozenset[bytes]: st.frozensets(st.binary(), max_size=3),
    dict[int, list[bytes | None]]: st.dictionaries(
        numbers, st.lists(st.none() | st.binary(), max_size=3), max_size=3
    ),
    dict[UUID, dict[str, timedelta]]: st.dictionaries(
        st.uuids(), st.dictionaries(texts, st.timedeltas(), max_size=2), max_size=2
    ),
    Pair: st.builds(Pair, numbers, st.binary()),
    Row: st.fixed_dictionaries({"content": st.binary(), "day": st.dates()}),
    list[File | Parcel]: st.lists(built[File] | built[Parcel], max_size=3),
    **built,
}


@pytest.mark.parametrize("annotation", SENT_AND_READ, ids=str)
@given(data=st.data())
def test_an_argument_arrives_equal_where_its_type_is_annotated(annotation: Any, data: st.DataObject) -> None:
    def run(first: Any, *rest: Any, named: Any) -> Any:
        return first, *rest, named

    run.__annotations__ = dict.fromkeys(("first", "rest", "named"), annotation)
    sent = data.draw(st.lists(SENT_AND_READ[annotation], min_size=3, max_size=3))
    assert list(sent_by_client(run, *sent[:2], named=sent[2])) == sent


def sent_by_client(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    spec = b'{"args":%b,"kwargs":%b}' % (encode_json(args, "args"), encode_json(kwargs, "kwargs"))
    found, named = ArgumentReader(task("t")(function)).read(read_call(Raw(spec)), CONTEXT)
    return function(*found, **named)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_other_bytes_arrive_as_bytes(kind: Callable[[bytes], object]) -> None:
    def run(content: bytes) -> Any:
        return content

    assert sent_by_client(run, kind(b"\x00\xff")) == b"\x00\xff"


def test_a_struct_arrives_at_a_type_with_the_same_fields() -> None:
    def run(opened: Opened) -> Any:
        return opened

    assert sent_by_client(run, Sealed("a", b"\xff")) == Opened("a", b"\xff")


def test_what_is_no_base64_is_no_bytes() -> None:
    def run(content: bytes) -> None: ...

    with pytest.raises(ArgumentsError, match=r"content: .*base64"):
        call(run, "?")


def test_a_model_with_aliases_arrives_and_may_be_sent_by_these() -> None:
    def run(*models: Aliased) -> Any:
        return models

    by_alias = {"userId": 1, "in": "a", "one": 2, "way": [3]}
    model = Aliased.model_validate(by_alias)
    assert sent_by_client(run, model, by_alias) == (model, model)


def test_a_strict_model_is_read_as_json_with_arguments_of_any_kind_around_it() -> None:
    def run(
        first: Strict, trees: Tree, /, third: int = 3, *rest: Strict, context: JobContext, **named: Strict
    ) -> Any:
        return first, trees, third, rest, named

    model = Strict(
        at=datetime(2026, 1, 2, tzinfo=UTC),
        key=UUID(int=1),
        colour=Colour.RED,
        numbers=frozenset({1}),
        price=Decimal("1.10"),
    )
    tree = Tree(at=date(2026, 1, 2), below=[Tree(at=date(2026, 1, 3))])
    assert sent_by_client(run, model, tree) == (model, tree, 3, (), {})
    assert sent_by_client(run, model, tree, 4, model, other=model) == (model, tree, 4, (model,), {"other": model})
    with pytest.raises(ArgumentsError, match=r"^arguments do not fit task t: first\.price: Field required$"):
        call(run, {**model.model_dump(mode="json", exclude={"price"})}, {"at": "2026-01-02"})


def test_unpacked_named_arguments_arrive() -> None:
    def run(**row: Unpack[Row]) -> Any:
        return row

    assert sent_by_client(run, content=b"\xff", day=date(2026, 1, 2)) == {"content": b"\xff", "day": date(2026, 1, 2)}
    with pytest.raises(ArgumentsError, match="day: "):
        sent_by_client(run, content=b"", day="soon")


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


@pytest.mark.parametrize(
    "spec",
    [b"{", b"[]", b'{"args":{}}', b'{"kwargs":[]}', b'{"timeout_s":"x"}', b"\xff", b'{"args":["\xc3("]}'],
)
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
