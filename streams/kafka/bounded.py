"""Calls into librdkafka that may never return, left behind when they do not."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from joblog.streams.errors import JoblogError


class Hung(JoblogError):
    """The call did not return in time; it goes on in its thread, and nobody hears of its end."""


class Bounded:
    """Makes calls in a thread of its own, and waits for each at most so long.

    A thread that hangs is left behind; it is a daemon, so that the process can end. Used from one thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], Any] | None] | None = None
        self._hung: list[threading.Event] = []

    @property
    def left_behind(self) -> int:
        """How many calls have not returned yet, although nobody waits for them any more."""
        self._hung = [done for done in self._hung if not done.is_set()]
        return len(self._hung)

    def call(
        self,
        function: Callable[..., Any],
        *args: Any,
        timeout_s: float,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:
        """Call it; raises what it raises, or Hung. `meanwhile` is called in the caller's thread, before it waits."""
        done = threading.Event()
        errors: list[BaseException] = []

        def run() -> None:
            try:
                function(*args)
            except BaseException as error:  # noqa: BLE001  # it is raised again where the call was made
                errors.append(error)
            finally:
                done.set()

        self._thread().put(run)
        if meanwhile is not None:
            meanwhile()
        if not done.wait(timeout_s):
            self._hung.append(done)
            self.close()  # the next call has another thread
            raise Hung(f"{function.__name__} has not returned for {timeout_s:g} s")
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Let the thread end, now or when its call returns."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None

    def _thread(self) -> "SimpleQueue[Callable[[], Any] | None]":
        if self._calls is None:
            calls = self._calls = SimpleQueue()
            threading.Thread(target=_serve, args=(calls,), name=self._name, daemon=True).start()
        return self._calls


def _serve(calls: "SimpleQueue[Callable[[], Any] | None]") -> None:
    while (call := calls.get()) is not None:
        call()
