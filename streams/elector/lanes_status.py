"""What the log says about lanes, for operators: whose they are, how far they were read, why they are set aside.

An elector writes a lane's own records often, so the last ones stand near the end of its `state` partition: only
that is read, however much the partition holds.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
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
    write_state,
)
from joblog.streams.errors import ElectorError
from joblog.streams.kafka.clients import KafkaConfig, producer, reader
from joblog.streams.kafka.last_records import read_to_end

#: So many offsets are read from the end, then four times as many, until the lane's record is among them.
TAIL: Final = 500
TIMEOUT_S: Final = 10.0


#: What helps, by the reason why a lane is set aside.
REMEDIES: Final = {
    AsideCode.LOG_LOST: "joblog lanes skip {lane}: go on with the oldest record that is left; what is lost is lost",
    AsideCode.STATE_LOST: "joblog lanes rebuild {lane}: make its state anew from the events",
    AsideCode.STATE_UNREADABLE: "joblog lanes rebuild {lane}: make its state anew from the events; or "
    "joblog lanes skip {lane}: drop the records that cannot be read",
    AsideCode.INTERNAL_ERROR: "look at the traceback (joblog lanes show {lane}), then: joblog lanes reload {lane}",
    AsideCode.REBUILDING: "wait for joblog lanes rebuild {lane}, or repeat it if it was interrupted",
}
#: For which reasons there is something to skip.
SKIPPABLE: Final = frozenset({AsideCode.LOG_LOST, AsideCode.STATE_UNREADABLE})


class OrderRefused(ElectorError):
    """The lane works, or has nothing to skip; the message says what helps."""


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One lane as the log has it.

    - owner: transactional id of the elector that has it, None if none has, or if it is not known.
    - commands, reports: the next offsets to read, None if nothing was read yet.
    - commands_lag, reports_lag: offsets up to the ends of the topics; ends of transactions count.
    - aside: why it does not work, None if it does. order: what an operator asked for that is not done yet.
    """

    number: int
    owner: str | None
    commands: int | None
    reports: int | None
    commands_lag: int
    reports_lag: int
    aside: LaneAside | None
    order: LaneOrder | None

    @property
    def condition(self) -> str:
        """`aside`, `owned`, or `free`: no elector has it."""
        return "aside" if self.aside is not None else "owned" if self.owner is not None else "free"

    @property
    def remedy(self) -> str:
        """What an operator can do about it; empty if it works."""
        return REMEDIES[self.aside.code].format(lane=self.number) if self.aside is not None else ""


def lane_statuses(config: KafkaConfig, names: TopicNames, lanes: int) -> Iterator[LaneStatus]:
    """All lanes, each as soon as it is known. Raises KafkaException when no broker answers."""
    consumer = reader(config, f"{names.prefix}lanes")
    try:
        for number in range(lanes):
            yield _status(consumer, names, number)
    finally:
        consumer.close()


def lane_status(config: KafkaConfig, names: TopicNames, number: int) -> LaneStatus:
    """One lane. Raises KafkaException when no broker answers."""
    consumer = reader(config, f"{names.prefix}lanes")
    try:
        return _status(consumer, names, number)
    finally:
        consumer.close()


def give_order(config: KafkaConfig, names: TopicNames, number: int, action: Action) -> None:
    """Ask the elector that has set this lane aside to load it again, or to skip what it cannot read.

    It looks for orders every two seconds, and an elector that starts looks at once. Raises OrderRefused if the lane
    works, KafkaException when no broker answers.
    """
    status = lane_status(config, names, number)
    if status.aside is None:
        raise OrderRefused(f"lane {number} is not set aside: there is nothing to {action}")
    if action is Action.SKIP and status.aside.code not in SKIPPABLE:
        raise OrderRefused(f"lane {number} has nothing to skip; {status.remedy}")
    value = write_state(LaneOrder(action, time.time_ns() // 1_000_000))
    errors: list[KafkaError] = []
    sender = producer(config, f"{names.prefix}lanes", timeout_ms=round(TIMEOUT_S * 1000))
    sender.produce(
        names.state, value, ORDER_KEY, number, on_delivery=lambda error, _: errors.append(error) if error else None
    )
    if sender.flush(TIMEOUT_S) or errors:
        raise KafkaException(errors[0] if errors else KafkaError(KafkaError._TIMED_OUT, "no acknowledgement"))


def _status(consumer: Consumer, names: TopicNames, number: int) -> LaneStatus:
    found = _own_records(consumer, names.state, number)
    record, aside, order = found.get(LANE_KEY), found.get(ASIDE_KEY), found.get(ORDER_KEY)
    commands, reports = (record.commands, record.reports) if isinstance(record, LaneRecord) else (-1, -1)
    return LaneStatus(
        number,
        record.owner if isinstance(record, LaneRecord) else None,
        commands if commands >= 0 else None,
        reports if reports >= 0 else None,
        _lag(consumer, names.commands, number, commands),
        _lag(consumer, names.reports, number, reports),
        aside if isinstance(aside, LaneAside) else None,
        order if isinstance(order, LaneOrder) else None,
    )


def _lag(consumer: Consumer, topic: str, number: int, position: int) -> int:
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=TIMEOUT_S)
    return max(high - max(position, low), 0)


def _own_records(consumer: Consumer, topic: str, number: int) -> dict[str, StateRecord]:
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=TIMEOUT_S)
    tail = TAIL
    while True:
        start = max(high - tail, low)
        found = _read(consumer, topic, number, start) if high > low else {}
        if start == low or LANE_KEY in found:
            return found
        tail *= 4


def _read(consumer: Consumer, topic: str, number: int, start: int) -> dict[str, StateRecord]:
    """The lane's own records from `start` on; deleted ones are None, unreadable ones are missing."""
    found: dict[str, StateRecord] = {}
    for message in read_to_end(consumer, [TopicPartition(topic, number, start)], TIMEOUT_S):
        key = (message.key() or b"").decode(errors="replace")
        if key not in OWN_KEYS:
            continue
        value = message.value()
        try:
            found[key] = read_state(key, value) if value is not None else None
        except ValueError:  # msgspec's DecodeError: that is why the lane is set aside
            found.pop(key, None)
    return found
