"""What other packages offer as entry points, made or named."""

from collections.abc import Callable
from importlib.metadata import EntryPoint
from traceback import format_exception_only
from typing import Any

from joblog.streams.errors import SettingsError


def make_filter(found: EntryPoint, check: Callable[[Any], object], members: str) -> Any:
    """The filter that an entry point leads to; `check` raises for one that could not be used.

    SettingsError says which cannot be made, why, and what `members` it must have.
    """
    try:
        made = found.load()()
        check(made)
    except Exception as error:
        said = "".join(format_exception_only(error)).strip()
        raise SettingsError(
            f"filter {found.name} ({found.value}, of the entry points {found.group}) cannot be used: {said}. "
            f"It must be a class without arguments, with {members}"
        ) from error
    return made
