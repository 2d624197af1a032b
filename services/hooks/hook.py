"""`@on_transition`: functions that are told of the transitions of jobs, and the list of those of a process."""

import asyncio
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import update_wrapper
from types import ModuleType
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar

from joblog.services.tasks.modules import declared, imported
from joblog.streams.contract.states import State
from joblog.streams.errors import SettingsError
from joblog.streams.hooks.transition import Transition

P = ParamSpec("P")
R = TypeVar("R")


class HookLeft(Exception):
    """A hook ended in a way that is meant for its thread, not for this process."""


class Hook(Generic[P, R]):
    """A function with the transitions that it wants; calling it calls the function, here and now.

    - states, tasks, queues: None for all. traversed: whether it wants failures that a retry follows.
    """

    __name__: str  # the function's, as its docstring

    def __init__(
        self,
        function: Callable[P, R],
        states: frozenset[State] | None,
        tasks: frozenset[str] | None,
        queues: frozenset[str] | None,
        *,
        traversed: bool,
    ) -> None:
        update_wrapper(self, function)
        self.function: Final = function
        self.name: Final = f"{function.__module__}.{function.__qualname__}"
        self._states, self._tasks, self._queues, self._traversed = states, tasks, queues, traversed
        self._is_async = inspect.iscoroutinefunction(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<hook {self.name}>"

    def wants(self, transition: Transition) -> bool:
        return (
            (self._states is None or transition.state in self._states)
            and (self._traversed or not transition.traversed)
            and (self._tasks is None or transition.task in self._tasks)
            and (self._queues is None or transition.queue in self._queues)
        )

    def call(self, transition: Transition) -> object:
        """Call the function, and wait for it if it is async; what ends a thread or process is an error as others."""
        function: Callable[..., Any] = self.function
        try:
            returned = function(transition)
            return asyncio.run(returned) if self._is_async else returned
        except Exception:
            raise
        except BaseException as error:
            raise HookLeft(f"it raised {type(error).__name__}: {error}") from error


def on_transition(
    *misplaced: Any,
    states: Sequence[State] | State | None = None,
    tasks: Sequence[str] | str | None = None,
    queues: Sequence[str] | str | None = None,
    traversed: bool = False,
) -> Callable[[Callable[P, R]], Hook[P, R]]:
    """Make a function, sync or async, of one `Transition` a hook; `joblog hooks --modules` calls it.

    - states, tasks, queues: those of the transitions that it gets, one or several; None for all.
    - traversed: also failures that are replaced, by a retry for example.

    It is told of each transition at least once, those of a job in their order: after a crash it is called again, and
    should know by job id and version what it has done. One that raises is called again after a while.

    Raises SettingsError for a value that no hook can have.
    """
    if misplaced:
        raise SettingsError("write @on_transition() with brackets above the function")
    wanted = _several(states, "states", State), _several(tasks, "tasks", str), _several(queues, "queues", str)

    def made(function: Callable[P, R]) -> Hook[P, R]:
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise SettingsError(f"hook {function!r} is a generator, which nobody would run to its end")
        if not inspect.isroutine(function):
            raise SettingsError(f"@on_transition must stand above a function, not {function!r:.60}")
        try:
            inspect.signature(function).bind(None)
        except TypeError as exc:
            raise SettingsError(f"hook {function!r} cannot be called with one transition: {exc}") from exc
        return Hook(function, *wanted, traversed=traversed)

    return made


def _several(given: Any, name: str, kind: type) -> frozenset[Any] | None:
    if given is None:
        return None
    several = (given,) if isinstance(given, str) else tuple(given)
    try:
        found = frozenset(kind(one) for one in several)
    except ValueError as exc:
        raise SettingsError(f"{name}={given!r:.60}: {exc}") from exc
    if not found or not all(found):
        raise SettingsError(f"{name}={given!r:.60} names nothing: leave it out for all")
    return found


class HookRegistry:
    """The hooks that a process has. Nothing gets in but what it was made from."""

    def __init__(self, hooks: Sequence[Hook[..., Any]]) -> None:
        self._hooks: Final = tuple(hooks)

    @classmethod
    def of(cls, *sources: ModuleType | Hook[..., Any]) -> Self:
        """All hooks among and in `sources`; SettingsError when two have one name."""
        found: dict[str, Hook[..., Any]] = {}
        for one in declared(sources, Hook):
            if found.setdefault(one.name, one) is not one:
                raise SettingsError(f"two hooks have the name {one.name}: rename one of the functions")
        return cls(list(found.values()))

    @classmethod
    def load(cls, *modules: str) -> Self:
        """The hooks of the modules of these names; SettingsError when one has none or cannot be imported."""
        return cls.of(*(imported(name, Hook, "on_transition") for name in modules))

    def __iter__(self) -> Iterator[Hook[..., Any]]:
        return iter(self._hooks)
