"""The projector's end of the topic `events`: reads on from given offsets, and knows how much is left."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import OFFSET_BEGINNING
from joblog.projections.projector.event_batch import Record
from joblog.streams.contract.record_headers import readable_headers
from joblog.streams.errors import BrokersAway, LogLost, TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

ROLE: Final = "projector"
METADATA_TIMEOUT_S: Final = 10.0
ENDS_TIMEOUT_S: Final = 3.0
#: A batch should be in memory before it is asked for: 20,000 events of 1.6 kB.
QUEUE_KB: Final = 32_768
#: The consumer does not come back from these by itself. A new one may: only `_check_positions` knows.
_ENDING: Final = frozenset(
    {
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)


@contextmanager
def answered(config: KafkaConfig) -> Iterator[None]:
    """For commands, which do not wait for brokers that are away: an error of the client is BrokersAway."""
    try:
        yield
    except KafkaException as error:
        raise BrokersAway(
            f"the brokers at {config.bootstrap_servers} do not answer: {error.args[0].str()}"
        ) from error


class Bounds:
    """Where some lanes of `events` begin and end now."""

    def __init__(self, config: KafkaConfig, topic: str, lanes: Iterable[int]) -> None:
        self._config = config
        self._topic = topic
        self._partitions = [TopicPartition(topic, lane) for lane in lanes]
        self._admin: AdminClient | None = None

    def begin(self, timeout_s: float = METADATA_TIMEOUT_S) -> dict[int, int]:
        """The first offset that each lane still holds; raises KafkaException when the brokers do not answer."""
        return self._offsets(OffsetSpec.earliest(), timeout_s)  # type: ignore[no-untyped-call]

    def end(self, timeout_s: float = METADATA_TIMEOUT_S) -> dict[int, int]:
        """The offset behind the last record, or marker of a transaction, of each lane; raises KafkaException."""
        return self._offsets(OffsetSpec.latest(), timeout_s)  # type: ignore[no-untyped-call]

    def _offsets(self, which: OffsetSpec, timeout_s: float) -> dict[int, int]:
        try:
            if self._admin is None:
                self._admin = clients.admin(self._config, "joblog-projector-admin")
                # As a client's first request, list_offsets may miss its metadata and wait 3 s for the next.
                self._admin.list_topics(self._topic, timeout=timeout_s)
            found = self._admin.list_offsets(dict.fromkeys(self._partitions, which), request_timeout=timeout_s)
            return {partition.partition: future.result().offset for partition, future in found.items()}
        except KafkaException:
            # After a leader's restart a client may ask with its old epoch, and be refused, for minutes.
            self._admin = None
            raise


class EventLog:
    """A consumer of some lanes of `events`; `positions` say which, and where to go on in each (0: the beginning)."""

    def __init__(
        self,
        config: KafkaConfig,
        topic: str,
        lanes: int,
        positions: Mapping[int, int],
        meters: Meters,
        queue_kb: int = QUEUE_KB,
    ) -> None:
        self._topic = topic
        self._meters = meters
        # Where the client found the end of a lane: behind the last record there may be a transaction's marker.
        self._ends_seen: dict[int, int] = {}
        self._partitions = [TopicPartition(topic, lane) for lane in positions]
        self._consumer: Consumer = clients.reader(
            config, "joblog-projector", error_cb=self._on_error, **{"queued.max.messages.kbytes": queue_kb}
        )
        self._bounds = Bounds(config, topic, positions)
        self._reported: set[str] = set()
        self._ending: KafkaError | None = None
        try:
            self._check_partitions(lanes)
            self._check_positions(positions)
            self._consumer.assign(
                [TopicPartition(topic, lane, offset or OFFSET_BEGINNING) for lane, offset in positions.items()]
            )
        except BaseException:
            self._consumer.close()
            raise

    def close(self) -> None:
        self._consumer.close()

    def read(self, records_max: int, timeout_s: float) -> list[Record]:
        """What is there, in the order of each lane; waits for the first record only, and returns none if none came.

        Raises KafkaException when only a new consumer may read on.
        """
        # An end of a lane says how far it went when it was fetched: behind it there may be the next records.
        while messages := self._fetched(records_max, timeout_s):
            if records := list(self._records(messages)):
                return records
            timeout_s = 0
        return []

    def _fetched(self, messages_max: int, timeout_s: float) -> list[Message]:
        messages = self._consumer.consume(1, timeout_s)
        if messages and messages_max > 1:
            messages += self._consumer.consume(messages_max - 1, 0)
        if self._ending is not None:
            raise KafkaException(self._ending)
        return messages

    @property
    def ended(self) -> bool:
        """Whether the end of every lane was seen once; since then more may have been written."""
        return len(self._ends_seen) == len(self._partitions)

    def lags(self, positions: Mapping[int, int], *, read_ahead: Collection[int]) -> dict[int, int] | None:
        """How many records each lane holds beyond `positions`; None when the brokers do not answer.

        `read_ahead`: the lanes of which something was read, and not yet applied; another that was read to its
        end has no lag.
        """
        try:
            ends = self._bounds.end(ENDS_TIMEOUT_S)
        except KafkaException as error:
            self._on_error(error.args[0])
            return None
        self._reported.clear()
        return {
            lane: 0 if self._ends_seen.get(lane) == end and lane not in read_ahead else max(end - positions[lane], 0)
            for lane, end in ends.items()
        }

    def _records(self, messages: Iterable[Message]) -> Iterable[Record]:
        for message in messages:
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                self._on_error(error)
                if self._ending is not None:
                    raise KafkaException(self._ending)
                continue
            lane, offset = message.partition(), message.offset()
            assert lane is not None
            assert offset is not None
            if error is None:
                yield Record(lane, offset, message.timestamp()[1], message.value(), readable_headers(message))
            else:
                self._ends_seen[lane] = offset

    def _on_error(self, error: KafkaError) -> None:
        self._meters.inc("joblog_kafka_errors_total", ROLE, error.name())
        if error.fatal() or error.code() in _ENDING:
            self._ending = error
        if error.name() in self._reported:
            return  # a broker that is away is tried, and refuses, forty times a second
        self._reported.add(error.name())
        log.warning("kafka.error", extra={"code": error.name(), "reason": error.str()})

    def _check_partitions(self, lanes: int) -> None:
        there: Any = self._consumer.list_topics(self._topic, METADATA_TIMEOUT_S).topics[self._topic]
        if there.error is not None and there.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicsError(f"topic {self._topic} is missing: create the topics first, or mind the prefix")
        if there.error is not None:
            raise KafkaException(there.error)
        if len(there.partitions) != lanes:
            raise TopicsError(f"topic {self._topic} has {len(there.partitions)} partitions, not {lanes}")

    def _check_positions(self, positions: Mapping[int, int]) -> None:
        if not any(positions.values()):
            return
        begin, end = self._bounds.begin(), self._bounds.end()
        for lane, offset in positions.items():
            if offset and not begin[lane] <= offset <= end[lane]:
                raise LogLost(
                    f"lane {lane} of {self._topic} holds the offsets {begin[lane]} to {end[lane]}, not {offset}, "
                    "where the tables go on: they belong to another log, or events were deleted before they were "
                    "applied; build the tables anew, in another schema"
                )
