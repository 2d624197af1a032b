"""Taking lanes over: read their `state` to the end, fence whoever had them, and make lanes of what was read.

A dead elector may have left a transaction open, which hides the end of the partitions it wrote to from every
reader for as long as the transaction may live. Whoever takes its lanes over therefore calls
`init_transactions` once with the dead one's id: that aborts the transaction at once, and a zombie that wakes
up later can commit nothing.

A lane that cannot be loaded is set aside with the reason; the others are not concerned.
"""

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from joblog.streams.contract.deadletters import internal_error
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.lane_records import (
    ASIDE_KEY,
    LANE_KEY,
    ORDER_KEY,
    OWN_KEYS,
    Action,
    AsideCode,
    LaneAside,
    LaneOrder,
    LaneRecord,
    StateRecord,
    read_state,
)
from joblog.streams.errors import ElectorError
from joblog.streams.kafka.clients import KafkaConfig, reader, transactional_producer
from joblog.streams.lane.job import Job
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.rules import LaneRules
from msgspec import structs

log = logging.getLogger(__name__)

BATCH: Final = 10_000
#: A healthy broker answers within milliseconds; a lane whose end is hidden this long has an open transaction
#: of an owner that its record does not name.
READ_TIMEOUT_S: Final = 120
WATERMARKS_S: Final = 10
NEW: Final = LaneRecord(None, OFFSET_BEGINNING, OFFSET_BEGINNING)


class NotOurs(ElectorError):
    """A lane that this elector believed to have is another's by now."""


