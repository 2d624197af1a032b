"""Events as files, and files as events of another prefix, or another cluster."""

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from joblog.services.replay.past import chosen_lanes, reading_events
from joblog.services.settings.model import Settings
from joblog.streams.archive.exporting import Wanted, begun, export
from joblog.streams.archive.importing import beginning, create_topic, import_archive, plan, verify_files
from joblog.streams.archive.manifest import ALL, Filters, Manifest, read_manifest
from joblog.streams.contract.topics import TOPICS, TopicNames
from joblog.streams.errors import InvalidData
from joblog.streams.kafka.answers import answered
from joblog.streams.kafka.places import offsets_of, parse_place
from joblog.streams.kafka.scan import Range, Ranges, TopicReader
from joblog.streams.progress import Told, silent


class Part(NamedTuple):
    """A part of the log: two places (a time, -1h, or an offset of one lane), lanes, and which events."""

    since: str | None = None
    until: str | None = None
    lanes: Collection[int] | None = None
    filters: Filters = ALL


class Imported(NamedTuple):
    """What an import did: records of the archive, of those in the topic already, and written by this call."""

    topic: str
    records: int
    already_there: int
    written: int


def export_events(
    settings: Settings,
    directory: Path,
    part: Part = Part(),  # noqa: B008 - it cannot be changed
    *,
    format_: str = "jsonl",
    gzip: bool = False,
    told: Told = silent,
) -> Manifest:
    """Copy events into files, `jsonl` or `parquet`; returns their manifest.

    The same call goes on in the directory after one that raised Stopped, or was killed; the range is then that of
    the first one.
    """
    with reading_events(settings) as reader:
        wanted = Wanted(_ranges(settings, reader, part), part.filters, format_, gzip)
        manifest = begun(directory, reader.topic, reader.cluster(), wanted)
        export(reader, directory, manifest, told)
    return manifest


def ranges_of(settings: Settings, part: Part) -> Ranges:
    """The offsets that an export would read."""
    with reading_events(settings) as reader:
        return _ranges(settings, reader, part)


def import_events(
    settings: Settings,
    directory: Path,
    *,
    into_prefix: str | None = None,
    into_live_topic: str | None = None,
    append: bool = False,
    dry_run: bool = False,
    told: Told = silent,
) -> Imported:
    """Write the events of an archive, each once, into the topic of a prefix, or into the one of this installation.

    All files are checked before. The same call goes on after one that raised Stopped, or was killed.

    - into_live_topic: the full name of the installation's topic. append: the topic may hold other records.
    """
    topic = target(settings, into_prefix, into_live_topic)
    manifest = read_manifest(directory)
    if manifest is None:
        raise InvalidData(f"{directory} holds no manifest.json: give the directory of an archive")
    verify_files(directory, manifest, told)
    config = settings.kafka.config()
    with answered(config):
        if dry_run:
            planned = plan(config, manifest, topic, lanes=settings.lanes, appends=append)
            return Imported(topic, manifest.records, sum(planned.done.values()), 0)
        with beginning(config, manifest, topic) as producer:
            planned = plan(config, manifest, topic, lanes=settings.lanes, appends=append)
            if not planned.is_there:
                create_topic(config, topic, settings.lanes, settings.replication)
            written = import_archive(config, producer, directory, manifest, planned, told)
    return Imported(topic, manifest.records, sum(planned.done.values()), written)


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


def _ranges(settings: Settings, reader: TopicReader, part: Part) -> Ranges:
    """The offsets between two places, the beginning and the end of the log where they are None."""
    lanes, now = chosen_lanes(settings, part.lanes), datetime.now(UTC)
    bounds = reader.bounds(lanes)
    starts = {lane: one.start for lane, one in bounds.items()}
    stops = {lane: one.stop for lane, one in bounds.items()}
    if part.since is not None:
        starts = offsets_of(reader, lanes, parse_place(part.since, now))
    if part.until is not None:
        stops = offsets_of(reader, lanes, parse_place(part.until, now))
    return {lane: Range(starts[lane], max(stops[lane], starts[lane])) for lane in lanes}
