"""Valid messages of every kind, made from their own annotations, and what messages mean."""

import inspect
import json
import types
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from hypothesis import reject
from hypothesis import strategies as st
from joblog.streams.contract import commands, events, fields, wire
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.errors import ContractError
from msgspec import Raw, Struct, structs
from pydantic import BaseModel, ValidationError

Data = dict[str, Any]

COMMANDS: tuple[type[BaseModel], ...] = get_args(get_args(commands.Command)[0])
REPORTS: tuple[type[Struct], ...] = get_args(wire.AnyReport)
EVENTS: tuple[type[BaseModel], ...] = get_args(get_args(events.Event)[0])
ATTRIBUTES = {"specversion": "1.0", "id": "e-1", "source": "/shop"}

#: Names in reports, for which their structs have no patterns; and structs within them that a model describes, too.
NAMES: dict[str, Any] = {
    **dict.fromkeys(("job_id", "child", "parent"), fields.JobId),
    "queue": fields.QueueName,
    **dict.fromkeys(("queues", "all_queues"), tuple[fields.QueueName, ...]),
    "worker": fields.WorkerId,
    "tasks": tuple[fields.TaskName, ...],
    "policies": dict[fields.TaskName, RetryPolicy],
    "retry": RetryPolicy | None,
    "exception": events.JobException,
    "result": Any,
}

#: Any character but halves of surrogate pairs, which no UTF-8 holds, and NUL, which is refused.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
TEXTS = st.text(CHARACTERS, max_size=12)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
INSTANTS = st.datetimes(datetime(2, 1, 2), datetime(9998, 12, 30), timezones=st.just(UTC)).map(datetime.isoformat)  # noqa: DTZ001


def has_tag(model: type[BaseModel]) -> bool:
    """Whether `type` is the name of the message, and no field that a sender fills."""
    field = model.model_fields.get("type")
    return field is not None and get_origin(field.annotation) is Literal


def tag_of(message: type[Any]) -> str:
    if issubclass(message, Struct):
        return str(message.__struct_config__.tag)
    return str(message.model_fields["type"].default)


def fields_of(model: type[BaseModel]) -> dict[str, bool]:
    """Each field but the tag, and whether it must be given."""
    tag = {"type"} if has_tag(model) else set()
    return {name: field.is_required() for name, field in model.model_fields.items() if name not in tag}


def fitting(model: type[BaseModel]) -> st.SearchStrategy[Data]:
    """JSON objects that the model accepts; with the tag, if it has one."""
    made = {name: _values(field.annotation, field.metadata) for name, field in model.model_fields.items()}
    required = {name for name, is_required in fields_of(model).items() if is_required}
    if has_tag(model):
        made["type"] = st.just(tag_of(model))
        required.add("type")
    found = st.fixed_dictionaries(
        {name: one for name, one in made.items() if name in required},
        optional={name: one for name, one in made.items() if name not in required},
    )
    has_rules = bool(model.__pydantic_decorators__.model_validators)
    return _whole(model, found) if has_rules else found


@st.composite
def _whole(draw: st.DrawFn, model: type[BaseModel], found: st.SearchStrategy[Data]) -> Data:
    """Those whose fields fit each other. A `filter` would write out the whole strategy whenever it gives up."""
    for _ in range(4):
        said = draw(found)
        if _is_whole(model, said):
            return said
    return reject()


def _is_whole(model: type[BaseModel], said: Data) -> bool:
    """Whether the fields fit each other, which their types do not say."""
    try:
        model.model_validate(said)
    except ValidationError:
        return False
    return True


LIMITS: Final[Sequence[Data]] = (
    {"kind": "mutex", "key": "m", "tenant": "é"},
    {"kind": "semaphore", "key": "s", "capacity": 3},
    {"kind": "token_bucket", "key": "b", "capacity": 1_000_000, "interval_s": 0.5},
)


#: What a lane may be told of the limit of a queue.
SETTINGS: Final[Sequence[Data]] = (
    {"kind": "mutex", "capacity": None, "interval_ms": 0},
    {"kind": "semaphore", "capacity": 3, "interval_ms": 0},
    {"kind": "token_bucket", "capacity": 1_000_000, "interval_ms": 500},
)