class SetAside(ElectorError):
    """A lane cannot be loaded."""

    def __init__(self, code: AsideCode, reason: str, details: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.details = details


@dataclass(slots=True)
class Loaded:
    """What a take-over made of one lane's records.

    - lane: None if it cannot work. record: how far it was read; None if `state` does not say.
    - why: why it cannot work. noted: what its aside record said before.
    - changes: records to write or, as None, to delete because of an order or of the end of one.
    - dropped: raw records of `state` that an operator had skipped, for the dead letters.
    """

    lane: Lane | None = None
    record: LaneRecord | None = None
    why: SetAside | None = None
    noted: LaneAside | None = None
    changes: dict[str, StateRecord] = field(default_factory=dict)
    dropped: dict[str, bytes] = field(default_factory=dict)


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
        self, numbers: Collection[int], own_id: str, clock_ms: int, member: Consumer, *, fence: bool
    ) -> dict[int, Loaded]:
        """The lanes as their last owners left them, and how far those had read.

        1. read to the end 2. fence foreign owners 3. read what that uncovered 4. make lanes of it.
        Without `fence`, raises NotOurs when a lane has a foreign owner. `member` is asked for the group's offsets.
        """
        values: dict[int, dict[str, bytes]] = {number: {} for number in numbers}
        # Asked for, not left to the client as "the beginning": a new client looks for that only every 500 ms.
        positions = {number: self.watermarks(self._names.state, number)[0] for number in numbers}
        self._read_state(values, positions)
        owners = {_owner(found) for found in values.values()} - {None, own_id}
        if owners and not fence:
            raise NotOurs(owners)
        for owner in owners:
            self._fence(str(owner))
        if owners:
            self._read_state(values, positions)
        unknown = {number for number, found in values.items() if LANE_KEY not in found}
        worked_on = self._worked_on(unknown, member)
        return {
            number: self._loaded(number, values.pop(number), clock_ms, worked_on.get(number), is_new=fence)
            for number in sorted(numbers)
        }

    def state_ends(self, numbers: Collection[int]) -> dict[int, int]:
        """The end of each lane's `state` partition: unchanged as long as nobody writes there."""
        return {number: self.watermarks(self._names.state, number)[1] for number in numbers}

    def _loaded(
        self, number: int, found: dict[str, bytes], clock_ms: int, worked_on: str | None, *, is_new: bool
    ) -> Loaded:
        loaded = Loaded()
        try:
            noted, order = _own(found, ASIDE_KEY), _own(found, ORDER_KEY)
            loaded.noted = noted if isinstance(noted, LaneAside) else None
            action = order.action if isinstance(order, LaneOrder) else None
            skips = action is Action.SKIP
            loaded.changes = {key: None for key in (ASIDE_KEY, ORDER_KEY) if key in found}
            loaded.record = before = self._record(found, worked_on, loaded.noted)
            if loaded.noted is not None:
                self._stay_aside(loaded.noted, action, is_new=is_new)
                if loaded.noted.code is AsideCode.LOG_LOST:
                    loaded.record = self._readable(number, before, skips=skips)
            loaded.lane = self._lane(number, found, clock_ms, loaded, skips=skips)
            if loaded.record.reports != before.reports:
                _forget_workers(loaded.lane)
                loaded.lane.reports_lost()
            loaded.lane.loaded(clock_ms)
        except SetAside as why:
            loaded.why = why
        except KafkaException:
            raise
        except Exception as error:
            log.exception("elector.lane_failed", extra={"lane": number})
            told = internal_error(error)
            loaded.why = SetAside(AsideCode.INTERNAL_ERROR, f"loading it failed: {told.reason}", told.details)
        if loaded.why is not None:
            loaded.lane = None
            loaded.changes.pop(ASIDE_KEY, None)  # the elector writes another, if it says something else
            loaded.dropped = {}
        return loaded

    def _stay_aside(self, noted: LaneAside, action: Action | None, *, is_new: bool) -> None:
        """Raise SetAside again, unless an operator asked for another try, or an elector has just got the lane.

        That one may be another version, or a restart; but what is not in the log any more does not come back by it.
        """
        if action is None and (noted.code is AsideCode.LOG_LOST or not is_new):
            raise SetAside(noted.code, noted.reason, noted.details)

    def _record(self, found: Mapping[str, bytes], worked_on: str | None, noted: LaneAside | None) -> LaneRecord:
        if noted is not None and noted.code is AsideCode.REBUILDING:
            raise SetAside(noted.code, noted.reason)
        if LANE_KEY not in found:
            if worked_on is not None:
                raise SetAside(
                    AsideCode.STATE_LOST,
                    f"the topic {self._names.state} knows nothing of it, but {worked_on}: was it made anew?",
                )
            return NEW
        record = _own(found, LANE_KEY)
        assert isinstance(record, LaneRecord)
        return record

    def _worked_on(self, numbers: Collection[int], member: Consumer) -> dict[int, str]:
        """By lane, how it is known that electors have worked on it before, although `state` holds no record of it."""
        if not numbers:
            return {}
        signs = {}
        topics = (self._names.commands, self._names.reports)
        asked = [TopicPartition(topic, number) for number in numbers for topic in topics]
        for one in member.committed(asked, timeout=WATERMARKS_S):
            if one.error is not None:
                raise KafkaException(one.error)
            if one.offset > 0:
                signs[one.partition] = f"electors have read {one.topic} up to offset {one.offset}"
        for number in numbers:
            end = self.watermarks(self._names.events, number)[1]
            if end > 0:
                signs.setdefault(number, f"{self._names.events} has events of it")
        return signs

    def _readable(self, number: int, record: LaneRecord, *, skips: bool) -> LaneRecord:
        """The record of a lane whose log was lost, if it can be read on from there, or shall be from elsewhere."""
        positions = []
        for topic, position in ((self._names.commands, record.commands), (self._names.reports, record.reports)):
            low, high = self.watermarks(topic, number)
            if position >= 0 and not low <= position <= high:
                if not skips:
                    raise SetAside(AsideCode.LOG_LOST, describe_gap(topic, position, low, high))
                log.warning("elector.skipped", extra={"lane": number, "topic": topic, "from": position, "to": low})
                position = low  # noqa: PLW2901
            positions.append(position)
        return LaneRecord(record.owner, *positions)

    def _lane(self, number: int, found: dict[str, bytes], clock_ms: int, into: Loaded, *, skips: bool) -> Lane:
        lane = Lane(number, self._lanes, self._rules)
        for key in OWN_KEYS:
            found.pop(key, None)
        for key in tuple(found):  # in the order of the log: some features drop their oldest records first
            value = found.pop(key)  # the raw records and what is made of them need not be in memory together
            try:
                decoded = read_state(key, value)
                assert not isinstance(decoded, LaneRecord | LaneAside | LaneOrder)
                if isinstance(decoded, Job) and decoded.id != key:
                    raise ValueError(f"it is about job {decoded.id}")  # noqa: TRY301
                lane.load(key, decoded, clock_ms)
            except Exception as error:
                if not skips:
                    told = internal_error(error)
                    raise SetAside(
                        AsideCode.STATE_UNREADABLE,
                        f"its record {key!r:.200} cannot be read: {told.reason}",
                        told.details,
                    ) from error
                log.exception("elector.skipped", extra={"lane": number, "key": key})
                into.dropped[key] = value
        return lane

    def _fence(self, owner: str) -> None:
        log.info("elector.fence", extra={"owner": owner})
        producer = transactional_producer(self._config, owner)
        producer.init_transactions(30)
        producer.close()

    def _read_state(self, values: dict[int, dict[str, bytes]], positions: dict[int, int]) -> None:
        """Read on from `positions` to the ends, the last value of each key into `values`."""
        for message in self._to_end(self._names.state, positions):
            # A key that is no UTF-8 is nobody's: the lane is set aside when its value is read.
            key, value = (message.key() or b"").decode(errors="surrogateescape"), message.value()
            number = message.partition()
            assert number is not None
            if value is None:
                values[number].pop(key, None)
            else:
                values[number][key] = value

    def watermarks(self, topic: str, number: int) -> tuple[int, int]:
        """The first offset that a partition holds, and its end. Raises KafkaException."""
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


def describe_gap(topic: str, position: int, low: int, high: int) -> str:
    """Why a lane cannot read on, and what was lost."""
    what = f"offset {position} of {topic} is to be read next, but the log there holds {low} to {high}"
    why = "was it made anew?" if position > high else "retention, or somebody, deleted what lies before"
    return f"{what}: {why}"


def _forget_workers(lane: Lane) -> None:
    """Let the lane believe that nobody runs its jobs, since how their runs ended may be among what was skipped.

    A worker that renews would otherwise keep a job Processing for ever whose report is lost.
    """
    for job in list(lane.jobs.values()):
        if job.worker is not None:
            lane.jobs[job.id] = structs.replace(job, worker=f"{job.worker} (its reports were skipped)")


def _owner(found: Mapping[str, bytes]) -> str | None:
    """Whom the lane's record names; nobody if that cannot be read, for then the lane is set aside."""
    try:
        record = _own(found, LANE_KEY)
    except SetAside:
        return None
    return record.owner if isinstance(record, LaneRecord) else None


def _own(found: Mapping[str, bytes], key: str) -> StateRecord:
    value = found.get(key)
    if value is None:
        return None
    try:
        return read_state(key, value)
    except Exception as error:
        told = internal_error(error)
        raise SetAside(
            AsideCode.STATE_UNREADABLE, f"its record {key!r} cannot be read: {told.reason}", told.details
        ) from error
