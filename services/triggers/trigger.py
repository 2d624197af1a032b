"""Triggers: functions that say which jobs an event is, and the explicit list of those that a process has."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import update_wrapper
from re import fullmatch
from types import ModuleType
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar

from joblog.services.tasks.modules import declared, imported
from joblog.streams.errors import SettingsError

P = ParamSpec("P")
R = TypeVar("R")

TOPIC_PATTERN: Final = r"[A-Za-z0-9._-]{1,249}"


class Trigger(Generic[P, R]):
    """A function with the events that it wants; calling it calls the function, here and now.

    - name: the function's, with its module; part of the ids of its jobs, so another name makes other jobs.
    - types, sources: None for all.
    """

    __name__: str  # the function's, as its docstring

    def __init__(
        self,
        function: Callable[P, R],
        topic: str,
        types: frozenset[str] | None,
        sources: frozenset[str] | None,
    ) -> None:
        update_wrapper(self, function)
        self.function: Final = function
        self.name: Final = f"{function.__module__}.{function.__qualname__}"
        self.topic: Final = topic
        self.types: Final = types
        self.sources: Final = sources

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<trigger {self.name} on {self.topic}>"


def trigger(
    *misplaced: Any,
    topic: str = "",
    type: str | Sequence[str] | None = None,  # noqa: A002 - as in the event
    source: str | Sequence[str] | None = None,
) -> Callable[[Callable[P, R]], Trigger[P, R]]:
    """Make a function, sync or async, of one event a trigger.

    - topic: where the events are, with its whole name on the broker.
    - type, source: those of the events that the function gets, a text or several; None for all.

    The function gets an `IncomingEvent`, and returns a `Job`, several, or None. It is called again when it raises,
    and after a crash, so it should decide from the event alone. Sync functions run in threads, async functions on
    one event loop of their own: one that blocks it holds up the others.

    Raises SettingsError for a value that no trigger can have.
    """
    if misplaced or topic == "":
        raise SettingsError('a trigger needs a topic: write @trigger(topic="uploads") above the function')
    if not isinstance(topic, str) or not fullmatch(TOPIC_PATTERN, topic) or topic in {".", ".."}:
        raise SettingsError(f"{topic!r:.60} cannot be the name of a topic: it must match {TOPIC_PATTERN}")
    types, sources = _wanted(type, "type"), _wanted(source, "source")

    def made(function: Callable[P, R]) -> Trigger[P, R]:
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise SettingsError(f"trigger {function!r} is a generator: let it return a list of jobs")
        if not inspect.isroutine(function):
            raise SettingsError(f"@trigger must stand above a function, not {function!r:.60}")
        try:
            inspect.signature(function).bind(None)
        except TypeError as exc:
            raise SettingsError(f"trigger {function!r} cannot be called with one event: {exc}") from exc
        return Trigger(function, topic, types, sources)

    return made


def _wanted(given: Any, name: str) -> frozenset[str] | None:
    if given is None:
        return None
    several = (given,) if isinstance(given, str) else tuple(given)
    if not several or not all(isinstance(one, str) and one for one in several):
        raise SettingsError(f"{name}={given!r:.60} is no text, and no texts: leave it out for all events")
    return frozenset(several)


class TriggerRegistry:
    """The triggers that a process has. Nothing gets in but what it was made from."""

    def __init__(self, triggers: Sequence[Trigger[..., Any]]) -> None:
        self._triggers: Final = tuple(triggers)

    @classmethod
    def of(cls, *sources: ModuleType | Trigger[..., Any]) -> Self:
        """All triggers among and in `sources`; SettingsError when two have one name."""
        found: dict[str, Trigger[..., Any]] = {}
        for one in declared(sources, Trigger):
            if found.setdefault(one.name, one) is not one:
                raise SettingsError(f"two triggers have the name {one.name}: rename one of the functions")
        return cls(list(found.values()))

    @classmethod
    def load(cls, *modules: str) -> Self:
        """The triggers of the modules of these names; SettingsError when one has none or cannot be imported."""
        return cls.of(*(imported(name, Trigger, "trigger") for name in modules))

    @property
    def topics(self) -> tuple[str, ...]:
        return tuple(sorted({one.topic for one in self._triggers}))

    def __iter__(self) -> Iterator[Trigger[..., Any]]:
        return iter(self._triggers)

    def __len__(self) -> int:
        return len(self._triggers)
