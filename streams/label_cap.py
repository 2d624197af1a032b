"""Keeps a label's values bounded: the first names are told apart, whatever comes after them is one value."""

from typing import Final

#: The value that stands for all names beyond the cap, and for one that is really called so.
OTHER: Final = "other"


class LabelCap:
    """The names that one label may have in this process; called with a name, it returns the label's value."""

    __slots__ = ("_known", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, None] = {}

    def __call__(self, name: str) -> str:
        if name in self._known:
            return name
        # Threads may get here at the same time; then a few more names than `most` are told apart.
        if len(self._known) < self._most:
            self._known[name] = None
            return name
        return OTHER
