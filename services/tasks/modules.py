"""Modules of the user's that settings name, and what is declared in them: tasks and triggers."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from types import ModuleType
from typing import TypeVar

from joblog.streams.errors import SettingsError

Declared = TypeVar("Declared")


def imported(name: str, kind: type, what: str) -> ModuleType:
    """The module of this name, which declares something of this kind; `what` is the decorator's name.

    Raises SettingsError when there is none, when it imports what is not there, or when it declares nothing.
    """
    if not all(name.split(".")):
        raise SettingsError(f"{name!r} is no name of a module: write it in full, such as myapp.{what}s")
    try:
        module = import_module(name)
    except ImportError as exc:
        told = f"the {what}s of {name} cannot be imported: {exc}"
        if isinstance(exc, ModuleNotFoundError) and exc.name in {name, name.partition(".")[0]}:
            told += ": start joblog in the directory that has it, or install it in this environment"
        raise SettingsError(told) from exc
    if next(declared([module], kind), None) is None:
        raise SettingsError(f"{name} has no {what}s: nothing in it was made with @{what}")
    return module


def declared(sources: Sequence[object], kind: type[Declared]) -> Iterator[Declared]:
    """All of this kind among `sources`, and in those of them that are modules."""
    for source in sources:
        if isinstance(source, kind):
            yield source
        else:
            yield from (value for value in vars(source).values() if isinstance(value, kind))
