"""How long commands show how far they are, on stderr, and how Ctrl-C stops them in order."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from joblog.services.cli.context import Output, note
from joblog.streams.progress import Stopped
from msgspec import json
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: Without a terminal, a line is printed every so often.
LINE_S: Final = 5.0
#: The exit code of a command that Ctrl-C has stopped, as shells have it.
STOPPED: Final = 130


class Shown:
    """Shows steps: a bar on a terminal, else a line every few seconds; JSON lines if the output is JSON.

    To be called with the step, how many records are done, and how many there are (0: unknown). Raises Stopped once
    `stop` was called, as Ctrl-C does.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._bar: Progress | None = None
        self._task: Any = None
        self._step = ""
        self._began = self._line = time.monotonic()
        self._first = 0
        self._is_stopped = False

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Stop at the next record; a second time, at once."""
        if self._is_stopped:
            raise KeyboardInterrupt
        self._is_stopped = True

    def __call__(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if step != self._step:
            self._step, self._began, self._line, self._first = step, now, now, done
        if self._is_stopped:
            raise Stopped(f"stopped while {step}: {done:,} records are done")
        rate = (done - self._first) / (now - self._began) if now > self._began else 0.0
        if sys.stderr.isatty() and self._output is Output.TABLE:
            self._draw(done, total, rate)
        elif now - self._line >= LINE_S:
            self._line = now
            self._print(done, total, rate)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def _draw(self, done: int, total: int, rate: float) -> None:
        if self._bar is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]:,.0f}/s"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._step, total=None, rate=0.0)
        self._bar.update(self._task, description=self._step, completed=done, total=total or None, rate=rate)

    def _print(self, done: int, total: int, rate: float) -> None:
        left = (total - done) / rate if total and rate else None
        if self._output is Output.JSON:
            said = {"step": self._step, "done": done, "total": total or None, "per_s": round(rate), "left_s": left}
            note(json.encode(said).decode())
            return
        of = f" of {total:,}" if total else ""
        time_left = f", {left:,.0f} s left" if left is not None else ""
        note(f"{self._step}: {done:,}{of} records, {rate:,.0f}/s{time_left}")


@contextmanager
def shown(output: Output) -> Iterator[Shown]:
    """Progress that Ctrl-C and SIGTERM stop."""
    progress = Shown(output)
    before = {number: signal.signal(number, progress.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield progress
    finally:
        progress.close()
        for number, handler in before.items():
            signal.signal(number, handler)
