"""The worker's ear: its partition of the assignments topic, from the moment it announces itself."""

import logging
from collections import deque
from collections.abc import Iterable, Mapping
from math import inf
from threading import Event, Thread
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from joblog.services.tasks.context import Cause
from joblog.services.worker.execution.run import AssignmentRecord, KnownTask, Leases, Run, RunKey, clock
from joblog.services.worker.reports import Endings, Reports, RunMeters
from joblog.services.worker.slots import Slots
from joblog.streams.contract.ids import murmur2
from joblog.streams.contract.topics import ASSIGNMENT_PARTITIONS, TopicNames
from joblog.streams.contract.unreadable import NOT_READABLE, failed_by_assignment
from joblog.streams.contract.wire import AnyAssignment, CancelJob, RunJob
from joblog.streams.errors import InternalError, JoblogError, TopicsError, UndecodableRecord
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
    """What the electors assign here does not arrive: records were deleted unread, or cannot be read.

    The worker could go on renewing its lease, and its jobs would never be started: it has to end its session.
    """


class Unreadable(NamedTuple):
    """Why an assignment cannot be read: a word for programs and a text for people, and the error if it was ours."""

    code: str
    reason: str
    error: Exception | None = None


class Arrived(NamedTuple):
    """A record for this worker, and what it says."""

    record: AssignmentRecord
    assignment: AnyAssignment | Unreadable


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
    """The partition of `assignments` in which a worker is told what to do."""
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
    """Asks the broker again and again, in a thread of its own, where a partition ends.

    - answers: pairs of offset and instant, for `ReadProgress.expect`; the reader takes them out.

    The end is that of what is committed, the "last stable offset": the consumer asks as it reads.
    """

    def __init__(self, consumer: Consumer, partition: TopicPartition, every_s: float, meters: Meters) -> None:
        self.answers: deque[tuple[int, float]] = deque()
        self._consumer = consumer
        self._partition = partition
        self._every_s = every_s
        self._meters = meters
        self._closed = Event()
        self._thread = Thread(target=self._ask, name="assignments-end", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the thread end, which takes `METADATA_TIMEOUT_S` at most; the consumer may be closed after that."""
        self._closed.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._closed.wait(self._every_s):
            asked_at = clock()
            try:
                _, end = self._consumer.get_watermark_offsets(self._partition, timeout=METADATA_TIMEOUT_S)
            except KafkaException as exc:
                error = exc.args[0]
                self._meters.inc("joblog_kafka_errors_total", "worker", error.name())
                log.warning("assignments.end_unknown", extra={"error": error.str()})
            else:
                self.answers.append((end, asked_at))


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
        cls, config: KafkaConfig, names: TopicNames, lanes: int, worker: str, ask_end_s: float, meters: Meters
    ) -> "Assignments":
        """Start to read at the present end of the worker's partition; ask for its end every `ask_end_s`.

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
        queries = EndQueries(consumer, partition, ask_end_s, meters)
        return cls(consumer, worker, lanes, meters, ReadProgress(partition.offset, clock()), queries)

    @property
    def read_at(self) -> float:
        """The last instant of which it is known that all assignments before it have been taken."""
        if self._queries is not None:
            answers = self._queries.answers
            while answers:
                self._progress.expect(*answers.popleft())
        return self._progress.read_at

    def take(self, timeout_s: float) -> list[Arrived]:
        """What came for this worker; waits for a first record, then takes what is there."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        found: list[Arrived] = []
        for message in (first, *self._consumer.consume(BATCH_MAX, 0)):
            error = message.error()
            if error is None:
                offset = message.offset() or 0
                self._progress.advance(offset + 1)
                if message.key() == self._key:
                    value = message.value()
                    record = AssignmentRecord(
                        message.topic() or "", message.partition() or 0, offset, self._key, value
                    )
                    found.append(Arrived(record, read_assignment(value, self._lanes)))
            elif error.code() == KafkaError._PARTITION_EOF:
                self._progress.advance(message.offset() or 0)  # behind the markers of transactions, too
            else:
                self._note(error)
        return found

    def close(self) -> None:
        if self._queries is not None:
            self._queries.close()
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
    """Wait until the client has fetched up to the end: its first fetch may come half a second late."""
    end = clock() + PRIME_S
    while clock() < end:
        message = consumer.poll(0.1)
        if message is not None:
            return


class Intake:
    """Makes runs of assignments, and ends them; belongs to the worker's loop.

    - held: the runs whose end is not reported; whoever reports it takes the run out.

    An error that nobody foresaw costs the assignment that led to it, which is parked, and no other.
    """

    def __init__(
        self,
        *,
        worker: str,
        lanes: int,
        queues: Iterable[str],
        known: Mapping[str, KnownTask],
        slots: Slots,
        endings: Endings,
        reports: Reports,
        meters: RunMeters,
        leases: Leases,
    ) -> None:
        self._worker = worker
        self._lanes = lanes
        self._leases = leases
        self._queues = frozenset(queues)
        self._known = known
        self._slots = slots
        self._endings = endings
        self._reports = reports
        self._meters = meters
        self._closed: str | None = None
        self.held: dict[RunKey, Run] = {}

    def accept(self, arrived: Iterable[Arrived]) -> None:
        now = clock()
        runs: list[Run] = []
        for one in arrived:
            try:
                self._handle(one, now, runs)
            except Exception as exc:  # noqa: BLE001 - the records behind this one are for other jobs
                self._fail(one, exc)
        self._add(runs)

    def _handle(self, one: Arrived, now: float, runs: list[Run]) -> None:
        assignment = one.assignment
        if isinstance(assignment, RunJob):
            self._take(assignment, one.record, now, runs)
        elif isinstance(assignment, CancelJob):
            self._add(runs)  # the run to cancel may be among these
            self._cancel(assignment)
        elif assignment.error is not None:
            raise assignment.error
        else:
            self._park(one.record, assignment)

    def _add(self, runs: list[Run]) -> None:
        """Let them wait for a slot."""
        try:
            self._slots.add(runs)
        except Exception as exc:  # noqa: BLE001 - as above
            for run in runs:
                self._slots.withdraw(run)
                self._endings.fault(run, exc)
        runs.clear()

    def _park(self, record: AssignmentRecord, unreadable: Unreadable) -> None:
        """Send an assignment that cannot be read to the dead letters, and fail the run that it speaks of."""
        log.error("assignment.parked", extra={"position": record.position, **unreadable._asdict()})
        self._reports.park(record, unreadable.code, unreadable.reason)
        self._meters.parked(unreadable.code)
        self._fail_unread(record, unreadable.reason)

    def _fail(self, one: Arrived, error: Exception) -> None:
        """An error of ours: park the record, and fail its run if it can be made out."""
        run = (
            self.held.get((one.assignment.job_id, one.assignment.lease))
            if isinstance(one.assignment, RunJob)
            else None
        )
        if run is not None and run.record is one.record:
            self._endings.fault(run, error)
            return
        self._endings.park(one.record, error, {})
        self._fail_unread(one.record, f"{type(error).__name__}: {error}")

    def _fail_unread(self, record: AssignmentRecord, reason: str) -> None:
        made_out = failed_by_assignment(record.value, self._worker, reason)
        if made_out is not None and made_out[0] < self._lanes:
            self._reports.failed(*made_out)

    def close(self, reason: str) -> None:
        """Give back what waits, and whatever still comes."""
        self._closed = reason
        self.release(self._slots.withdraw_older(inf), reason)

    def release(self, runs: Iterable[Run], reason: str) -> None:
        for run in runs:
            self._endings.release(run, reason)

    def fence(self, runs: Iterable[Run], reason: str) -> None:
        """Stop runs whose lease may be over, and give them back; who has them by now rejects that."""
        for run in runs:
            self._slots.withdraw(run)
            run.stop(Cause.LEASE_LOST)
            self._endings.release(run, reason)

    def give_back_all(self, reason: str) -> None:
        """Stop everything and give it back: the leases are held, but the session is over."""
        self.close(reason)
        self.fence(list(self.held.values()), reason)

    def give_up(self, reason: str) -> None:
        """Stop and drop everything, without a word to anybody."""
        self._closed = reason
        self._slots.withdraw_older(inf)
        for run in list(self.held.values()):
            self._endings.cancel(run, reason)

    def _take(self, job: RunJob, record: AssignmentRecord, now: float, runs: list[Run]) -> None:
        known = self._known.get(job.task)
        if self._closed is not None:
            self._reports.refused(job, self._worker, self._closed)
        elif known is None:
            self._reports.refused(job, self._worker, f"this worker knows no task {job.task}")
        elif job.queue not in self._queues:
            self._reports.refused(job, self._worker, f"this worker does not work the queue {job.queue}")
        elif (job.job_id, job.lease) not in self.held:
            run = Run(job, known, self._worker, self.held, now, self._leases, record)
            self.held[run.key] = run
            runs.append(run)

    def _cancel(self, order: CancelJob) -> None:
        run = self.held.get((order.job_id, order.lease))
        if run is not None:
            self._slots.withdraw(run)
            self._endings.cancel(run, f"{Cause.CANCELLED}: {order.reason}")
