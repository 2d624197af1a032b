"""The progress of a long command on stderr: how much is done, how fast, and how long the rest takes."""

import sys
import time
from types import TracebackType
from typing import Final, Self

from joblog.services.cli.context import note
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

#: How often a line is printed where stderr is no terminal.
LINE_S: Final = 5.0


class _RateColumn(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f}/s")


class Pace:
    """A bar in a terminal; a line every few seconds elsewhere."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._started_s = self._told_s = time.monotonic()
        columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(what, total=total)
        self._is_watched = sys.stderr.isatty()

    def __enter__(self) -> Self:
        if self._is_watched:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_watched:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        if self._is_watched:
            self._bar.advance(self._task, count)
        elif time.monotonic() - self._told_s >= LINE_S:
            self._told_s = time.monotonic()
            rate = self._done / (self._told_s - self._started_s)
            left = f", {(self._total - self._done) / rate:,.0f} s left" if rate > 0 else ""
            note(f"{self._what}: {self._done:,} of {self._total:,}, {rate:,.0f}/s{left}")
