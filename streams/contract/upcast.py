"""Old formats of commands and events, converted to the current ones: one function for each change, none ever removed.

A log that is kept for ever holds every format that was ever written. Readers try the current format first; what does
not fit is converted here and tried once more.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

Data = dict[str, Any]
Upcast = Callable[[str, Data], tuple[str, Data]]

#: Wire type as it was written -> the steps that make it current, oldest first.
COMMANDS: Final[Mapping[str, tuple[Upcast, ...]]] = {}
EVENTS: Final[Mapping[str, tuple[Upcast, ...]]] = {}


def upcast(table: Mapping[str, tuple[Upcast, ...]], kind: str, data: Data) -> tuple[str, Data]:
    """Type and data in their current format; current ones come back as they are."""
    for step in table.get(kind, ()):
        kind, data = step(kind, data)
    return kind, data


def upcast_command(kind: str, data: Data) -> tuple[str, Data]:
    """A command's type and data in their current format."""
    return upcast(COMMANDS, kind, data)


def upcast_event(kind: str, data: Data) -> tuple[str, Data]:
    """An event's type and data in their current format."""
    return upcast(EVENTS, kind, data)
