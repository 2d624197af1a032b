"""Writes events into files, lane by lane; whoever was stopped goes on behind the last complete file.

A file is written under the name `….part`, and renamed when it is complete; then the manifest is written anew.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import Message
from joblog.streams.archive.choice import is_chosen
from joblog.streams.archive.lines import Archived, LineWriter
from joblog.streams.archive.manifest import (
    ALL,
    VERSION,
    ArchiveError,
    File,
    Filters,
    Manifest,
    checksum,
    now,
    read_manifest,
)
from joblog.streams.archive.parquet import ParquetWriter, pyarrow
from joblog.streams.contract.record_headers import headers_of
from joblog.streams.kafka.scan import Range, Ranges, TopicReader
from joblog.streams.progress import Stopped, Told, silent

#: A file is complete when it has so many records, or bytes before they are packed.
RECORDS_MAX: Final = 500_000
BYTES_MAX: Final = 256 * 1024 * 1024
_ENDINGS: Final = {("jsonl", False): "jsonl", ("jsonl", True): "jsonl.gz", ("parquet", False): "parquet"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to export, and how."""

    ranges: Ranges
    filters: Filters = ALL
    format: str = "jsonl"
    gzip: bool = False


def begun(directory: Path, topic: str, cluster: str | None, wanted: Wanted) -> Manifest:
    """The manifest of an export that begins, or of the one that goes on in this directory.

    Raises ArchiveError if that is an archive of something else. The ranges are those of the beginning.
    """
    if wanted.format == "parquet":
        pyarrow()
    directory.mkdir(parents=True, exist_ok=True)
    found = read_manifest(directory)
    if found is None:
        ranges = {lane: (one.start, one.stop) for lane, one in wanted.ranges.items()}
        starts = {lane: one.start for lane, one in wanted.ranges.items()}
        token = secrets.token_hex(8)
        made = Manifest(
            VERSION, token, topic, cluster, now(), wanted.format, wanted.gzip, wanted.filters, ranges, starts
        )
        made.write(directory)
        return made
    same = (found.topic, found.cluster, found.format, found.gzip, found.filters)
    if same != (topic, cluster, wanted.format, wanted.gzip, wanted.filters):
        raise ArchiveError(f"{directory} holds an archive of something else: give another directory")
    return found


def export(reader: TopicReader, directory: Path, manifest: Manifest, told: Told = silent) -> None:
    """Export what is left of the ranges; raises Stopped, with all that was read in complete files."""
    total = sum(stop - start for start, stop in manifest.ranges.values())
    for lane, (_, stop) in manifest.ranges.items():
        lane_export = _LaneExport(reader, directory, manifest, lane, stop)

        def tell(one: _LaneExport = lane_export) -> None:
            done = sum(manifest.next[other] - start for other, (start, _) in manifest.ranges.items())
            told("exporting", done + one.ahead, total)

        with closing(lane_export):
            try:
                for _ in lane_export.step(tell):
                    tell()
            except Stopped:
                lane_export.finish_file()
                raise
    manifest.complete = True
    manifest.write(directory)


class _LaneExport:
    """Exports one lane."""

    def __init__(self, reader: TopicReader, directory: Path, manifest: Manifest, lane: int, stop: int) -> None:
        self._reader, self._directory, self._manifest, self._lane, self._stop = (
            reader,
            directory,
            manifest,
            lane,
            stop,
        )
        self._writer: LineWriter | ParquetWriter | None = None
        self._path = directory
        self._records, self._first, self._last = 0, 0, 0
        self._next = manifest.next[lane]

    @property
    def ahead(self) -> int:
        """How many offsets were read that are in no complete file yet."""
        return self._next - self._manifest.next[self._lane]

    def step(self, waiting_told: Callable[[], object]) -> Iterator[None]:
        """Export batch by batch."""
        for messages in self._reader.read({self._lane: Range(self._next, self._stop)}, waiting_told):
            self._write(messages)
            self._next = (messages[-1].offset() or 0) + 1
            if self._writer is not None and (self._records >= RECORDS_MAX or self._writer.size >= BYTES_MAX):
                self.finish_file()
            yield
        self._next = self._stop
        self.finish_file()

    def close(self) -> None:
        """Let go of a file that is not complete."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def finish_file(self) -> None:
        """Make what was read durable: the file is complete, and the manifest says so."""
        manifest = self._manifest
        if self._writer is None:
            manifest.next[self._lane] = self._next
        else:
            self.close()
            name = self._path.name.removesuffix(".part")
            size, digest = self._path.stat().st_size, checksum(self._path)
            self._path.rename(self._directory / name)
            manifest.add(File(name, self._lane, self._records, self._first, self._last, self._next, size, digest))
        manifest.write(self._directory)

    def _write(self, messages: list[Message]) -> None:
        filters = self._manifest.filters
        records = [
            _archived(message) for message in messages if filters.is_empty or is_chosen(message.value(), filters)
        ]
        if not records:
            return
        if self._writer is None:
            self._open(records[0].offset)
        assert self._writer is not None
        self._writer.write(records)
        self._records += len(records)
        self._last = records[-1].offset

    def _open(self, offset: int) -> None:
        manifest = self._manifest
        ending = _ENDINGS[manifest.format, manifest.gzip]
        self._path = self._directory / f"events-{self._lane:04}-{offset:012}.{ending}.part"
        self._records, self._first = 0, offset
        if manifest.format == "parquet":
            self._writer = ParquetWriter(self._path)
        else:
            self._writer = LineWriter(self._path, is_packed=manifest.gzip)


def _archived(message: Message) -> Archived:
    lane, offset = message.partition(), message.offset()
    assert lane is not None
    assert offset is not None
    return Archived(lane, offset, message.timestamp()[1], message.key(), message.value(), headers_of(message))
