"""`joblog replay import`: events from files into a topic of another prefix, or another cluster."""

from pathlib import Path
from typing import Annotated

import typer
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.output import print_document
from joblog.services.cli.progress import STOPPED, shown
from joblog.services.cli.values import settings_of
from joblog.services.settings.model import Settings
from joblog.streams.archive.importing import Plan, create_topic, import_archive, plan, verify_files
from joblog.streams.archive.manifest import Manifest, read_manifest
from joblog.streams.contract.topics import TOPICS, TopicNames
from joblog.streams.errors import InvalidData
from joblog.streams.progress import Stopped, Told


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
    settings = settings_of(ctx)
    topic = target(settings, into_prefix, into_live_topic)
    manifest = read_manifest(directory)
    if manifest is None:
        raise InvalidData(f"{directory} holds no manifest.json: give the directory of an archive")
    with shown(output) as progress:
        try:
            verify_files(directory, manifest, progress)
            planned = plan(settings.kafka.config(), manifest, topic, lanes=settings.lanes, appends=append)
            written = 0 if dry_run else _import(settings, directory, manifest, planned, progress)
        except Stopped as stopped:
            note(f"{stopped}; go on with the same command")
            raise typer.Exit(STOPPED) from stopped
    already = sum(planned.done.values())
    print_document(
        {"topic": topic, "records": manifest.records, "already_there": already, "written": written}, output
    )
    if dry_run:
        note("nothing was written (--dry-run)")


def target(settings: Settings, prefix: str | None, live: str | None) -> str:
    """The topic to write into; InvalidData unless it is another's, or its full name was given."""
    own = settings.names.events
    if (prefix is None) == (live is None):
        raise InvalidData("say where to: --into-prefix PREFIX for a copy, or --into-live-topic NAME")
    if live is not None:
        if live != own:
            raise InvalidData(f"--into-live-topic: the events of this installation are {own}, not {live}")
        return live
    topic = TopicNames(prefix or "").events
    if topic in {settings.names.of(one) for one in TOPICS}:
        raise InvalidData(
            f"{topic} is a live topic of this installation, and what is written there cannot be taken back: give "
            f"another prefix; if you mean it, give --into-live-topic {own} instead"
        )
    return topic


def _import(settings: Settings, directory: Path, manifest: Manifest, planned: Plan, told: Told) -> int:
    config = settings.kafka.config()
    if not planned.is_there:
        create_topic(config, planned.topic, settings.lanes, settings.replication)
    return import_archive(config, directory, manifest, planned, told)
