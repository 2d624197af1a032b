"""Queues that are chosen by arguments: `tenant-{tenant}` is the queue tenant-7 for a job with tenant=7."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from inspect import Parameter, signature
from string import Formatter
from typing import Any, get_type_hints

from joblog.services.tasks.context import CancellationToken, JobContext
from joblog.streams.contract.fields import is_queue, wrong_queue
from joblog.streams.errors import InvalidData

_INJECTED = (JobContext, CancellationToken)
_BY_PLACE = frozenset({Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD})


def is_template(queue: str) -> bool:
    return "{" in queue or "}" in queue


def queue_problem(queue: str) -> str | None:
    """What is wrong with the name of a queue, or the template of one."""
    if not is_template(queue):
        return None if is_queue(queue) else wrong_queue(queue)
    try:
        parts = list(Formatter().parse(queue))
    except ValueError as exc:
        return f"queue {queue!r:.100}: {exc}"
    for _, name, specification, conversion in parts:
        if name is not None and (not name.isidentifier() or specification or conversion):
            return f"queue {queue!r:.100}: write {{name}} with the name of an argument, and nothing else in braces"
    return None


def queue_of_call(
    queue: str, task: str, function: Callable[..., Any] | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> str:
    """The queue of a job with these arguments; InvalidData if one is missing, or makes no name of a queue.

    Without the function, for a task that is given by its name, only arguments that are given by name are known.
    """
    known = _by_name(function, args, kwargs)
    try:
        made = queue.format_map(known)
    except KeyError as exc:
        hint = "" if function is not None else "; give it by name, since a task's name does not tell its parameters"
        raise InvalidData(f"queue {queue} of {task}: the job has no argument {exc.args[0]}{hint}") from None
    if not is_queue(made):
        raise InvalidData(f"queue {queue} of {task}: {wrong_queue(made)}")
    return made


def _by_name(
    function: Callable[..., Any] | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    if function is None:
        return kwargs
    places, defaults = _parameters(function)
    return {**defaults, **dict(zip(places, args, strict=False)), **kwargs}


@lru_cache
def _parameters(function: Callable[..., Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The parameters that a job may give by place, and the defaults of all; without those that a worker fills."""
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):  # a worker would refuse the task; here its parameters are enough
        hints = {}
    given = [one for one in signature(function).parameters.values() if hints.get(one.name) not in _INJECTED]
    places = tuple(one.name for one in given if one.kind in _BY_PLACE)
    return places, {one.name: one.default for one in given if one.default is not Parameter.empty}
