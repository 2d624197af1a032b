"""Taking lanes over: read their `state` to the end, fence whoever had them, read what ended lately.

A dead elector may have left a transaction open, which hides the end of the partitions it wrote to from every
reader for as long as the transaction may live. Whoever takes its lanes over therefore calls
`init_transactions` once with the dead one's id: that aborts the transaction at once, and a zombie that wakes
up later can commit nothing.
"""

import logging
import time
from collections.abc import Collection, Iterator
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.lane_records import ASIDE_KEY, LANE_KEY, LaneAside, LaneRecord, read_state
from joblog.streams.errors import ElectorError
from joblog.streams.kafka.clients import KafkaConfig, reader, transactional_producer
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.output import StateValue
from joblog.streams.lane.rules import LaneRules

log = logging.getLogger(__name__)

BATCH: Final = 10_000
#: A healthy broker answers within milliseconds; a lane whose end is hidden this long has an open transaction
#: of an owner that its record does not name.
READ_TIMEOUT_S: Final = 120
WATERMARKS_S: Final = 10


class NotOurs(ElectorError):
    """A lane that this elector believed to have is another's by now."""


class Takeover:
    """Reads lanes back from the log. One reader is kept, so that its connections are warm when it counts."""

    def __init__(self, config: KafkaConfig, names: TopicNames, lanes: int, rules: LaneRules, client_id: str) -> None:
        self._config = config
        self._names = names
        self._lanes = lanes
        self._rules = rules
        # An end is an answer without records, for which the broker would wait: not while lanes stand still.
        self._reader: Consumer = reader(config, f"{client_id}-takeover", **{"fetch.wait.max.ms": 5})

    def close(self) -> None:
        self._reader.close()

    def load(
        self, numbers: Collection[int], own_id: str, clock_ms: int, *, fence: bool
    ) -> dict[int, tuple[Lane, LaneRecord]]:
        """The lanes as their last owners left them, and how far those had read.

        1. read to the end 2. fence foreign owners 3. read what that uncovered.
        Without `fence`, raises NotOurs when a lane has a foreign owner.
        """
        values: dict[int, dict[str, bytes]] = {number: {} for number in numbers}
        # Asked for, not left to the client as "the beginning": a new client looks for that only every 500 ms.
        positions = {number: self._watermarks(self._names.state, number)[0] for number in numbers}
        self._read_state(values, positions)
        owners = {self._record(found).owner for found in values.values()} - {None, own_id}
        if owners and not fence:
            raise NotOurs(owners)
        for owner in owners:
            self._fence(str(owner))
        if owners:
            self._read_state(values, positions)
        return {number: self._lane(number, values.pop(number), clock_ms) for number in sorted(numbers)}

    def state_ends(self, numbers: Collection[int]) -> dict[int, int]:
        """The end of each lane's `state` partition: unchanged as long as nobody writes there."""
        return {number: self._watermarks(self._names.state, number)[1] for number in numbers}

    def _record(self, found: dict[str, bytes]) -> LaneRecord:
        value = found.get(LANE_KEY)
        if value is None:
            return LaneRecord(None, OFFSET_BEGINNING, OFFSET_BEGINNING)
        record = read_state(LANE_KEY, value)
        assert isinstance(record, LaneRecord)
        return record

    def _lane(self, number: int, found: dict[str, bytes], clock_ms: int) -> tuple[Lane, LaneRecord]:
        record = self._record(found)
        found.pop(LANE_KEY, None)
        found.pop(ASIDE_KEY, None)
        lane = Lane(number, self._lanes, self._rules)
        while found:
            key, value = found.popitem()
            decoded: StateValue | LaneRecord | LaneAside = read_state(key, value)
            assert not isinstance(decoded, LaneRecord | LaneAside)
            lane.load(key, decoded, clock_ms)
        lane.loaded(clock_ms)
        return lane, record

    def _fence(self, owner: str) -> None:
        log.info("elector.fence", extra={"owner": owner})
        producer = transactional_producer(self._config, owner)
        producer.init_transactions(30)
        producer.close()

    def _read_state(self, values: dict[int, dict[str, bytes]], positions: dict[int, int]) -> None:
        """Read on from `positions` to the ends, the last value of each key into `values`."""
        for message in self._to_end(self._names.state, positions):
            key, value, number = (message.key() or b"").decode(), message.value(), message.partition()
            assert number is not None
            if value is None:
                values[number].pop(key, None)
            else:
                values[number][key] = value

    def _watermarks(self, topic: str, number: int) -> tuple[int, int]:
        low, high = self._reader.get_watermark_offsets(TopicPartition(topic, number), timeout=WATERMARKS_S)
        return low, high

    def _to_end(self, topic: str, positions: dict[int, int]) -> Iterator[Message]:
        """Every committed record from `positions` to the end of each partition; moves the positions on."""
        consumer = self._reader
        waiting = set(positions)
        consumer.assign([TopicPartition(topic, number, offset) for number, offset in positions.items()])
        deadline = time.monotonic() + READ_TIMEOUT_S
        while waiting:
            messages = consumer.consume(1, 1.0)
            messages += consumer.consume(BATCH, 0)
            for message in messages:
                error = message.error()
                number = message.partition()
                assert number is not None
                if error is None:
                    positions[number] = (message.offset() or 0) + 1
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.discard(number)
                elif error.fatal() or not error.retriable():
                    raise KafkaException(error)
            if messages:
                deadline = time.monotonic() + READ_TIMEOUT_S
            elif time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{topic}: no end of {sorted(waiting)}"))
        consumer.unassign()
