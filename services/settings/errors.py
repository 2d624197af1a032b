"""Explains what is wrong with settings, by the names under which they are set."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from pydantic import BaseModel, ValidationError

PREFIX: Final = "JOBLOG_"
_SHOWN_MAX: Final = 10
#: How similar a variable without its prefix must be to a setting to be taken for a mistyped one.
_NEAR: Final = 0.75
#: Variables that Kubernetes sets for services of ours, such as JOBLOG_HTTP_PORT=tcp://..., and those of our tests.
_FOREIGN: Final = re.compile(r"^TEST_|(^|_)SERVICE_(HOST|PORT)|(^|_)PORT_\d+_|=(tcp|udp|sctp)://")


def explain(error: ValidationError, settings: type[BaseModel]) -> str:
    """One line for each mistake: the variable, its name in a file, and what it should be."""
    found = error.errors(include_url=False, include_input=False)
    lines = [_line(one["type"], one["loc"], one["msg"], settings) for one in found[:_SHOWN_MAX]]
    more = len(found) - len(lines)
    return "\n".join(lines) + (f"\nand {more} more" if more else "")


def variable(path: tuple[Any, ...]) -> str:
    """The environment variable of a setting."""
    return PREFIX + "__".join(map(str, path)).upper()


def unread(environment: Mapping[str, str], settings: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Variables with our prefix that are not settings, each with the most similar setting, if there is one.

    Those within a group, such as JOBLOG_WORKER__SLOTZ, are refused by the model.
    """
    known = [variable(path).removeprefix(PREFIX) for path in paths(settings)]
    for name, value in environment.items():
        told = name.upper().removeprefix(PREFIX)
        is_ours = name.upper().startswith(PREFIX) and not _FOREIGN.search(f"{told}={value}")
        if is_ours and told.split("__")[0].lower() not in settings.model_fields:
            close = get_close_matches(told, known, n=1, cutoff=_NEAR)
            yield name, PREFIX + close[0] if close else ""


def suggestion(name: str, known: list[str], cutoff: float = 0.6) -> str:
    """`; did you mean x?` if one of the known names is close."""
    close = get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"; did you mean {close[0]}?" if close else ""


def paths(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """All settings of a model, groups entered."""
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            yield from paths(group, path)
        else:
            yield path


def _line(kind: str, path: tuple[Any, ...], message: str, settings: type[BaseModel]) -> str:
    if not path:
        return message.removeprefix("Value error, ")
    # A position in a list has no name.
    path = tuple(part for part in path if not isinstance(part, int))
    dotted = ".".join(path)
    if kind == "extra_forbidden":
        siblings = [known[len(path) - 1] for known in paths(settings) if known[: len(path) - 1] == path[:-1]]
        return f"{dotted} ({variable(path)}) is not a setting{suggestion(str(path[-1]), siblings)}"
    return f"{variable(path)} ({dotted}): {message.removeprefix('Value error, ')}"
