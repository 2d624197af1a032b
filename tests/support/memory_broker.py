"""A broker in memory, as strict as Kafka about what a record may be, and an elector that turns on it."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from joblog.streams.contract.topics import ASSIGNMENT_PARTITIONS, DEADLETTERS, DELAY_TIERS, TopicNames
from joblog.streams.elector.lane_records import LaneRecord, read_state
from joblog.streams.elector.turn import Turn
from joblog.streams.elector.writer import Writer
from joblog.streams.lane.filters import FilterChain, RetryFilter
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.transitions import Election

from tests.support.scene import NOW

NAMES: Final = TopicNames()
#: The largest record that the clients send, with some room for what Kafka adds (kafka/clients.py).
RECORD_BYTES_MAX: Final = 2_000_000 - 1_000
#: Headers whose name is not UTF-8: confluent-kafka raises SystemError, and kills the process when asked again.
UNREADABLE: Final = object()


@dataclass(slots=True, eq=False)
class Record:
    """A record, with the methods of a confluent-kafka message."""

    topic_: str
    partition_: int
    offset_: int
    key_: bytes | None
    value_: bytes | None
    headers_: Any
    appended_ms: int
    is_asked: bool = False

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return self.topic_

    def partition(self) -> int:
        return self.partition_

    def offset(self) -> int:
        return self.offset_

    def key(self) -> bytes | None:
        return self.key_

    def value(self) -> bytes | None:
        return self.value_

    def timestamp(self) -> tuple[int, int]:
        return 2, self.appended_ms

    def headers(self) -> Any:
        if self.headers_ is UNREADABLE:
            assert not self.is_asked, "asked again, the client kills the process"
            self.is_asked = True
            raise SystemError("<method 'headers'> returned a result with an exception set")
        return self.headers_


class MemoryBroker:
    """All topics; `produce` takes what the producers of all roles give, and refuses what Kafka would."""

    def __init__(self, lanes: int, now_ms: int = NOW) -> None:
        self.lanes = lanes
        self.now_ms = now_ms
        self.logs: dict[tuple[str, int], list[Record]] = defaultdict(list)

    def produce(
        self,
        topic: str,
        value: str | bytes | None = None,
        key: str | bytes | None = None,
        partition: int = -1,
        callback: Callable[[Any, Any], None] | None = None,
        headers: Any = None,
        *,
        on_delivery: Callable[[Any, Any], None] | None = None,
    ) -> None:
        encoded = [one.encode() if isinstance(one, str) else one for one in (value, key)]
        if partition < 0:
            assert topic == NAMES.of(DEADLETTERS), "Joblog's roles choose the partition of all other records"
            partition = 0
        assert partition < (ASSIGNMENT_PARTITIONS if topic == NAMES.assignments else self.lanes)
        carried = sum(len(name.encode()) + len(one or b"") + 10 for name, one in headers or ())
        assert sum(len(one or b"") for one in encoded) + carried <= RECORD_BYTES_MAX, "the record is too large"
        record = self.append(topic, partition, encoded[1], encoded[0], headers or None)
        for told in (callback, on_delivery):
            if told is not None:
                told(None, record)

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Any) -> Record:
        """Write a record, whatever it is."""
        log = self.logs[topic, partition]
        record = Record(topic, partition, len(log), key, value, headers, self.now_ms)
        log.append(record)
        return record

    def poll(self, _timeout_s: float) -> int:
        return 0

    def __len__(self) -> int:
        return 0


@dataclass(slots=True)
class Taken:
    """What a turn made of one record: how many events, and which of them reject it; whether it was handed on."""

    record: Record
    events: list[Any]
    parked: list[str]
    is_forwarded: bool
    stale: int


class MemoryElector:
    """The one elector of all lanes; every turn commits."""

    def __init__(self, broker: MemoryBroker, rules: LaneRules | None = None) -> None:
        self.broker = broker
        self.rules = rules or LaneRules()
        self.lanes = {number: Lane(number, broker.lanes, self.rules) for number in range(broker.lanes)}
        self.read: dict[tuple[str, int], int] = defaultdict(int)
        #: The compacted `state` topic.
        self.state: dict[int, dict[str, bytes]] = {number: {} for number in self.lanes}
        self._read_state: dict[int, int] = defaultdict(int)
        self._chain = FilterChain((RetryFilter(lambda: 0.0),))
        self._writer = Writer(broker, broker.lanes, NAMES, {tier: NAMES.delay(tier) for tier in DELAY_TIERS}, {})  # type: ignore[arg-type]

    def turn(self) -> list[Taken]:
        """Decide everything that is unread, and let time pass; tells what became of each record."""
        now_ms = self.broker.now_ms
        turn = Turn(NAMES, self.lanes, Election(now_ms, now_ms, self._chain.elect, self._chain.watched))
        taken = []
        for topic in (NAMES.commands, NAMES.reports):
            for number in self.lanes:
                log = self.broker.logs[topic, number]
                taken += [self._take(turn, record) for record in log[self.read[topic, number] :]]
                self.read[topic, number] = len(log)
        turn.tick(self.lanes.keys())
        turn.assign()
        records = {
            number: LaneRecord("e", self.read[NAMES.commands, number], self.read[NAMES.reports, number])
            for number in self.lanes
        }
        turn.write(self._writer, records)
        self._compact()
        return taken

    def _take(self, turn: Turn, record: Record) -> Taken:
        number = record.partition_
        before = turn.outputs.get(number)
        events, stale = (len(before.events), _stale(before)) if before else (0, 0)
        parked, forwards = len(turn.parked), len(turn.forwards)
        turn.take(record)  # type: ignore[arg-type]
        out = turn.outputs[number]
        return Taken(
            record,
            out.events[events:],
            [error.code for _, _, error in turn.parked[parked:]],
            len(turn.forwards) > forwards,
            _stale(out) - stale,
        )

    def _compact(self) -> None:
        for number, kept in self.state.items():
            log = self.broker.logs[NAMES.state, number]
            for record in log[self._read_state[number] :]:
                key = (record.key_ or b"").decode()
                if record.value_ is None:
                    kept.pop(key, None)
                else:
                    kept[key] = record.value_
            self._read_state[number] = len(log)

    def reloaded(self, number: int) -> Lane:
        """The lane as another elector would have it, from its records alone."""
        lane = Lane(number, self.broker.lanes, self.rules)
        for key, value in self.state[number].items():
            found = read_state(key, value)
            if not isinstance(found, LaneRecord):
                lane.load(key, found, self.broker.now_ms)  # type: ignore[arg-type]
        lane.loaded(self.broker.now_ms)
        return lane


def _stale(out: Any) -> int:
    return sum(count for (name, *_), count in out.counts.items() if name == "joblog_stale_reports_total")
