"""Unique keys that a task declares: `{order_id}` in the key stands for an argument of each job."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from joblog.services.tasks.keys import Callee, check_places, formed
from joblog.streams.contract.cloudevents import explained
from joblog.streams.contract.commands import Unique
from joblog.streams.errors import InvalidData, SettingsError
from pydantic import ValidationError

_INSTEAD: Final = "give options=JobOptions(unique=Unique(key=...))"


def check_key(task: str, function: Callable[..., Any], unique: Unique) -> None:
    """Raise SettingsError unless each place in the key is the name of a parameter."""
    if not isinstance(unique, Unique):
        raise SettingsError(f'task {task}: unique={unique!r:.60} is no unique key: write Unique(key="{{order_id}}")')
    check_places(task, f"unique key {unique.key!r}", function, unique.key)


def keyed(unique: Unique, task: Callee, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Unique:
    """The unique key of one job; raises InvalidData for arguments that make none."""
    made = formed("unique key", _INSTEAD, task, unique.key, args, kwargs)
    try:
        return Unique.model_validate({**unique.model_dump(), "key": made})
    except ValidationError as exc:
        raise InvalidData(f"unique key of task {task.name}: {explained(exc)}") from exc