def fitting_struct(kind: type[Struct]) -> st.SearchStrategy[Data]:
    """JSON objects that are this report."""
    made = {field.name: _values(NAMES.get(field.name, field.type), []) for field in structs.fields(kind)}
    required = {field.name for field in structs.fields(kind) if field.required}
    found = st.fixed_dictionaries(
        {"type": st.just(kind.__struct_config__.tag), **{name: made[name] for name in required}},
        optional={name: one for name, one in made.items() if name not in required},
    )
    if kind is wire.QueueLimitTold:
        return st.builds(lambda said, setting: {**said, **setting}, found, st.sampled_from(SETTINGS))
    return found


def enveloped(message: Data) -> Data:
    """A tagged message as a CloudEvent."""
    return {**ATTRIBUTES, "type": message["type"], "data": {k: one for k, one in message.items() if k != "type"}}


def written(value: Any, ensure_ascii: bool = True) -> bytes:
    return json.dumps(value, ensure_ascii=ensure_ascii).encode()


def meaning(value: Any) -> Any:
    """What a message says, whatever it is held in; carried JSON is read."""
    match value:
        case Raw():
            return json.loads(bytes(value))
        case Struct():
            return {name: meaning(getattr(value, name)) for name in value.__struct_fields__}
        case BaseModel():
            return {name: meaning(getattr(value, name)) for name in fields_of(type(value))}
        case dict():
            return {name: meaning(one) for name, one in value.items()}
        case list() | tuple():
            return [meaning(one) for one in value]
        case _:
            return value.astimezone(UTC) if isinstance(value, datetime) else value


def outcome(read: Callable[..., Any], *arguments: Any) -> Any:
    """What reading gives, or that it is refused; any other error is the test's to fail on."""
    try:
        received = read(*arguments)
    except ContractError:
        return "refused"
    return type(getattr(received, "command", received)), meaning(received)


def _values(kind: Any, bounds: list[Any]) -> st.SearchStrategy[Any]:
    """JSON for a field of this type within these bounds (annotated-types, or pydantic's own)."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        made = _values(inner[0], [*inner[1:], *bounds])
    elif origin in {Union, types.UnionType}:
        made = st.one_of(*(_values(one, bounds) for one in inner))
    elif origin is tuple:
        made = st.lists(_values(inner[0], []), min_size=_bound(bounds, "min_length") or 0, max_size=3)
    elif origin is dict:
        made = st.dictionaries(_values(inner[0], []), _values(inner[1], []), max_size=3)
    elif origin is Literal:
        made = st.sampled_from([one.value if isinstance(one, Enum) else one for one in inner])
    elif inspect.isclass(kind) and issubclass(kind, BaseModel):
        made = fitting(kind)
    elif kind is wire.Limit:
        made = st.sampled_from(LIMITS)
    elif inspect.isclass(kind) and issubclass(kind, Enum):
        made = st.sampled_from([one.value for one in kind])
    else:
        made = _plain(kind, bounds)
    return made


def _plain(kind: Any, bounds: list[Any]) -> st.SearchStrategy[Any]:
    low, high = _bound(bounds, "ge"), _bound(bounds, "le")
    if kind is str:
        return _texts(bounds)
    if kind is int:
        return st.integers(low, high)
    if kind is float:
        least = low if _bound(bounds, "gt") is None else 1
        return st.floats(least, high, allow_nan=False, allow_infinity=False) | st.integers(least, high)
    return {Any: JSON, type(None): st.none(), bool: st.booleans(), datetime: INSTANTS}[kind]


def _texts(bounds: list[Any]) -> st.SearchStrategy[str]:
    if pattern := _bound(bounds, "pattern"):
        return st.from_regex(pattern.removesuffix("$") + r"\Z")
    longest = _bound(bounds, "max_length")
    longest_ones = st.nothing() if longest is None else st.just("é" * longest)
    return st.text(CHARACTERS, min_size=_bound(bounds, "min_length") or 0, max_size=9) | longest_ones


def _bound(bounds: list[Any], name: str) -> Any:
    found = list(_named(bounds, name))
    return (max(found) if name == "ge" else min(found)) if found else None


def _named(bounds: list[Any], name: str) -> Iterator[Any]:
    for one in bounds:
        # What pydantic cannot say in annotated-types, such as a pattern, it keeps in a Field of its own.
        yield from (found for found in [getattr(one, name, None)] if found is not None)
        yield from _named(getattr(one, "metadata", []), name)


COMMAND = st.one_of(*map(fitting, COMMANDS))
REPORT = st.one_of(*map(fitting_struct, REPORTS))
EVENT = st.one_of(*map(fitting, EVENTS))
