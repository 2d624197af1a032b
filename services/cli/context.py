"""What the commands share: the options before them, options that many have, and how errors are told.

It loads little, since every call of `joblog` loads it.
"""

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from joblog.projections.questions import LIMIT_MAX, InvalidQuestion
from joblog.streams.errors import (
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
    """table: for people. json: one document, or one object a line for lists."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", case_sensitive=False, help="What stdout gets.")]
LimitOption = Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="At most so many lines.")]
JobIdArgument = Annotated[str, typer.Argument(help="The job's id, as `joblog enqueue` printed it.")]

#: What often helps, by the kind of error.
HINTS: Final = {
    EnqueueError: "is the broker running, and its address right? `joblog config show`, `joblog doctor`",
    TopicsError: "`joblog topics create` creates them; `joblog doctor` looks closer",
}


@dataclass(frozen=True, slots=True)
class Cli:
    """The options before the command."""

    config: Path | None = None
    log_format: LogFormat | None = None


def fail(error: JoblogError) -> int:
    """Tell an error on stderr, with a hint if there is one; the exit code: 2 for settings and input, else 1."""
    note(f"error: {error}")
    for hint in getattr(error, "__notes__", ()):
        note(f"hint: {hint}")
    for kind, hint in HINTS.items():
        if isinstance(error, kind):
            note(f"hint: {hint}")
    return 2 if isinstance(error, SettingsError | InvalidData | InvalidQuestion) else 1


def note(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)
