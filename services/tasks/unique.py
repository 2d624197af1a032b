"""Unique keys that a task declares: `{order_id}` in the key stands for an argument of each job."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from string import Formatter
from typing import Any, Final, Protocol

from joblog.streams.contract.cloudevents import explained
from joblog.streams.contract.commands import Unique
from joblog.streams.errors import InvalidData, SettingsError
from pydantic import ValidationError

_PLACES: Final = Formatter()
_BY_PLACE: Final = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
#: What a key can be made of: a text that is the same wherever the job is created.
_PLAIN: Final = (str, int, bool)


class Callee(Protocol):
    """What is needed of a task here."""

    @property
    def name(self) -> str: ...
    @property
    def function(self) -> Callable[..., Any]: ...


def check_key(task: str, function: Callable[..., Any], unique: Unique) -> None:
    """Raise SettingsError unless each place in the key is the name of a parameter."""
    if not isinstance(unique, Unique):
        raise SettingsError(f'task {task}: unique={unique!r:.60} is no unique key: write Unique(key="{{order_id}}")')
    known = inspect.signature(function).parameters
    try:
        places = [
            name if conversion is None else f"{name}!{conversion}"
            for _, name, _, conversion in _PLACES.parse(unique.key)
            if name is not None
        ]
    except ValueError as exc:
        raise SettingsError(f"task {task}: unique key {unique.key!r}: {exc}") from exc
    for name in places:
        if name not in known:
            raise SettingsError(
                f"task {task}: {{{name}}} in unique key {unique.key!r} is no parameter: it has {', '.join(known)}"
            )


def keyed(unique: Unique, task: Callee, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Unique:
    """The unique key of one job; raises InvalidData for arguments that make none."""
    parameters = inspect.signature(task.function).parameters.values()
    values = {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
    values |= dict(zip((one.name for one in parameters if one.kind in _BY_PLACE), args, strict=False))
    values |= kwargs
    made = ""
    for text, name, spec, _ in _PLACES.parse(unique.key):
        made += text
        if name is not None:
            if not isinstance(values.get(name), _PLAIN):
                raise InvalidData(
                    f"{{{name}}} in the unique key of task {task.name} needs a text or an integer, "
                    f"not {values.get(name)!r:.60}: give options=JobOptions(unique=Unique(key=...))"
                )
            try:
                made += format(values[name], spec or "")
            except ValueError as exc:
                raise InvalidData(f"{{{name}:{spec}}} in the unique key of task {task.name}: {exc}") from exc
    try:
        return Unique.model_validate({**unique.model_dump(), "key": made})
    except ValidationError as exc:
        raise InvalidData(f"unique key of task {task.name}: {explained(exc)}") from exc
