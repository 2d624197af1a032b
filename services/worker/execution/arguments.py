"""Reads the arguments of a task from the JSON of a job, by the annotations of the task's function."""

from inspect import Parameter, signature
from typing import Any, Final, Literal, NamedTuple

import msgspec
from joblog.services.tasks.context import CancellationToken, JobContext
from joblog.services.tasks.task import ArgumentsError, Task
from joblog.streams.contract.unreadable import NOT_READABLE
from joblog.streams.errors import SettingsError
from pydantic import ConfigDict, PydanticUserError, ValidationError
from pydantic.experimental.arguments_schema import generate_arguments_schema
from pydantic_core import ArgsKwargs, CoreConfig, SchemaError, SchemaValidator
from pydantic_core.core_schema import json_schema

#: The client writes bytes as base64. The first holds inside of dataclasses, the second everywhere else.
_CONFIG: Final = ConfigDict(val_json_bytes="base64")
_CORE_CONFIG: Final = CoreConfig(val_json_bytes="base64")
_ERRORS_NAMED_MAX: Final = 10
_REST: Final = ("var_args_schema", "var_kwargs_schema")
_BY_PLACE: Final = frozenset({Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD})


class TaskCall(msgspec.Struct, gc=False):
    """The part of a JobSpec that a run needs."""

    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    timeout_s: float | None = None


_CALLS: Final = msgspec.json.Decoder(TaskCall)


def read_call(spec: msgspec.Raw) -> TaskCall:
    """The call in a JobSpec; ArgumentsError when it cannot be decoded."""
    try:
        return _CALLS.decode(spec)
    except NOT_READABLE as exc:
        raise ArgumentsError(f"the job's arguments cannot be decoded: {exc}") from exc


class _Injected(NamedTuple):
    """A parameter that the worker fills; `place` is its index if it may be given by place."""

    name: str
    place: int | None
    is_context: bool


class ArgumentReader:
    """Reads the arguments of one task's jobs; made once, as pydantic compiles the annotations.

    What pydantic's lax mode accepts is accepted: models, dataclasses, enums, dates and so on are made from
    their JSON, bytes from base64; fields of models go by their names or aliases. What is strict gets what
    pydantic's strict mode makes of JSON. Parameters annotated with JobContext or CancellationToken get those
    of the run.
    """

    def __init__(self, task: Task[..., Any]) -> None:
        self._name = task.name
        self._parameters = signature(task.function).parameters
        self._injected: list[_Injected] = []
        try:
            schema = generate_arguments_schema(task.function, "arguments", self._skip_injected, _CONFIG)
            self._validator = SchemaValidator(schema, _CORE_CONFIG)
            texts = _each_from_json(schema)
            self._json_validator = texts and SchemaValidator(texts, _CORE_CONFIG)
        except (PydanticUserError, SchemaError, NameError, TypeError) as exc:
            raise SettingsError(f"task {task.name}: its annotations cannot be read from JSON: {exc}") from exc

    def read(self, call: TaskCall, context: JobContext) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments for the function; ArgumentsError when they do not fit it."""
        args: tuple[Any, ...]
        kwargs: dict[str, Any]
        try:
            given = ArgsKwargs(tuple(call.args), call.kwargs)
            args, kwargs = self._validator.validate_python(given, by_alias=True, by_name=True)
        except ValidationError as exc:
            args, kwargs = self._read_strict(call, exc)
        if self._injected:
            return self._inject(args, kwargs, context)
        return args, kwargs

    def _read_strict(self, call: TaskCall, error: ValidationError) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What is strict takes a date, an enum or a set from JSON only; slower, so it is not the first try."""
        if self._json_validator is not None:
            named = {name: msgspec.json.encode(value) for name, value in call.kwargs.items()}
            given = ArgsKwargs(tuple(map(msgspec.json.encode, call.args)), named)
            try:
                args, kwargs = self._json_validator.validate_python(given, by_alias=True, by_name=True)
            except ValidationError as exc:
                error = exc
            else:
                return args, kwargs
        raise ArgumentsError(f"arguments do not fit task {self._name}: {self._summary(error)}") from None

    def _skip_injected(self, index: int, name: str, annotation: Any) -> Literal["skip"] | None:
        if annotation is JobContext or annotation is CancellationToken:
            by_place = self._parameters[name].kind in _BY_PLACE
            self._injected.append(_Injected(name, index if by_place else None, annotation is JobContext))
            return "skip"
        return None

    def _inject(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], context: JobContext
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Put each at its place among the positional ones if these reach so far, else by its name."""
        for wanted in self._injected:
            value = context if wanted.is_context else context.cancellation
            if wanted.place is not None and wanted.place <= len(args):
                args = (*args[: wanted.place], value, *args[wanted.place :])
            else:
                kwargs[wanted.name] = value
        return args, kwargs

    def _summary(self, error: ValidationError) -> str:
        """What is wrong with which argument; without the values, which may be secret."""
        found = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [f"{self._place(one['loc'])}: {one['msg']}" for one in found[:_ERRORS_NAMED_MAX]]
        more = len(found) - len(lines)
        return "; ".join(lines) + (f"; and {more} more" if more else "")

    def _place(self, loc: tuple[int | str, ...]) -> str:
        """The argument's name, with the place inside of it; its number when it was one too many."""
        injected = {wanted.name for wanted in self._injected}
        by_place = [name for name, one in self._parameters.items() if one.kind in _BY_PLACE and name not in injected]
        if loc and isinstance(loc[0], int) and loc[0] < len(by_place):
            loc = (by_place[loc[0]], *loc[1:])
        return ".".join(map(str, loc))


def _each_from_json(schema: Any) -> Any:
    """The same arguments, each given as the text of its JSON; None if `**` takes an unpacked TypedDict."""
    if schema["type"] == "definitions":
        inner = _each_from_json(schema["schema"])
        return inner and schema | {"schema": inner}
    if schema.get("var_kwargs_mode") == "unpacked-typed-dict":
        return None
    changed = {name: json_schema(schema[name]) for name in _REST if name in schema}
    return schema | changed | {"arguments_schema": list(map(_from_json, schema["arguments_schema"]))}


def _from_json(parameter: Any) -> Any:
    """The default of a parameter is left outside, as it is no JSON."""
    inner = parameter["schema"]
    return parameter | {"schema": _from_json(inner) if inner["type"] == "default" else json_schema(inner)}
