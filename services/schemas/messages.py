"""Messages as JSON Schemas, with their CloudEvents envelope."""

from collections.abc import Iterable
from inspect import getdoc
from typing import Any, Final, get_args

from joblog.streams.contract import commands, events, wire
from joblog.streams.contract.cloudevents import Envelope
from msgspec import Struct, json, structs
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

Schema = dict[str, Any]
Models = tuple[type[BaseModel], ...]

COMMANDS: Final[Models] = get_args(get_args(commands.Command)[0])
EVENTS: Final[Models] = get_args(get_args(events.Event)[0])
REPORTS: Final[tuple[type[Struct], ...]] = get_args(wire.AnyReport)
ASSIGNMENTS: Final[tuple[type[Struct], ...]] = (wire.RunJob, wire.CancelJob, wire.OrderWorker, wire.ServeQueue)

_DATA_TYPE: Final = "application/json"


class Untitled(GenerateJsonSchema):
    """Schemas in which fields have no titles, which would only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def tag_of(model: type[BaseModel]) -> str:
    """The wire name of a message."""
    return str(model.model_fields["type"].default)


def summary_of(kind: type) -> str:
    """The first line of a class's docstring."""
    return (kind.__doc__ or "").partition("\n")[0].strip()


def enveloped(model: type[BaseModel], ref_template: str) -> Schema:
    """A command or event as a CloudEvent in structured mode; definitions that it needs are in `$defs`."""
    data = model.model_json_schema(ref_template=ref_template, schema_generator=Untitled)
    definitions = data.pop("$defs", {})
    without_tag(data)
    said = Envelope.model_json_schema(schema_generator=Untitled)
    required = [*said["required"], "specversion"]
    attributes = {
        "specversion": {"const": "1.0"},
        **said["properties"],
        "type": {"const": tag_of(model)},
        "time": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}], "default": None},
        "datacontenttype": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": _DATA_TYPE},
        "data": {"$ref": ref_template.format(model=model.__name__)},
    }
    return {
        "title": tag_of(model),
        "description": model.__doc__,
        "type": "object",
        "properties": attributes,
        "required": sorted(required),
        "$defs": {**definitions, model.__name__: data},
    }


def without_tag(data: Schema) -> None:
    """Take `type` out of a command's or event's data: there the envelope has it."""
    del data["properties"]["type"]


def tag_of_struct(kind: type[Struct]) -> str:
    """The wire name of a message that exists as a struct only, or an empty text."""
    return str(kind.__struct_config__.tag or "")


def structured(kind: type[Struct], ref_template: str) -> Schema:
    """A message that exists as a msgspec struct only: a plain JSON object that says its own type."""
    fields = structs.fields(kind)
    tag = tag_of_struct(kind)
    tags = {"type": {"const": tag}} if tag else {}
    return {
        "title": kind.__name__,
        "description": getdoc(kind),
        "type": "object",
        "properties": {**tags, **{field.encode_name: _of_field(field.type, ref_template) for field in fields}},
        "required": [*tags, *(field.encode_name for field in fields if field.required)],
    }


def _of_field(kind: Any, ref_template: str) -> Schema:
    """The schema of a struct's field; what it refers to is defined by the models of commands and events."""
    (schema,), _ = json.schema_components([kind], ref_template=ref_template.replace("{model}", "{name}"))
    retry, policy = (ref_template.format(model=name).encode() for name in ("Retry", "RetryPolicy"))
    found: Schema = json.decode(json.encode(schema).replace(b'"%s"' % retry, b'"%s"' % policy))
    return found


def merged(schemas: Iterable[Schema]) -> Schema:
    """The definitions of many schemas, taken out of them. ValueError if two of one name differ."""
    found: Schema = {}
    for schema in schemas:
        for name, definition in schema.pop("$defs", {}).items():
            if found.setdefault(name, definition) != definition:
                raise ValueError(f"{name} is defined twice, and differently")
    return found
