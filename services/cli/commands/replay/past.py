"""`joblog replay history`, `at` and `diff`: the past, straight from the log."""

from typing import Annotated, Any

import typer
from joblog.projections.replay.instants import Then
from joblog.services.cli.commands.replay.ranges import LaneOption, ReadNothingOption, print_ranges
from joblog.services.cli.context import JobIdArgument, Output, OutputOption
from joblog.services.cli.files import DirectoryOption, files_in, resuming, stoppable
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.progress import shown
from joblog.services.cli.values import queue_name, settings_of
from joblog.services.replay import past
from joblog.services.replay.archives import Part
from joblog.streams.errors import InvalidData

_EVENTS = ("version", "at", "state", "type", "attempt", "cause", "position", "reason")
_COUNTS = ("queue", "state", "jobs")
#: What Ctrl-C says of a command that looks at one job: a lane is read at hundreds of thousands of records a second.
_AGAIN = "nothing was kept: the same command reads the job's lane again from its beginning"
_WORKERS = ("id", "state", "slots", "host", "queues", "at")


def history_command(
    ctx: typer.Context,
    job_id: JobIdArgument,
    dry_run: ReadNothingOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print a job's events from the log, oldest first: each with its cause and its position.

    Reads the one lane that the id names; needs no Postgres, and shows all lives of the job.

    Example: joblog replay history 01a20a16-c2e7-8003-bee9-22a0ed6af0b6
    """
    settings = settings_of(ctx)
    if dry_run:
        print_ranges(settings, Part(lanes=[past.lane_of(settings, job_id)]), output)
        return
    with shown(output) as progress, stoppable(_AGAIN):
        found = past.history(settings, job_id, progress)
    print_rows(found, _EVENTS, output)


def at(
    ctx: typer.Context,
    time: Annotated[
        str | None, typer.Option("--time", help="The instant: 2027-01-31T15:00:00Z, or -1h.", metavar="TIME")
    ] = None,
    offset: Annotated[
        int | None, typer.Option("--offset", min=0, help="Before this offset, in the lane of --job, or --lane.")
    ] = None,
    lane: LaneOption = None,
    job: Annotated[str | None, typer.Option(help="Show this job.")] = None,
    queue: Annotated[str | None, typer.Option(help="Count the jobs of this queue only.")] = None,
    workers: Annotated[bool, typer.Option("--workers", help="Show the workers.")] = False,
    directory: DirectoryOption = None,
    dry_run: ReadNothingOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what was at an instant: jobs by queue and state, one job, or the workers.

    The instant is of the broker's clock, which writes the time of every record. Run the same command again with its
    --directory to go on after it was stopped or killed.

    Example: joblog replay at --time -1h --queue images
    """
    if (time is None) == (offset is None):
        raise InvalidData("give --time or --offset")
    if job is not None and directory is not None:
        raise InvalidData("--directory has no effect with --job, which keeps no files: leave it out")
    queue_name(queue)
    settings = settings_of(ctx)
    place = time if time is not None else str(offset)
    if dry_run:
        lanes = lane if job is None else [past.lane_of(settings, job)]
        print_ranges(settings, Part(None, place, lanes), output)
        return
    if job is not None:
        with shown(output) as progress, stoppable(_AGAIN):
            found = past.job_at(settings, job, place, progress)
        print_document(found, output)
        return
    with files_in(directory) as files, shown(output) as progress, stoppable(resuming(files)):
        then = past.at(settings, place, lanes=lane, directory=files, told=progress)
    if workers:
        print_rows(then.workers, _WORKERS, output)
    else:
        print_rows(_counted(then, queue), _COUNTS, output)


def diff(
    ctx: typer.Context,
    since: Annotated[str, typer.Option("--from", help="The first instant: a time, or -1h.", metavar="TIME")],
    until: Annotated[
        str, typer.Option("--to", help="The second instant.", metavar="TIME", show_default="now")
    ] = "-0s",
    lane: LaneOption = None,
    directory: DirectoryOption = None,
    dry_run: ReadNothingOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what changed between two instants: how many jobs went from which state to which, and the counters.

    Run the same command again with its --directory to go on after it was stopped or killed.

    Example: joblog replay diff --from -1h
    """
    settings = settings_of(ctx)
    if dry_run:
        print_ranges(settings, Part(None, until, lane), output)
        return
    with files_in(directory) as files, shown(output) as progress, stoppable(resuming(files)):
        found = past.diff(settings, since, until, lanes=lane, directory=files, told=progress)
    (before, after), moves = found
    rows: list[dict[str, Any]] = [
        {"change": "jobs", "from": first, "to": last, "queue": None, "before": None, "after": None, "jobs": count}
        for (first, last), count in sorted(moves.items(), key=str)
    ]
    for queue, state in sorted(before.counts.keys() | after.counts.keys()):
        old, new = before.counts.get((queue, state), 0), after.counts.get((queue, state), 0)
        if old != new:
            row = {"change": "counter", "from": None, "to": state, "queue": queue}
            rows.append({**row, "before": old, "after": new, "jobs": new - old})
    print_rows(rows, ("change", "from", "to", "queue", "before", "after", "jobs"), output)


def _counted(then: Then, queue: str | None) -> list[dict[str, Any]]:
    return [
        {"queue": name, "state": state, "jobs": count}
        for (name, state), count in then.counts.items()
        if queue in (None, name)
    ]
