"""`joblog replay export`: events into files."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from joblog.services.cli.commands.replay.ranges import PLACE, LaneOption, print_ranges
from joblog.services.cli.context import Output, OutputOption
from joblog.services.cli.files import stoppable
from joblog.services.cli.output import print_document
from joblog.services.cli.progress import shown
from joblog.services.cli.values import queue_name, settings_of, task_name
from joblog.services.replay.archives import Part, export_events
from joblog.streams.archive.manifest import Filters
from joblog.streams.contract.states import State
from joblog.streams.errors import InvalidData


class Format(StrEnum):
    """`jsonl`: JSON Lines, an event in each. `parquet`: for what analyses tables; needs the extra `parquet`."""

    JSONL = "jsonl"
    PARQUET = "parquet"


def export_command(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Where the files go; one that was stopped goes on there.")],
    since: Annotated[str | None, typer.Option("--from", help=f"Begin at {PLACE}.", show_default="beginning")] = None,
    until: Annotated[str | None, typer.Option("--to", help=f"End at {PLACE}.", show_default="now")] = None,
    lane: LaneOption = None,
    queue: Annotated[str | None, typer.Option(help="Events of this queue only.")] = None,
    task: Annotated[str | None, typer.Option(help="Events of this task only.")] = None,
    job: Annotated[str | None, typer.Option(help="Events of this job only.")] = None,
    state: Annotated[State | None, typer.Option(help="Events that lead to this state only.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="Format of the files.")] = Format.JSONL,
    gzip: Annotated[bool, typer.Option("--gzip", help="Pack the files (jsonl only).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be read, and write nothing.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Copy events into files, with a manifest that has their ranges and checksums.

    Each record keeps its key, value, headers, time, lane and offset. Run the same command again to go on after it
    was stopped; the range is then the one of the first run.

    Example: joblog replay export events-of-today --from -24h --gzip
    """
    if gzip and format_ is Format.PARQUET:
        raise InvalidData("--gzip has no effect with --format parquet, whose files are packed: leave it out")
    settings = settings_of(ctx)
    filters = Filters(queue_name(queue), task_name(task), job, str(state) if state is not None else None)
    part = Part(since, until, lane, filters)
    if dry_run:
        print_ranges(settings, part, output, "written")
        return
    with shown(output) as progress, stoppable(f"go on with the same command, in {directory}"):
        manifest = export_events(settings, directory, part, format_=format_, gzip=gzip, told=progress)
    size = sum(file.bytes for file in manifest.files)
    said = {"directory": directory, "files": len(manifest.files), "records": manifest.records, "bytes": size}
    print_document({**said, "ranges": manifest.ranges} if output is Output.JSON else said, output)
