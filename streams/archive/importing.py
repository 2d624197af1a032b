"""Writes an archive's records into a topic, each once, with their keys, values, headers, times and lanes.

How far each lane is, is an offset of a consumer group of the import's own, committed in the transactions that write
the records. So an import that was stopped or killed goes on exactly where its last transaction ended, and one that
is complete writes nothing when it is repeated.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.cimpl import NewTopic
from joblog.streams.archive.lines import Archived, read_lines
from joblog.streams.archive.manifest import ArchiveError, File, Manifest, checksum
from joblog.streams.archive.parquet import read_parquet
from joblog.streams.contract.topics import EVENTS
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.group_offsets import committed_offsets
from joblog.streams.kafka.scan import TopicReader
from joblog.streams.progress import Told, silent

#: Records of one transaction, and bytes: it is gathered whole in the client's queue, and has to be written in time.
BATCH: Final = 5_000
BATCH_BYTES: Final = 16 * 1024 * 1024
TIMEOUT_S: Final = 30.0


class Plan(NamedTuple):
    """What an import has to do: of each lane how many records there are, and how many are in the topic already."""

    topic: str
    is_there: bool
    records: dict[int, int]
    done: dict[int, int]

    @property
    def left(self) -> int:
        return sum(self.records.values()) - sum(self.done.values())


def verify_files(directory: Path, manifest: Manifest, told: Told = silent) -> None:
    """Raise ArchiveError unless the archive is complete, and each file as its manifest says."""
    if not manifest.complete:
        raise ArchiveError(f"{directory} is not complete: run the same `joblog replay export` again, which goes on")
    total = sum(file.bytes for file in manifest.files)
    done = 0
    for file in manifest.files:
        path = directory / file.name
        if not path.is_file():
            raise ArchiveError(f"{path} is missing: copy the whole directory, or export again")
        if checksum(path) != file.sha256:
            raise ArchiveError(f"{path} is not as it was written (SHA-256): copy it again, or export again")
        done += file.bytes
        told("checking files (bytes)", done, total)


def plan(config: KafkaConfig, manifest: Manifest, topic: str, *, lanes: int, appends: bool = False) -> Plan:
    """What is to be done in that topic; ArchiveError if it must not be written to.

    - lanes: how many partitions the topic has, or is to have. appends: it may hold other records.
    """
    records = {lane: sum(file.records for file in manifest.of_lane(lane)) for lane in manifest.ranges}
    if max(manifest.ranges, default=0) >= lanes:
        raise ArchiveError(f"the archive has lane {max(manifest.ranges)}, {topic} has {lanes} lanes: mind `lanes`")
    with closing(clients.reader(config, "joblog-import")) as consumer:
        is_there = topic in consumer.list_topics(timeout=TIMEOUT_S).topics
    if not is_there:
        return Plan(topic, is_there, records, dict.fromkeys(records, 0))
    places = [TopicPartition(topic, lane) for lane in records]
    found = committed_offsets(config, _group(manifest, topic), places, TIMEOUT_S)
    done = {one.partition: max(one.offset, 0) for one in found}
    with closing(TopicReader(config, topic, "joblog-import")) as reader:
        reader.check_partitions(lanes)
        bounds = reader.bounds(list(records))
    for lane, count in done.items():
        if not count and bounds[lane].stop and not appends:
            raise ArchiveError(
                f"{topic} holds records in lane {lane}, and none are of this archive: give another prefix, "
                "or --append to write behind them"
            )
    return Plan(topic, is_there, records, done)


def create_topic(config: KafkaConfig, topic: str, lanes: int, replication: int) -> None:
    """Create the topic like the one of events, but for its times, which are those of the archive."""
    settings = {**EVENTS.configuration(), "message.timestamp.type": "CreateTime"}
    new = NewTopic(topic, num_partitions=lanes, replication_factor=replication, config=settings)
    client = clients.admin(config)  # a client that is dropped drops its requests
    (made,) = client.create_topics([new], operation_timeout=TIMEOUT_S).values()
    made.result(TIMEOUT_S)


@contextmanager
def beginning(config: KafkaConfig, manifest: Manifest, topic: str) -> Iterator[Producer]:
    """The producer of an import, whose plan is to be made when it is there.

    By then the last transaction of an import before is over, one way or the other. Until then the offsets of the
    group may be those before it, and an import that relied on them would write its records again.
    """
    producer = clients.transactional_producer(config, _group(manifest, topic))
    with closing(producer):
        producer.init_transactions(TIMEOUT_S)
        yield producer


def import_archive(
    config: KafkaConfig,
    producer: Producer,
    directory: Path,
    manifest: Manifest,
    planned: Plan,
    told: Told = silent,
) -> int:
    """Write what is not in the topic yet; returns how many records that were. Raises KafkaException, Stopped."""
    group, written, total = _group(manifest, planned.topic), 0, sum(planned.records.values())
    before = total - planned.left
    with closing(clients.group_consumer(config, group, group)) as member:
        for lane, done in planned.done.items():
            records = islice(_records(directory, manifest.of_lane(lane)), done, None)
            for batch in batches(records):
                done += len(batch)  # noqa: PLW2901
                _commit(producer, member, planned.topic, batch, TopicPartition(planned.topic, lane, done))
                written += len(batch)
                told("importing", before + written, total)
    return written


def batches(records: Iterable[Archived]) -> Iterator[list[Archived]]:
    """The records in parts, each for one transaction."""
    batch, size = list[Archived](), 0
    for record in records:
        batch.append(record)
        size += len(record.key or b"") + len(record.value or b"")
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _records(directory: Path, files: list[File]) -> Iterator[Archived]:
    for file in files:
        path = directory / file.name
        yield from read_parquet(path) if path.suffix == ".parquet" else read_lines(path)


def _commit(producer: Producer, member: Consumer, topic: str, batch: list[Archived], reached: TopicPartition) -> None:
    """One transaction: these records, and how far the lane is with them.

    If it fails, the next import aborts what is left of it, and learns its outcome from the group's offsets.
    """
    producer.begin_transaction()
    for record in batch:
        producer.produce(
            topic, record.value, record.key, record.lane, timestamp=record.timestamp_ms, headers=record.headers
        )
    producer.send_offsets_to_transaction([reached], member.consumer_group_metadata(), TIMEOUT_S)
    producer.commit_transaction(TIMEOUT_S)


def _group(manifest: Manifest, topic: str) -> str:
    return f"joblog-import-{manifest.id}-{topic}"
