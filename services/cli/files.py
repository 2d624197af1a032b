"""How commands that were stopped, or killed, go on: what they say, and the files in their `--directory`."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from joblog.services.cli.context import note
from joblog.services.cli.progress import STOPPED
from joblog.streams.progress import Stopped

DirectoryOption = Annotated[
    Path | None,
    typer.Option(
        help="For the command's files; one that was stopped or killed goes on from there.",
        show_default="a temporary one",
    ),
]


@contextmanager
def files_in(given: Path | None) -> Iterator[Path]:
    """The directory for a command's files; a temporary one stays only if the command was stopped (typer.Exit)."""
    place = given or Path(tempfile.mkdtemp(prefix="joblog-replay-"))
    place.mkdir(parents=True, exist_ok=True)
    try:
        yield place
    except typer.Exit:
        raise
    except BaseException:
        _remove(given, place)
        raise
    _remove(given, place)


@contextmanager
def stoppable(then: str) -> Iterator[None]:
    """End a command that was stopped with the code of that, and say how to go on."""
    try:
        yield
    except Stopped as stopped:
        note(f"{stopped}; {then}")
        raise typer.Exit(STOPPED) from stopped


def resuming(place: Path) -> str:
    """How to go on from a directory."""
    return f"go on with the same command and --directory {place}"


def _remove(given: Path | None, place: Path) -> None:
    if given is None:
        shutil.rmtree(place)
