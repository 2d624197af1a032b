"""What the commands share: global options, common options, and how errors are reported.

Imports little, since every call of `joblog` imports it.
"""

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from joblog.projections.questions import LIMIT_MAX, InvalidQuestion
from joblog.streams.errors import (
    BrokersAway,
    EnqueueError,
    InvalidData,
    JoblogError,
    SettingsError,
    TopicsError,
)


class LogFormat(StrEnum):
    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class Output(StrEnum):
    """`table` for people; `json` for programs: one document, or one object per line for lists."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", case_sensitive=False, help="Output format.")]
LimitOption = Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="Maximum number of lines.")]
JobIdArgument = Annotated[str, typer.Argument(help="The job's id, as `joblog enqueue` printed it.")]

_BROKERS: Final = "does a broker run there? `joblog config show` prints the address, `joblog up` starts a broker"
#: Hints by kind of error.
HINTS: Final = {
    EnqueueError: f"{_BROKERS}; `joblog doctor` checks the installation",
    BrokersAway: _BROKERS,
    TopicsError: "`joblog topics create` creates missing topics; `joblog doctor` checks the installation",
}


@dataclass(frozen=True, slots=True)
class Cli:
    """The global options, which stand before the command."""

    config: Path | None = None
    log_format: LogFormat | None = None


def fail(error: JoblogError) -> int:
    """Print an error and its hint to stderr; returns the exit code: 2 for settings and input, else 1."""
    note(f"error: {error}")
    for hint in getattr(error, "__notes__", ()):
        note(f"hint: {hint}")
    for kind, hint in HINTS.items():
        if isinstance(error, kind):
            note(f"hint: {hint}")
    return 2 if isinstance(error, SettingsError | InvalidData | InvalidQuestion) else 1


def note(text: str) -> None:
    """Print a line for people on stderr."""
    print(text, file=sys.stderr, flush=True)
