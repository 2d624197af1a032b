"""`joblog replay import`: events from files into a topic of another prefix, or another cluster."""

from pathlib import Path
from typing import Annotated

import typer
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.files import stoppable
from joblog.services.cli.output import print_document
from joblog.services.cli.progress import shown
from joblog.services.cli.values import settings_of
from joblog.services.replay.archives import import_events


def import_command(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(help="An archive, as `joblog replay export` wrote it.")],
    into_prefix: Annotated[
        str | None, typer.Option(help="Write into the events topic of this prefix; it is created if it is missing.")
    ] = None,
    into_live_topic: Annotated[
        str | None,
        typer.Option(help="Write into this installation's own events: the full name of the topic.", metavar="NAME"),
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Write behind other records of the topic.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the files and the topic only.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Write the events of an archive into a topic, each once, after all files were checked.

    Lanes, keys, values, headers and times are those of the archive. Run it again to go on after it was stopped; one
    that is complete writes nothing. For another cluster, give its settings with `joblog --config`.

    Example: joblog replay import events-of-today --into-prefix copy.
    """
    with shown(output) as progress, stoppable("go on with the same command"):
        done = import_events(
            settings_of(ctx),
            directory,
            into_prefix=into_prefix,
            into_live_topic=into_live_topic,
            append=append,
            dry_run=dry_run,
            told=progress,
        )
    print_document({**done._asdict()}, output)
    if dry_run:
        note("nothing was written (--dry-run)")
