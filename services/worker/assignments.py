"""The worker's ear: its partition of the assignments topic, from the moment it announces itself."""

import logging
import time
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from joblog.streams.contract.ids import murmur2
from joblog.streams.contract.topics import ASSIGNMENT_PARTITIONS, TopicNames
from joblog.streams.contract.unreadable import NOT_READABLE, failed_by_assignment
from joblog.streams.contract.wire import AnyAssignment, RunFailed, RunJob
from joblog.streams.errors import JoblogError, TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

BATCH_MAX: Final = 500
METADATA_TIMEOUT_S: Final = 5.0
#: Longest wait for the first fetch; more often it is over after some milliseconds.
PRIME_S: Final = 2.0

_DECODER: Final[msgspec.json.Decoder[AnyAssignment]] = msgspec.json.Decoder(AnyAssignment)


class AssignmentsLost(JoblogError):
    """Records were deleted before they were read: what the elector assigned here is not known any more."""


class Unreadable(NamedTuple):
    """An assignment that cannot be read, as far as it can: what to report of it, and to which lane."""

    lane: int
    report: RunFailed


def partition_of(worker: str) -> int:
    """The partition of `assignments` in which a worker is told what to do."""
    return (murmur2(worker.encode()) & 0x7FFFFFFF) % ASSIGNMENT_PARTITIONS


class Assignments:
    """Reads the records with the worker's key; all others in the partition are not for it."""

    def __init__(self, consumer: Consumer, worker: str, lanes: int, meters: Meters) -> None:
        self._consumer = consumer
        self._lanes = lanes
        self._worker = worker
        self._key = worker.encode()
        self._meters = meters

    @classmethod
    def open(cls, config: KafkaConfig, names: TopicNames, lanes: int, worker: str, meters: Meters) -> "Assignments":
        """Start to read at the present end of the worker's partition.

        KafkaException when the broker does not answer, or a topic is not there; TopicsError when a topic has
        other partitions than the settings say, since queues would then be looked for in the wrong lanes.
        """
        consumer = clients.reader(config, worker)
        try:
            _check_partitions(consumer, {names.reports: lanes, names.assignments: ASSIGNMENT_PARTITIONS})
            partition = TopicPartition(names.assignments, partition_of(worker))
            # A number, not "the end": that would be looked up some time later, after the announcement.
            _, partition.offset = consumer.get_watermark_offsets(partition, timeout=METADATA_TIMEOUT_S)
            consumer.assign([partition])
            _prime(consumer)
        except BaseException:
            consumer.close()
            raise
        return cls(consumer, worker, lanes, meters)

    def take(self, timeout_s: float) -> list[AnyAssignment | Unreadable]:
        """What came for this worker; waits for a first record, then takes what is there."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        found: list[AnyAssignment | Unreadable] = []
        for message in (first, *self._consumer.consume(BATCH_MAX, 0)):
            error = message.error()
            if error is not None:
                self._note(error)
            elif message.key() == self._key:
                self._decode(message, found)
        return found

    def close(self) -> None:
        self._consumer.close()

    def _decode(self, message: Message, found: list[AnyAssignment | Unreadable]) -> None:
        try:
            assignment = _DECODER.decode(message.value() or b"")
            if isinstance(assignment, RunJob) and assignment.lane >= self._lanes:
                raise ValueError(f"lane {assignment.lane} is not there: nobody could be told how the run ends")
            found.append(assignment)
        except NOT_READABLE as exc:
            self._meters.inc("joblog_quarantined_records_total", "worker", "undecodable")
            place = f"{message.topic()}/{message.partition()}@{message.offset()}"
            log.exception("assignment.undecodable", extra={"position": place, "reason": str(exc)})
            made_out = failed_by_assignment(message.value(), self._worker, str(exc))
            if made_out is not None and made_out[0] < self._lanes:
                found.append(Unreadable(*made_out))

    def _note(self, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            return
        self._meters.inc("joblog_kafka_errors_total", "worker", error.name())
        if error.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            raise AssignmentsLost(error.str())
        log.warning("assignments.error", extra={"error": error.str()})


def _check_partitions(consumer: Consumer, wanted: dict[str, int]) -> None:
    for name, count in wanted.items():
        topic = consumer.list_topics(name, timeout=METADATA_TIMEOUT_S).topics[name]
        if topic.error is not None:
            raise KafkaException(topic.error)
        if len(topic.partitions) != count:
            raise TopicsError(f"topic {name} has {len(topic.partitions)} partitions where {count} are expected")


def _prime(consumer: Consumer) -> None:
    """Wait until the client has fetched up to the end: its first fetch may come half a second late."""
    end = time.monotonic() + PRIME_S
    while time.monotonic() < end:
        message = consumer.poll(0.1)
        if message is not None:
            return
