"""How a long replay tells how far it is, and how it is stopped."""

from collections.abc import Callable

from joblog.streams.errors import JoblogError

#: Called with the step, how many records of it are done, and how many there are (0: unknown); raises Stopped to stop.
Told = Callable[[str, int, int], None]


class Stopped(JoblogError):
    """Somebody stopped a replay."""


def silent(_step: str, _done: int, _all: int) -> None:
    """Tell nobody, and never stop."""
