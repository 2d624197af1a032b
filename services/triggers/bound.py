"""Triggers in a process: their functions are called apart from it, so that none of them can hold up or end it."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any, Final, Protocol

from joblog.services.client.templates import Rules
from joblog.services.triggers.jobs import commands_of
from joblog.services.triggers.trigger import Trigger
from joblog.streams.triggers.handling import Command, FunctionLeft
from joblog.streams.triggers.incoming import IncomingEvent

#: Functions that are not async run in so many threads, which begin when they are needed. A partition has one at a
#: time; one that blocks keeps its own also when the partition has gone to another process.
THREADS: Final = 1_000


class Calls(Protocol):
    """Where functions are called: apart from the process, or, in users' tests, where they are."""

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any: ...

    async def on_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any: ...


class CallsApart:
    """Threads for sync functions, and an event loop in a thread for async ones."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "trigger")
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, name="trigger-async", daemon=True).start()

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, called, function, *args)

    async def on_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(awaited(coroutine), self._loop))


class BoundTrigger:
    """A trigger in a process."""

    def __init__(self, known: Trigger[..., Any], rules: Rules, calls: Calls) -> None:
        self._known = known
        self._rules = rules
        self._calls = calls

    @property
    def name(self) -> str:
        return self._known.name

    def matches(self, event: IncomingEvent) -> bool:
        """Whether the function wants this event."""
        known = self._known
        return (
            event.topic == known.topic
            and (known.types is None or event.type in known.types)
            and (known.sources is None or event.source in known.sources)
        )

    async def call(self, event: IncomingEvent) -> Any:
        """What the function returns; raises what it raises."""
        function = self._known.function
        if inspect.iscoroutinefunction(function):
            return await self._calls.on_loop(function(event))
        return await self._calls.in_thread(function, event)

    async def commands(self, event: IncomingEvent, returned: Any) -> Sequence[Command]:
        """The commands for what was returned; raises InvalidData if that is not jobs.

        In a thread: what was returned may be many jobs, or compute them only now.
        """
        made: list[Command] = await self._calls.in_thread(commands_of, event, self.name, returned, self._rules)
        return made


class _Stopped(Exception):
    """A function raised StopIteration, which asyncio refuses to carry out of a thread."""


def called(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of the user's so that a coroutine can carry out what it raises."""
    try:
        return function(*args)
    except StopIteration as error:
        raise _Stopped("it raised StopIteration") from error


async def awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await one of the user's, and keep the loop alive: it would end with these two."""
    try:
        return await coroutine
    except (KeyboardInterrupt, SystemExit) as error:
        raise FunctionLeft(f"it raised {error!r}") from error
