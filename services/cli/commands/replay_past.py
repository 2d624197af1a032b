"""`joblog replay history`, `at` and `diff`: the past, straight from the log."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from re import fullmatch
from typing import Annotated, Any

import typer
from joblog.projections.replay.instants import Installation, Then, installation_at
from joblog.projections.replay.past import history, job_then
from joblog.services.cli.commands.replay_export import LaneOption, chosen_lanes
from joblog.services.cli.context import JobIdArgument, Output, OutputOption, note
from joblog.services.cli.files import DirectoryOption, files_in, resuming
from joblog.services.cli.output import print_document, print_rows
from joblog.services.cli.progress import STOPPED, Shown, shown
from joblog.services.cli.values import queue_name, settings_of
from joblog.services.settings.model import Settings
from joblog.streams.contract.fields import JOB_ID_PATTERN
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.errors import InvalidData
from joblog.streams.kafka.places import offsets_of, parse_place
from joblog.streams.kafka.scan import TopicReader, reading
from joblog.streams.progress import Stopped

_EVENTS = ("version", "at", "state", "type", "attempt", "cause", "position", "reason")
_COUNTS = ("queue", "state", "jobs")
#: What Ctrl-C says of a command that looks at one job: a lane is read at hundreds of thousands of records a second.
_AGAIN = "nothing was kept: the same command reads the job's lane again from its beginning"
_WORKERS = ("id", "state", "slots", "host", "queues", "at")


def history_command(ctx: typer.Context, job_id: JobIdArgument, output: OutputOption = Output.TABLE) -> None:
    """Print a job's events from the log, oldest first: each with its cause and its position.

    Reads the one lane that the id names; needs no Postgres, and shows all lives of the job.

    Example: joblog replay history 01a20a16-c2e7-8003-bee9-22a0ed6af0b6
    """
    settings = settings_of(ctx)
    with _log(settings, output, _AGAIN) as (reader, progress):
        found = history(reader, _job(settings, job_id), told=progress)
    if not found:
        raise InvalidData(f"the log has no events of job {job_id}")
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
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what was at an instant: jobs by queue and state, one job, or the workers.

    The instant is of the broker's clock, which writes the time of every record. Run the same command again with its
    --directory to go on after it was stopped or killed.

    Example: joblog replay at --time -1h --queue images
    """
    if (time is None) == (offset is None):
        raise InvalidData("give --time or --offset")
    settings = settings_of(ctx)
    place = time if time is not None else str(offset)
    if job is not None:
        if directory is not None:
            raise InvalidData("--directory has no effect with --job, which keeps no files: leave it out")
        print_document(_job_at(settings, job, place, output), output)
        return
    (then,) = _installation_at(settings, chosen_lanes(settings, lane), [place], directory, output).then
    if workers:
        print_rows(then.workers, _WORKERS, output)
    else:
        print_rows(_counted(then, queue_name(queue)), _COUNTS, output)


def diff(
    ctx: typer.Context,
    since: Annotated[str, typer.Option("--from", help="The first instant: a time, or -1h.", metavar="TIME")],
    until: Annotated[
        str, typer.Option("--to", help="The second instant.", metavar="TIME", show_default="now")
    ] = "-0s",
    lane: LaneOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what changed between two instants: how many jobs went from which state to which, and the counters.

    Run the same command again with its --directory to go on after it was stopped or killed.

    Example: joblog replay diff --from -1h
    """
    settings = settings_of(ctx)
    lanes = chosen_lanes(settings, lane)
    (before, after), moves = _installation_at(settings, lanes, [since, until], directory, output)
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


def _installation_at(
    settings: Settings, lanes: Sequence[int], places: Sequence[str], directory: Path | None, output: Output
) -> Installation:
    with files_in(directory) as place, _log(settings, output, resuming(place)) as (reader, progress):
        return installation_at(reader, place, lanes, places, progress)


@contextmanager
def _log(settings: Settings, output: Output, then: str) -> Iterator[tuple[TopicReader, Shown]]:
    with shown(output) as progress, reading(settings.kafka.config(), settings.names.events) as reader:
        reader.check_partitions(settings.lanes)
        try:
            yield reader, progress
        except Stopped as stopped:
            note(f"{stopped}; {then}")
            raise typer.Exit(STOPPED) from stopped


def _job_at(settings: Settings, job: str, place: str, output: Output) -> dict[str, Any]:
    own = lane_of_job(_job(settings, job))
    with _log(settings, output, _AGAIN) as (reader, progress):
        stop = offsets_of(reader, [own], parse_place(place, datetime.now(UTC)))[own]
        found = job_then(reader, job, stop, progress)
    if found is None:
        raise InvalidData(f"job {job} was not there yet")
    return found


def _job(settings: Settings, job_id: str) -> str:
    if not fullmatch(JOB_ID_PATTERN, job_id) or lane_of_job(job_id) >= settings.lanes:
        raise InvalidData(f"{job_id!r:.100} is not the id of a job of this installation")
    return job_id


def _counted(then: Then, queue: str | None) -> list[dict[str, Any]]:
    return [
        {"queue": name, "state": state, "jobs": count}
        for (name, state), count in then.counts.items()
        if queue in (None, name)
    ]
