"""Keys that a task declares: `{order_id}` in a key stands for an argument of each job."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from string import Formatter
from typing import Any, Final, Protocol

from joblog.streams.errors import InvalidData, SettingsError

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


def places_of(what: str, key: str) -> list[str]:
    """The names of the places in a key; `what` names it in the SettingsError for a key that cannot be read."""
    try:
        return [
            name if conversion is None else f"{name}!{conversion}"
            for _, name, _, conversion in _PLACES.parse(key)
            if name is not None
        ]
    except ValueError as exc:
        raise SettingsError(f"{what}: {exc}") from exc


def check_places(task: str, what: str, function: Callable[..., Any], key: str) -> None:
    """Raise SettingsError unless each place in the key is the name of a parameter."""
    known = inspect.signature(function).parameters
    for name in places_of(f"task {task}: {what}", key):
        if name not in known:
            raise SettingsError(f"task {task}: {{{name}}} in {what} is no parameter: it has {', '.join(known)}")


def formed(what: str, instead: str, task: Callee, key: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The key of one job; InvalidData for arguments that make none says what to give `instead`."""
    parameters = inspect.signature(task.function).parameters.values()
    values = {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
    values |= dict(zip((one.name for one in parameters if one.kind in _BY_PLACE), args, strict=False))
    values |= kwargs
    made = ""
    for text, name, spec, _ in _PLACES.parse(key):
        made += text
        if name is not None:
            if not isinstance(values.get(name), _PLAIN):
                raise InvalidData(
                    f"{{{name}}} in the {what} of task {task.name} needs a text or an integer, "
                    f"not {values.get(name)!r:.60}: {instead}"
                )
            try:
                made += format(values[name], spec or "")
            except ValueError as exc:
                raise InvalidData(f"{{{name}:{spec}}} in the {what} of task {task.name}: {exc}") from exc
    return made
