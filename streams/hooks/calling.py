"""From a record of `events` to the calls of hooks: at least once each, in the order of the log, with all retries.

A hook that raises is called again after a while, and holds up the lanes of its process meanwhile, since what follows
may be about the same job. When that did not help, the record is parked in the dead letters, and the next hook has its
turn; a record that is no event is parked at once.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from joblog.streams.contract import deadletters
from joblog.streams.errors import ContractError
from joblog.streams.hooks.transition import Transition, read_transition
from joblog.streams.patience import Patience

log = logging.getLogger(__name__)

ROLE: Final = "hooks"
HOOK_RAISED: Final = "hook_raised"


class Stopped(Exception):
    """The process stops, or the record is another one's by now: it is not done."""


class Hook(Protocol):
    """A function of the user's that wants to know of transitions."""

    @property
    def name(self) -> str: ...

    def wants(self, transition: Transition) -> bool: ...

    def call(self, transition: Transition) -> object:
        """Call the function; raises what it raises, as an Exception."""


class Record(Protocol):
    """A record of the topic (a confluent-kafka message)."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...


class Surroundings(Protocol):
    """What calling needs of its process; both raise Stopped."""

    def run_function(self, call: Callable[[], object]) -> None:
        """Call it, and return when it has; raises what it raises."""

    def wait(self, seconds: float) -> None: ...

    def park(self, record: Record, code: str, reason: str) -> None:
        """Return when the dead letter is written."""


class Calling:
    """Handles one record after the other; `count` is `Meters.inc`."""

    def __init__(
        self, hooks: Sequence[Hook], around: Surroundings, patience: Patience, count: Callable[..., object]
    ) -> None:
        self._hooks = tuple(hooks)
        self._around = around
        self._patience = patience
        self._count = count

    def handle(self, record: Record) -> None:
        """Return when all hooks know of it, or it is parked. Raises Stopped."""
        place = f"{record.topic()}/{record.partition()}@{record.offset()}"
        try:
            transition = read_transition(record.value(), place)
        except ContractError as error:
            log.warning("hooks.undecodable", extra={"place": place, "reason": error.reason})
            self._park(record, error.code, error.reason)
            return
        if transition is None:
            return
        for hook in self._hooks:
            if hook.wants(transition):
                self._tell(hook, transition, record)

    def _tell(self, hook: Hook, transition: Transition, record: Record) -> None:
        for attempt in range(1, self._patience.attempts + 1):
            try:
                self._around.run_function(lambda: hook.call(transition))
            except Stopped:
                raise
            except Exception as error:  # the user's function: it is called again, and parked
                self._count("joblog_hook_calls_total", hook.name, "raised")
                log.warning(
                    "hooks.raised",
                    extra={"hook": hook.name, "place": transition.place, "attempt": attempt},
                    exc_info=error,
                )
                failure = error
            else:
                self._count("joblog_hook_calls_total", hook.name, "returned")
                return
            if attempt < self._patience.attempts:
                self._around.wait(self._patience.delay_after(attempt))
        self._park(record, HOOK_RAISED, _told(hook, failure))

    def _park(self, record: Record, code: str, reason: str) -> None:
        self._around.park(record, code, reason)
        self._count("joblog_quarantined_records_total", ROLE, code)


def _told(hook: Hook, error: Exception) -> str:
    """What the hook raised, in a line, and as much of the end of its traceback as a dead letter has room for."""
    told = deadletters.internal_error(error)
    first = f"{hook.name}: {told.reason}\n"
    return first + told.details[-max(deadletters.REASON_CHARACTERS_MAX - len(first), 1) :]
