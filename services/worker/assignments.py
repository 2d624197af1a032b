"""What a worker reads: its partition of the topic `assignments`, and whether it reads all of it."""

import logging
from collections import deque
from concurrent.futures import Future
from math import inf
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from joblog.services.worker.execution.run import AssignmentRecord, clock
from joblog.streams.contract.ids import murmur2
from joblog.streams.contract.topics import ASSIGNMENT_PARTITIONS, TopicNames
from joblog.streams.contract.unreadable import NOT_READABLE
from joblog.streams.contract.wire import AnyAssignment, RunJob
from joblog.streams.errors import InternalError, JoblogError, TopicsError, UndecodableRecord
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

BATCH_MAX: Final = 500
METADATA_TIMEOUT_S: Final = 5.0
#: Longest wait for the first fetch; mostly it takes milliseconds.
PRIME_S: Final = 2.0

_DECODER: Final[msgspec.json.Decoder[AnyAssignment]] = msgspec.json.Decoder(AnyAssignment)


class AssignmentsLost(JoblogError):
    """What the electors assign here does not arrive: records were deleted unread, or cannot be read.

    The worker could go on renewing its lease, and its jobs would never be started: it has to end its session.
    """


class Unreadable(NamedTuple):
    """Why an assignment cannot be read: a word for programs and a text for people, and the error if it was ours."""

    code: str
    reason: str
    error: Exception | None = None


#: A record for this worker, and what it says.
Arrived: TypeAlias = tuple[AssignmentRecord, AnyAssignment | Unreadable]


def read_assignment(value: bytes | None, lanes: int) -> AnyAssignment | Unreadable:
    """What an assignment says. Never raises."""
    try:
        assignment = _DECODER.decode(value or b"")
    except NOT_READABLE as exc:
        return Unreadable(UndecodableRecord.code, str(exc))
    except Exception as exc:  # noqa: BLE001 - the records behind this one have to be read
        return Unreadable(InternalError.code, str(exc), exc)
    if isinstance(assignment, RunJob) and assignment.lane >= lanes:
        return Unreadable(
            UndecodableRecord.code, f"lane {assignment.lane} is not there: no report could be sent to it"
        )
    return assignment


def partition_of(worker: str) -> int:
    """The partition of `assignments` that a worker reads."""
    return (murmur2(worker.encode()) & 0x7FFFFFFF) % ASSIGNMENT_PARTITIONS


class ReadProgress:
    """Until when everything that a partition held has been read, by comparing two offsets.

    A consumer says nothing while it waits: a partition without new records and one that cannot be fetched look
    the same. So the broker is asked where the partition ends (`expect`); once the reader has come so far
    (`advance`), all that was there when the question was asked has been read.
    """

    def __init__(self, offset: int, now: float) -> None:
        """`offset`: the first that is not read yet."""
        self.read_at = now
        self._offset = offset
        self._ends: deque[tuple[int, float]] = deque()

    def advance(self, offset: int) -> None:
        """All before this offset has been read."""
        self._offset = max(self._offset, offset)
        self._compare()

    def expect(self, end: int, asked_at: float) -> None:
        """The partition's end was at this offset, at some time after `asked_at`."""
        self._ends.append((end, asked_at))
        self._compare()

    def _compare(self) -> None:
        while self._ends and self._ends[0][0] <= self._offset:
            self.read_at = max(self.read_at, self._ends.popleft()[1])


class EndQueries:
    """Asks the broker again and again where a partition ends, without waiting for the answer.

    By an admin client of its own: asked by a consumer in another thread, the question waits for as long as the
    consumer is polled (librdkafka 2.16). The end is that of what is committed, since the consumer reads no more.
    """

    def __init__(self, admin: AdminClient, partition: TopicPartition, every_s: float, meters: Meters) -> None:
        self._admin = admin
        self._partition = TopicPartition(partition.topic, partition.partition)
        self._every_s = every_s
        self._meters = meters
        self._asked_at = -inf
        self._answer: Future[Any] | None = None

    def answer(self, now: float) -> tuple[int, float] | None:
        """The offset of the end, and when it was asked for, once for each answer that came; asks when it is time."""
        if self._answer is None:
            if now - self._asked_at >= self._every_s:
                self._ask(now)
            return None
        if not self._answer.done():
            return None
        answer, self._answer = self._answer, None
        try:
            return answer.result().offset, self._asked_at
        except KafkaException as exc:
            error = exc.args[0]
            self._meters.inc("joblog_kafka_errors_total", "worker", error.name())
            log.warning("assignments.end_unknown", extra={"error": error.str()})
            return None

    def _ask(self, now: float) -> None:
        self._asked_at = now
        wanted = {self._partition: OffsetSpec.latest()}  # type: ignore[no-untyped-call]
        [self._answer] = self._admin.list_offsets(
            wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=METADATA_TIMEOUT_S
        ).values()


class Assignments:
    """Reads the records with the worker's key; all others in the partition are not for it."""

    def __init__(
        self,
        consumer: Consumer,
        worker: str,
        lanes: int,
        meters: Meters,
        progress: ReadProgress,
        queries: EndQueries | None,
    ) -> None:
        self._consumer = consumer
        self._lanes = lanes
        self._key = worker.encode()
        self._meters = meters
        self._progress = progress
        self._queries = queries

    @classmethod
    def open(
        cls,
        config: KafkaConfig,
        names: TopicNames,
        lanes: int,
        worker: str,
        meters: Meters,
        admin: AdminClient,
        ask_end_s: float,
    ) -> "Assignments":
        """Start to read at the present end of the worker's partition; ask for its end every `ask_end_s`.

        KafkaException when the broker does not answer, or a topic is not there; TopicsError when a topic has
        other partitions than `lanes` says, since queues would then be looked for in the wrong lanes.
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
        queries = EndQueries(admin, partition, ask_end_s, meters)
        return cls(consumer, worker, lanes, meters, ReadProgress(partition.offset, clock()), queries)

    def read_at(self, now: float) -> float:
        """The last instant of which it is known that all assignments before it have been taken."""
        if self._queries is not None and (answer := self._queries.answer(now)) is not None:
            self._progress.expect(*answer)
        return self._progress.read_at

    def take(self, timeout_s: float) -> list[Arrived]:
        """The records for this worker; waits for a first one, then takes what has been fetched."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        found: list[Arrived] = []
        read_to = 0
        for message in (first, *self._consumer.consume(BATCH_MAX, 0)):
            error = message.error()
            if error is None:
                read_to = (message.offset() or 0) + 1
                if message.key() == self._key:
                    found.append((message, read_assignment(message.value(), self._lanes)))
            elif error.code() == KafkaError._PARTITION_EOF:
                read_to = message.offset() or 0  # behind the markers of transactions, too
            else:
                self._note(error)
        self._progress.advance(read_to)
        return found

    def close(self) -> None:
        self._consumer.close()

    def _note(self, error: KafkaError) -> None:
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
    """Wait until the client has fetched up to the end: its first fetch may take half a second."""
    end = clock() + PRIME_S
    while clock() < end:
        message = consumer.poll(0.1)
        if message is not None:
            return
