"""The msgspec structs of wire against the pydantic models that define the contract."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.streams.contract import codec, commands, controls, events, retry, wire
from joblog.streams.contract.fields import Message, StrictMessage
from msgspec import NODEFAULT, structs
from pydantic import BaseModel, TypeAdapter

from tests.support.messages import (
    ATTRIBUTES,
    COMMAND,
    COMMANDS,
    REPORT,
    Data,
    enveloped,
    fields_of,
    meaning,
    outcome,
    tag_of,
    written,
)

#: Models whose twin has another name.
OTHER_NAMES = {
    "RetryPolicy": "Retry",
}
COMMAND_MODEL = TypeAdapter[commands.Command](commands.Command)


def models() -> Iterator[type[BaseModel]]:
    for module in (commands, controls, events, retry):
        for model in vars(module).values():
            if inspect.isclass(model) and issubclass(model, Message) and model not in {Message, StrictMessage}:
                yield model


def twin_of(model: type[BaseModel]) -> Any:
    for shared in SHARED:
        if issubclass(model, shared):
            return getattr(wire, shared.__name__)
    module = retry if model is retry.RetryPolicy else wire
    return getattr(module, OTHER_NAMES.get(model.__name__, model.__name__))


#: Events that share one struct for all of their types.
SHARED = (events.JobEvent, events.WorkerEvent, events.QueueEvent, events.BatchEvent)
ONE_TO_ONE = sorted(
    {model for model in models() if not issubclass(model, SHARED)},
    key=lambda model: model.__name__,
)


@pytest.mark.parametrize("model", ONE_TO_ONE)
def test_a_twin_has_the_fields_of_its_model_and_needs_the_same(model: type[BaseModel]) -> None:
    assert {field.name: field.required for field in structs.fields(twin_of(model))} == fields_of(model)


@pytest.mark.parametrize("model", ONE_TO_ONE)
def test_what_is_left_out_means_the_same_to_both(model: type[BaseModel]) -> None:
    twin = {
        field.name: field.default_factory() if field.default is NODEFAULT else field.default
        for field in structs.fields(twin_of(model))
        if not field.required
    }
    defaults = {
        name: model.model_fields[name].default for name, is_required in fields_of(model).items() if not is_required
    }
    assert meaning(twin) == meaning(defaults)


@pytest.mark.parametrize("shared", SHARED)
def test_a_struct_of_many_events_has_the_fields_of_all_their_models(shared: type[BaseModel]) -> None:
    fields = {name for model in models() if issubclass(model, shared) for name in fields_of(model)}
    assert {field.name for field in structs.fields(twin_of(shared))} == fields


def test_types_and_tags_are_those_of_the_models() -> None:
    assert [twin_of(model).type for model in COMMANDS] == [tag_of(model) for model in COMMANDS]


@given(COMMAND, st.booleans())
def test_a_valid_command_means_the_same_to_its_model_and_both_ways_of_reading(said: Data, ascii_only: bool) -> None:
    value = written(enveloped(said), ascii_only)
    model = COMMAND_MODEL.validate_python(said)
    received = codec.read_command(value, None)
    assert type(received.command) is twin_of(type(model))
    assert meaning(received.command) == meaning(model)
    assert outcome(codec._read_command_carefully, value, None) == (type(received.command), meaning(received))


@given(COMMAND)
def test_a_valid_command_in_binary_mode_means_the_same(said: Data) -> None:
    data = {name: one for name, one in said.items() if name != "type"}
    headers = [(f"ce_{name}", one.encode()) for name, one in [*ATTRIBUTES.items(), ("type", said["type"])]]
    binary = codec.read_command(written(data), headers)
    assert meaning(binary) == meaning(codec.read_command(written(enveloped(said)), None))


@given(REPORT, st.booleans())
def test_a_valid_report_is_read_with_all_that_it_says_and_written_again(said: Data, ascii_only: bool) -> None:
    report = codec.read_report(written(said, ascii_only))
    assert report.__struct_config__.tag == said["type"]
    found = meaning(report)
    for name in said.keys() - {"type", "started_at", "exception", "retry", "policies", "limit"}:
        # A number that is read as a float is as near as a float comes to it, from 2**53 on.
        assert found[name] == (float(said[name]) if isinstance(found[name], float) else said[name])
    assert meaning(codec.read_report(codec.encode(report))) == found
