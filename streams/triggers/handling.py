"""From a record to what follows from it: create commands in the lanes of their jobs, or dead letters.

Three kinds of trouble are kept apart. A record that is no event, a function that returns no jobs, and a job that is
too large for Kafka will not get better: the record is parked at once. A function that raises may: it is called again,
and the record is parked when that did not help.
Kafka in trouble is neither's fault: sending waits for it (writing.py), and nothing is parked or skipped.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from joblog.streams.contract import deadletters
from joblog.streams.contract.deadletters import internal_error
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.record_headers import is_name
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import ContractError
from joblog.streams.patience import Patience
from joblog.streams.triggers.incoming import IncomingEvent, read_event
from joblog.streams.triggers.records import Outgoing, Record, TooLarge

log = logging.getLogger(__name__)

ROLE: Final = "triggers"
#: How the reason begins for which a process is not ready whose topics are not there.
WAITING_FOR_TOPICS: Final = "waiting for topics that triggers name and that are not there"
#: Why a record is parked for a function: what it raised in its last attempt, that it returned no jobs, or that Kafka
#: refuses one for its size.
FUNCTION_RAISED: Final = "function_raised"
NOT_A_JOB: Final = "not_a_job"
TOO_LARGE: Final = "too_large"

Write = Callable[[Sequence[Outgoing]], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]


class Command(NamedTuple):
    """A create command; the id names the lane."""

    job_id: str
    value: bytes


class TriggerFunction(Protocol):
    """A function of the user's that says which jobs an event is."""

    @property
    def name(self) -> str: ...

    def matches(self, event: IncomingEvent) -> bool:
        """Whether the function wants this event."""

    async def call(self, event: IncomingEvent) -> Any:
        """What the function returns; raises what it raises."""

    async def commands(self, event: IncomingEvent, returned: Any) -> Sequence[Command]:
        """The commands for what was returned. Raises ContractError if that is not jobs, or none that can be made."""


class Handling:
    """Handles one record after the other, of any partitions; `count` is `Meters.inc`."""

    def __init__(
        self,
        triggers: Sequence[TriggerFunction],
        names: TopicNames,
        write: Write,
        patience: Patience,
        count: Callable[..., object],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._triggers = tuple(triggers)
        self._names = names
        self._write = write
        self._patience = patience
        self._count = count
        self._sleep = sleep

    async def handle(self, record: Record) -> None:
        """Return when Kafka has acknowledged everything that follows from the record."""
        self._count("joblog_trigger_events_total", record.topic)
        try:
            event = read_event(record)
        except ContractError as error:
            await self._park(record, error.code, error.reason, "")
            return
        except Exception as error:  # noqa: BLE001 - nobody foresaw it, and it would come again: the record is parked
            told = internal_error(error)
            await self._park(record, told.code, f"{told.reason}\n{told.details}", "")
            return
        if event is None:
            log.debug("triggers.tombstone", extra={"place": record.place})
            return
        for trigger in self._triggers:
            if trigger.matches(event):
                await self._pull(trigger, record)

    async def _pull(self, trigger: TriggerFunction, record: Record) -> None:
        """Call the function until it returns, and send what its jobs need."""
        attempt = 1
        while True:
            try:
                commands = await _commands(trigger, record)
            except NoJobs as error:
                await self._park(record, NOT_A_JOB, f"{trigger.name}: {error}", trigger.name)
                return
            except Exception as error:  # the user's function: it is called again, and parked
                self._count("joblog_trigger_errors_total", trigger.name)
                log.warning(
                    "triggers.function_raised",
                    extra={"trigger": trigger.name, "place": record.place, "attempt": attempt},
                    exc_info=error,
                )
                if attempt >= self._patience.attempts:
                    await self._park(record, FUNCTION_RAISED, _told(trigger, error), trigger.name)
                    return
                await self._sleep(self._patience.delay_after(attempt))
                attempt += 1
            else:
                break
        if not commands:
            return
        try:
            await self._write([self._outgoing(command) for command in commands])
        except TooLarge as error:
            await self._park(record, TOO_LARGE, f"{trigger.name}: {error}", trigger.name)
        else:
            self._count("joblog_trigger_jobs_total", trigger.name, by=len(commands))

    def _outgoing(self, command: Command) -> Outgoing:
        return Outgoing(self._names.commands, command.job_id, command.value, lane_of_job(command.job_id))

    async def _park(self, record: Record, code: str, reason: str, trigger: str) -> None:
        own = [(name, value) for name, value in record.headers if is_name(name)]
        said = deadletters.headers(code, reason, ROLE, record.topic, record.partition, record.offset, own)
        key, value = deadletters.key(record.key), deadletters.value(record.value)
        letter = Outgoing(self._names.deadletters, key, value, headers=said)
        try:
            await self._write([letter])
        except TooLarge:  # our headers say where the whole record is
            ours = deadletters.headers(code, reason, ROLE, record.topic, record.partition, record.offset)
            await self._write([letter._replace(key=None, value=None, headers=ours)])
        self._count("joblog_quarantined_records_total", ROLE, code)
        log.warning(
            "triggers.parked", extra={"place": record.place, "code": code, "reason": reason, "trigger": trigger}
        )


def _told(trigger: TriggerFunction, error: Exception) -> str:
    """What the function raised, in a line, and as much of the end of its traceback as a dead letter has room for."""
    told = internal_error(error)
    first = f"{trigger.name}: {told.reason}\n"
    return first + told.details[-max(deadletters.REASON_CHARACTERS_MAX - len(first), 1) :]


class FunctionLeft(Exception):
    """A function ended in a way that is meant for its thread or task, not for this process."""


class NoJobs(Exception):
    """What a function returned is no jobs, or none that can be made."""


async def _commands(trigger: TriggerFunction, record: Record) -> Sequence[Command]:
    """Call the function, and make the commands; raises NoJobs, or what the function raises.

    It gets an event of its own, each time: it may change the data and headers, and the next call, another function
    and the dead letter need them as they came.
    """
    event = read_event(record)
    assert event is not None, "it was an event when it was read first"
    returned = await _ended(trigger.call(event))
    try:
        commands: Sequence[Command] = await _ended(trigger.commands(event, returned))
    except ContractError as error:
        raise NoJobs(error.reason) from error
    return commands


async def _ended(call: Awaitable[Any]) -> Any:
    """What the user's code returns; what it raises to end its thread or task is an error as any other.

    A cancellation is its own unless this task itself is being cancelled, because the partition is taken away.
    """
    try:
        return await call
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise FunctionLeft("it was cancelled") from error
    except Exception:
        raise
    except SystemExit as error:
        raise FunctionLeft(f"it called sys.exit({error.code!r})") from error
    except BaseException as error:  # KeyboardInterrupt, and classes of the user's
        raise FunctionLeft(f"it raised {type(error).__name__}: {error}") from error
