"""Export, import into another prefix, compare: every record is the same, each is there once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Message
from joblog.streams.archive import exporting, importing
from joblog.streams.archive.exporting import Wanted, begun, export
from joblog.streams.archive.importing import beginning, create_topic, import_archive, plan, verify_files
from joblog.streams.archive.manifest import ArchiveError, Filters, Manifest, read_manifest
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.scan import reading
from joblog.streams.progress import Stopped, Told, silent

from tests.support.projection_events import Story

pytestmark = [pytest.mark.broker]

ODD: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]] | None]] = [
    (b"key", b'{"spaced" : [1, 2] }', [("ce_type", b"\xff\x00"), ("empty", None), ("empty", b"")]),
    (b"\xff\xfe", b'\xff{"no": "utf-8"}', None),
    (None, None, []),
    (b"", b"", None),
    (b"k", b"null", None),
    (b"k", b'{"two":\n"lines"}', None),
    (b"k", b' {"padded":1} ', None),
    (b"k", '{"umlaut":"ü\u2028"}'.encode(), None),
]


@pytest.fixture
def stories(kafka: KafkaConfig, topics: TopicNames, lanes: int) -> list[Story]:
    """Forty jobs in both lanes, and records of every odd form."""
    told = [
        Story(lane=n % lanes, random=n + 1, queue=f"q{n % 3}").enqueued().processing().succeeded({"n": n})
        for n in range(40)
    ]
    writer = clients.producer(kafka, "test-archive")
    for story in told:
        for value in story.values:
            writer.produce(topics.events, value, story.id, story.lane)
    for key, value, headers in ODD:
        writer.produce(topics.events, value, key, 1, headers=headers)
    assert writer.flush(30) == 0
    return told


@pytest.fixture
def copy(prefix: str, delete_topics: Callable[[list[str]], None]) -> Iterator[str]:
    topic = TopicNames(f"{prefix}copy.").events
    yield topic
    delete_topics([topic])


def contents(kafka: KafkaConfig, topic: str, lanes: int) -> dict[int, list[tuple[object, ...]]]:
    """All records of each lane."""
    found: dict[int, list[tuple[object, ...]]] = {lane: [] for lane in range(lanes)}
    with reading(kafka, topic) as reader:
        for messages in reader.read(reader.bounds(list(found))):
            for one in messages:
                found[one.partition() or 0].append(said(one))
    return found


def said(one: Message) -> tuple[object, ...]:
    return one.key(), one.value(), one.headers(), one.timestamp()[1]


def exported(kafka: KafkaConfig, topics: TopicNames, directory: Path, wanted: Wanted | None = None) -> Manifest:
    with reading(kafka, topics.events) as reader:
        base = wanted or Wanted({})
        ranges = reader.bounds(reader.partitions())
        manifest = begun(directory, topics.events, reader.cluster(), replace(base, ranges=ranges))
        export(reader, directory, manifest)
    return manifest


@pytest.mark.parametrize(("kind", "gzip"), [("jsonl", False), ("jsonl", True), ("parquet", False)])
def test_what_is_imported_is_what_was_exported(
    kafka: KafkaConfig,
    topics: TopicNames,
    stories: list[Story],
    lanes: int,
    copy: str,
    tmp_path: Path,
    kind: str,
    gzip: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporting, "RECORDS_MAX", 25)
    monkeypatch.setattr("joblog.streams.kafka.scan.BATCH", 10)
    monkeypatch.setattr(importing, "BATCH", 17)
    manifest = exported(kafka, topics, tmp_path, Wanted({}, format=kind, gzip=gzip))
    assert manifest.complete
    assert manifest.records == 3 * len(stories) + len(ODD)
    assert len(manifest.files) > lanes
    verify_files(tmp_path, manifest)
    create_topic(kafka, copy, lanes, 1)

    def stop(step: str, done: int, _total: int) -> None:
        raise Stopped(f"{step} {done}")

    def imported(told: Told = silent) -> tuple[int, int]:
        """How many records were there, and how many were written."""
        with beginning(kafka, manifest, copy) as producer:
            planned = plan(kafka, manifest, copy, lanes=lanes)
            return sum(planned.done.values()), import_archive(kafka, producer, tmp_path, manifest, planned, told)

    with pytest.raises(Stopped, match="importing 17"):
        imported(stop)
    assert imported() == (17, manifest.records - 17)
    assert imported() == (manifest.records, 0)
    assert contents(kafka, copy, lanes) == contents(kafka, topics.events, lanes)


def test_an_export_goes_on_where_it_was_stopped(
    kafka: KafkaConfig, topics: TopicNames, stories: list[Story], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joblog.streams.kafka.scan.BATCH", 10)
    stops = 0

    def stop(step: str, done: int, _total: int) -> None:
        nonlocal stops
        if done >= 30:
            stops += 1
            raise Stopped(f"{step} {done}")

    with reading(kafka, topics.events) as reader:
        wanted = Wanted(reader.bounds(reader.partitions()))
        manifest = begun(tmp_path, topics.events, reader.cluster(), wanted)
        with pytest.raises(Stopped):
            export(reader, tmp_path, manifest, stop)
        # As a kill would leave it: a file that is not complete.
        (tmp_path / "events-0001-000000000000.jsonl.part").write_bytes(b'{"lane":1,')
        again = begun(tmp_path, topics.events, reader.cluster(), wanted)
        assert not again.complete
        assert again.records >= 30
        export(reader, tmp_path, again, silent)
        other = replace(wanted, filters=Filters(queue="other"))
        with pytest.raises(ArchiveError, match="something else"):
            begun(tmp_path, topics.events, reader.cluster(), other)
    assert stops == 1
    assert again.records == 3 * len(stories) + len(ODD)
    verify_files(tmp_path, again)
    assert read_manifest(tmp_path) == again


def test_filters_choose_events(kafka: KafkaConfig, topics: TopicNames, stories: list[Story], tmp_path: Path) -> None:
    for name, filters, count in (
        ("job", Filters(job=stories[3].id), 3),
        ("state", Filters(state="Processing"), 40),
        ("queue", Filters(queue="q1", state="Succeeded"), 13),
        ("none", Filters(task="other"), 0),
    ):
        assert exported(kafka, topics, tmp_path / name, Wanted({}, filters)).records == count


def test_a_changed_file_a_foreign_topic_and_half_an_archive_are_refused(
    kafka: KafkaConfig, topics: TopicNames, stories: list[Story], lanes: int, tmp_path: Path
) -> None:
    manifest = exported(kafka, topics, tmp_path)
    with pytest.raises(ArchiveError, match="holds records in lane"):
        plan(kafka, manifest, topics.events, lanes=lanes)
    path = tmp_path / manifest.files[0].name
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Enqueued", b"Deleted!", 1))
    with pytest.raises(ArchiveError, match="SHA-256"):
        verify_files(tmp_path, manifest)
    path.write_bytes(data)
    verify_files(tmp_path, manifest)
    manifest.complete = False
    with pytest.raises(ArchiveError, match="not complete"):
        verify_files(tmp_path, manifest)
