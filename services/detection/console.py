"""Prints a demonstration: one line for each step of a job, and tables at the end."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from joblog.projections.monitor.models import HistoryEntry, Job, JobDetails
from joblog.services.detection.monitor import Step
from joblog.services.detection.names import SURVEY
from joblog.services.detection.report import Result
from joblog.streams.contract.states import State
from rich.console import Console, JustifyMethod
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

STYLES: Final = {
    State.AWAITING: "dim",
    State.SCHEDULED: "blue",
    State.ENQUEUED: "dim",
    State.PROCESSING: "cyan",
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.DELETED: "yellow",
}
#: So wide that what happens has 28 characters on a terminal of 80.
_TIME_WIDTH: Final = 8
_RUN_WIDTH: Final = 20
_KIND_WIDTH: Final = 9
_STATE_WIDTH: Final = 10


class Printer:
    """Prints for people; `shortened` is a path that is left out of all texts."""

    def __init__(self, console: Console, shortened: str = "") -> None:
        self.console: Final = console
        self.shortened = shortened
        self._began = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def head(self, text: str) -> None:
        """A heading."""
        self.console.print()
        self.console.print(Text(text, style="bold"))

    def fact(self, name: str, value: str) -> None:
        self.console.print(Text.assemble((f"  {name:<12}", "dim"), value), soft_wrap=True)

    def progress(self, line: str) -> None:
        """A line of progress."""
        self.console.print(Text.assemble((f"{self._time()}  ", "dim"), line), soft_wrap=True)

    def note(self, run_id: str, text: str) -> None:
        """Something that happened to a run outside of Joblog."""
        self._line(run_id, "", Text(), Text(text, style="magenta"))

    def step(self, step: Step) -> None:
        """One step of one job."""
        state = Text(step.entry.state, style=STYLES[step.entry.state])
        kind = "clean-up" if step.is_cleanup else "detection"
        self._line(step.run_id, kind, state, Text(self._short(told(step.entry)), "dim" if step.is_cleanup else ""))

    def survey(self, job: Job) -> None:
        """A survey that has ended."""
        state = Text(job.state, style=STYLES[job.state])
        self._line(SURVEY, "recurring", state, Text(found(job.result), "dim"))

    def album(self, name: str, kind: str, state: State, text: str) -> None:
        """What became of a batch, a mutex or a job that was cancelled."""
        self._line(name, kind, Text(state, style=STYLES[state]), Text(text, "dim"))

    def results(self, results: Sequence[Result]) -> None:
        """The history of every run, and a summary of all at the end."""
        for result in results:
            if result.detection is not None and result.cleanup is not None:
                self.head(f"{result.run.run_id}: {result.run.story.photograph}, {result.run.story.name}")
                self.console.print(Padding(self._history(result.detection, result.cleanup), (0, 0, 0, 2)))
        self.head("The runs")
        self.console.print(Padding(self._summary(results), (0, 0, 0, 2)))

    def _line(self, run_id: str, kind: str, state: Text, text: Text) -> None:
        """A line with the same columns as all others; a long text is wrapped within its column."""
        line = Table.grid(padding=(0, 1, 0, 0))
        for width in (_TIME_WIDTH, _RUN_WIDTH, _KIND_WIDTH, _STATE_WIDTH):
            line.add_column(width=width, overflow="ellipsis", no_wrap=True)
        line.add_column(overflow="fold")
        line.add_row(Text(self._time(), style="dim"), run_id, Text(kind, style="dim"), state, text)
        self.console.print(line)

    def _time(self) -> str:
        return f"{self.elapsed_s:{_TIME_WIDTH - 2}.1f} s"

    def _short(self, text: str) -> str:
        return text.replace(self.shortened, "") if self.shortened else text

    def _summary(self, results: Sequence[Result]) -> Table:
        table = _table("Run", "Detection", "Attempts", "Clean-up", "", "Outcome")
        for result in results:
            complaints = result.complaints()
            came_to = Text(self._short(outcome(result.detection)))
            for complaint in complaints:
                came_to.append(f"\nnot as expected: {complaint}", style="bold red")
            table.add_row(
                result.run.run_id,
                _state(result.detection),
                str(result.detection.attempt) if result.detection else "-",
                _state(result.cleanup),
                Text("no", style="bold red") if complaints else Text("ok", style="green"),
                came_to,
            )
        return table

    def _history(self, detection: JobDetails, cleanup: JobDetails) -> Table:
        table = _table("After", "Job", "State", "Attempt", "Lasted", "Reason")
        steps = [
            (kind, entry) for kind, job in (("detection", detection), ("clean-up", cleanup)) for entry in job.history
        ]
        for kind, entry in sorted(steps, key=lambda step: (step[1].at, step[0] == "clean-up", step[1].version)):
            table.add_row(
                f"{(entry.at - detection.created_at).total_seconds():.2f} s",
                kind,
                Text(entry.state, style=STYLES[entry.state]),
                str(entry.attempt or ""),
                f"{entry.lasted_s:.2f} s" if entry.lasted_s is not None else "",
                # The jobs of a run mention each other by their ids, which are long.
                self._short(told(entry)).replace(detection.id, f"{detection.id[:8]}..."),
            )
        return table


def told(entry: HistoryEntry) -> str:
    """Describe a step."""
    data, reason = entry.data, entry.reason or ""
    match entry.state:
        case State.SCHEDULED:
            wait_s = (datetime.fromisoformat(data["due"]) - entry.at) / timedelta(seconds=1)
            # A retry's reason repeats the exception after a colon; the line before has it.
            return f"{reason.partition(':')[0] or 'Due'} in {wait_s:.0f} s"
        case State.PROCESSING:
            return f"Attempt {entry.attempt} on {data['worker'].partition(':')[0]}"
        case State.SUCCEEDED:
            return f"{found(data.get('result'))}, in {_lasting(data['duration_ms'])}"
        case State.FAILED if "exception" in data:
            return f"{data['exception']['type']}: {data['exception']['message']}"
        case _:
            return reason


def found(result: Any) -> str:
    """Describe what a job returned."""
    match result:
        case {"counts": {"faces": faces, "blobs": blobs, "shapes": shapes}}:
            return ", ".join((_count(faces, "face"), _count(blobs, "blob"), _count(shapes, "shape")))
        case {"files_removed": files, "bytes_removed": size}:
            return f"{_count(files, 'file')} removed ({size / 1000:.0f} kB)"
        case {"arrived": arrived, "marked": marked}:
            return f"{_count(arrived, 'photograph')} arrived, {marked} marked"
        case _:
            return str(result)


def outcome(job: JobDetails | None) -> str:
    """Describe the outcome of a detection."""
    if job is None:
        return "not in Postgres"
    return found(job.result) if job.state is State.SUCCEEDED else told(job.history[0])


def _lasting(duration_ms: float) -> str:
    return f"{duration_ms / 1000:.2f} s" if duration_ms >= 100 else f"{duration_ms:.1f} ms"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _state(job: JobDetails | None) -> Text:
    return Text(job.state, style=STYLES[job.state]) if job is not None else Text("-")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        justify: JustifyMethod = "right" if column in {"After", "Lasted", "Attempts"} else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column not in {"Reason", "Outcome"})
    return table
