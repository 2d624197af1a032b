"""What is wrong with the settings, told by the names that people set them by."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Final

from pydantic import BaseModel, ValidationError

PREFIX: Final = "JOBLOG_"
_SHOWN_MAX: Final = 10


def explain(error: ValidationError, settings: type[BaseModel]) -> str:
    """One line for each mistake: the variable, its name in a file, and what it should be."""
    found = error.errors(include_url=False, include_input=False)
    lines = [_line(one["type"], one["loc"], one["msg"], settings) for one in found[:_SHOWN_MAX]]
    more = len(found) - len(lines)
    return "\n".join(lines) + (f"\nand {more} more" if more else "")


def variable(path: tuple[Any, ...]) -> str:
    """The environment variable of a setting."""
    return PREFIX + "__".join(map(str, path)).upper()


def suggestion(name: str, known: list[str], cutoff: float = 0.6) -> str:
    """`; did you mean x?` if one of the known names is close."""
    close = get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"; did you mean {close[0]}?" if close else ""


def paths(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """All settings of a model, groups entered."""
    for name, field in model.model_fields.items():
        path = (*prefix, field.alias or name)
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            yield from paths(group, path)
        else:
            yield path


def _line(kind: str, path: tuple[Any, ...], message: str, settings: type[BaseModel]) -> str:
    if not path:
        return message.removeprefix("Value error, ")
    dotted = ".".join(map(str, path))
    if kind == "extra_forbidden":
        siblings = [known[len(path) - 1] for known in paths(settings) if known[: len(path) - 1] == path[:-1]]
        return f"{dotted} ({variable(path)}) is not a setting{suggestion(str(path[-1]), siblings)}"
    return f"{variable(path)} ({dotted}): {message.removeprefix('Value error, ')}"
