"""Settings and values as commands read them."""

import os
import sys
from datetime import UTC, datetime, timedelta
from getpass import getuser
from pathlib import Path
from re import fullmatch
from socket import gethostname
from typing import Annotated, Any, Final

import typer
from joblog.services.cli.context import Cli
from joblog.services.client.options import due_at
from joblog.services.settings.model import Settings
from joblog.services.settings.values import duration_s
from joblog.streams.contract.fields import TASK_PATTERN, is_queue, wrong_queue
from joblog.streams.contract.states import State
from joblog.streams.errors import InvalidData
from msgspec import DecodeError, json

Queues = Annotated[
    str | None,
    typer.Option(help="Queues in order of preference, comma-separated.", show_default="those of the tasks"),
]
#: Which jobs a command is about.
StatesOption = Annotated[
    list[State] | None,
    typer.Option(case_sensitive=False, metavar="STATE", help=f"{', '.join(State)}; may be repeated."),
]
OfQueueOption = Annotated[str | None, typer.Option(help="Only jobs of this queue.")]
OfTaskOption = Annotated[str | None, typer.Option(help="Only jobs of this task.")]
OfWorkerOption = Annotated[str | None, typer.Option(help="Only jobs of this worker.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why; kept in the log.")]
ByOption = Annotated[
    str | None, typer.Option("--by", help="Who; kept in the log.", show_default="the user's and the host's name")
]
_UNITS: Final = {"s": 1, "m": 60}


def settings_of(ctx: typer.Context, **overrides: Any) -> Settings:
    """The settings; `overrides` come from the command's own options and take precedence."""
    cli = ctx.find_object(Cli) or Cli()
    if cli.log_format is not None:
        overrides["logs"] = {"format": cli.log_format.value}
    return Settings.load(cli.config, **overrides)


def from_here() -> None:
    """Make modules in the current directory importable."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


def given(**values: Any) -> dict[str, Any]:
    """The options that were given (not None)."""
    return {name: value for name, value in values.items() if value is not None}


class NotJson(InvalidData):
    """A text is not JSON."""


def parse_json(text: str, what: str) -> Any:
    """Parse a JSON value; raises NotJson, which names `what` was expected, or InvalidData if it is too deep."""
    try:
        return json.decode(text)
    except DecodeError as exc:
        raise NotJson(f"{what}: {text!r:.100} is not JSON ({exc})") from exc
    except RecursionError as exc:
        raise InvalidData(f"{what}: {text!r:.100} is nested too deeply") from exc


def parse_delay(text: str) -> timedelta:
    """`90`, `90s`, `1.5h`, `2d`: seconds if there is no unit."""
    seconds = duration_s(text)
    if seconds is None:
        raise InvalidData(f"{text!r} is not a delay: write 90, 90s, 15m, 1.5h or 2d")
    try:
        return timedelta(seconds=seconds)
    except OverflowError as exc:
        raise InvalidData(f"{text} is too long a delay: write 90, 90s, 15m, 1.5h or 2d") from exc


def parse_due(delay: str | None, at: str | None) -> datetime | None:
    """The instant that --delay or --at names; None without either."""
    if delay is not None and at is not None:
        raise InvalidData("give --delay or --at, not both")
    if delay is not None:
        return due_at(parse_delay(delay), None)
    return None if at is None else parse_instant(at)


def queue_name(text: str | None) -> str | None:
    """A queue's name, if one is given; InvalidData says what to write instead of one that no queue can have."""
    if text is not None and not is_queue(text):
        raise InvalidData(f"--queue: {wrong_queue(text)}")
    return text


def task_name(text: str | None) -> str | None:
    """A task's name, if one is given; InvalidData for one that no task can have."""
    if text is not None and not fullmatch(TASK_PATTERN, text):
        raise InvalidData(f"--task: {text!r:.110} is not a task name: it must match {TASK_PATTERN}")
    return text


def check_filled(**options: str | None) -> None:
    """InvalidData for an option that is given as an empty text."""
    for name, text in options.items():
        if text is not None and not text.strip():
            raise InvalidData(f"--{name.replace('_', '-')} is empty: give a value, or leave it out")


def parse_instant(text: str) -> datetime:
    """An ISO 8601 time; one without a zone is in UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidData(f"{text!r} is not a time: write 2027-01-31T15:00:00Z") from exc
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def parse_clock(text: str | None) -> datetime | None:
    """An ISO 8601 time, or a time of today in UTC, such as 14:00."""
    if text is None:
        return None
    if fullmatch(r"\d\d:\d\d(:\d\d)?", text.strip()):
        text = f"{datetime.now(UTC).date().isoformat()}T{text.strip()}"
    return parse_instant(text)


def parse_rate(text: str) -> float:
    """`100/s`, `600/m` or `100`: how many a second."""
    found = fullmatch(r"(\d+(?:\.\d+)?)\s*(?:/\s*(s|m))?", text.strip())
    per_second = float(found[1]) / _UNITS[found[2] or "s"] if found is not None else 0
    if not 0.01 <= per_second <= 100_000:
        raise InvalidData(f"{text!r:.30} is not a rate: write 100/s or 600/m")
    return per_second


def who(by: str | None) -> str:
    """Who gives a command: as was said, or the user and the host."""
    if by is not None:
        return by
    try:
        user = getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        user = str(os.getuid())
    return f"{user}@{gethostname()}"
