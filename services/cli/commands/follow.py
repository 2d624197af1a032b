"""`joblog job follow`: what happens to a job, as it happens, until it has ended."""

import sys
import time
from collections.abc import Iterator
from typing import Annotated, Final

import typer
from joblog.projections.monitor.models import HistoryEntry
from joblog.projections.monitor.monitor import Monitor
from joblog.services.cli.context import JobIdArgument, Output, OutputOption
from joblog.services.cli.output import print_rows, shown
from joblog.services.cli.postgres import monitor_of
from joblog.services.cli.values import parse_delay, settings_of
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.errors import JoblogError
from joblog.streams.lane.job import EVENT_TYPES

POLL_S: Final = 0.2
EVENTS_MAX: Final = 500
#: How the command ends when the job has.
EXIT_CODES: Final = {State.SUCCEEDED: 0, State.FAILED: 3, State.DELETED: 4}
_TRANSITIONS: Final = frozenset(EVENT_TYPES.values())


def follow(
    ctx: typer.Context,
    job_id: JobIdArgument,
    wait: Annotated[str, typer.Option(help="How long to wait for a job that is not known yet: 5s, 1m.")] = "10s",
    output: OutputOption = Output.TABLE,
) -> None:
    """Follow a job until it has ended: its states, its progress, and the lines that it logs.

    Exits with 0 if it Succeeded, 3 if it Failed, 4 if it was Deleted. With --output json, each event is a line.

    Example: joblog job follow 019ab3c4-5d6e-8001-9f3a-2b4c6d8e0f12
    """
    patience_s = parse_delay(wait).total_seconds()
    with monitor_of(settings_of(ctx)) as monitor:
        for entry in followed(monitor, job_id, patience_s):
            if output is Output.JSON:
                print_rows([entry.model_dump(mode="json", exclude={"lasted_s"})], (), output)
                sys.stdout.flush()
            else:
                for line in told(entry):
                    print(shown(line).plain, flush=True)
            state = entry.state
    raise typer.Exit(EXIT_CODES[state])


def followed(monitor: Monitor, job_id: str, patience_s: float) -> Iterator[HistoryEntry]:
    """The events of a job until it is in a final state; JoblogError if it does not appear."""
    version, is_over = 0, False
    give_up_at = time.monotonic() + patience_s
    while not is_over:
        found = monitor.events_after(job_id, version, EVENTS_MAX)
        for entry in found:
            yield entry
            version = entry.version
            is_over = entry.state in FINAL_STATES and not entry.traversed
        if version == 0 and time.monotonic() > give_up_at:
            raise JoblogError(f"there is no job {job_id} after {patience_s:g} s: `joblog rejected list` may say why")
        if len(found) < EVENTS_MAX and not is_over:
            time.sleep(POLL_S)


def told(entry: HistoryEntry) -> Iterator[str]:
    """An event as lines for people."""
    at = f"{entry.at:%H:%M:%S}"
    for line in entry.data.get("lines", ()):
        yield f"{at}  | {line}"
    if "progress" in entry.data:
        yield f"{at}  {entry.data['progress']:4.0%}  {entry.reason or ''}".rstrip()
    elif entry.type in _TRANSITIONS:
        said = f"{entry.state}" + (f", attempt {entry.attempt}" if entry.state is State.PROCESSING else "")
        yield f"{at}  {said}: {entry.reason}" if entry.reason else f"{at}  {said}"
    elif entry.type != "job.progressed":
        yield f"{at}  {entry.type.removeprefix('job.')}: {entry.reason or entry.data}"
