"""`state` of a lane, made anew from `events`: for the day when the topic was lost or cannot be read.

The lane must not work meanwhile: it is set aside (or was never taken) before, and until the last transaction says
how far it was read. Where that is follows from the offsets that the electors' group has committed, in the same
transactions as the events. Stopping half-way is harmless, and so is repeating it.
"""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from joblog.streams.contract import wire
from joblog.streams.contract.timestamps import parse_time_ms
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.lane_records import (
    ASIDE_KEY,
    LANE_KEY,
    ORDER_KEY,
    OWN_KEYS,
    AsideCode,
    LaneAside,
    LaneRecord,
    StateRecord,
    write_state,
)
from joblog.streams.elector.lanes_status import OrderRefused, lane_status
from joblog.streams.errors import ElectorError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.group_offsets import committed_offsets
from joblog.streams.lane.batch_fold import KEPT_MS
from joblog.streams.lane.event_fold import EventFold
from msgspec import Raw, Struct, json

#: Records in one transaction.
CHUNK: Final = 5_000
READ_MAX: Final = 5_000
TIMEOUT_S: Final = 30.0


class OffsetsUnknown(ElectorError):
    """Nobody knows up to which offset the lane was read; the message names the options that say it."""


class _Envelope(Struct):
    type: str
    data: Raw
    subject: str = ""
    time: str = "1970-01-01T00:00:00.000Z"
    traceparent: str | None = None


_envelope: Final = json.Decoder(_Envelope).decode
_fields: Final = json.Decoder(dict[str, Raw]).decode
_event: Final = json.Decoder(wire.JobEvent).decode
_batch_event: Final = json.Decoder(wire.BatchEvent).decode


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild wrote, or would have written.

    - events: how many were read, in all lanes. live, remembered: jobs of the lane. unknown: jobs with events but
      without their first one, which are left out.
    - commands, reports: the offsets from which the lane reads on.
    """

    events: int
    live: int
    remembered: int
    unknown: int
    commands: int
    reports: int


def rebuild_lane(
    config: KafkaConfig,
    names: TopicNames,
    lanes: int,
    number: int,
    *,
    remembered: int,
    batches_ms: int = KEPT_MS,
    commands: int | None = None,
    reports: int | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], object] = lambda _done, _all: None,
) -> Rebuilt:
    """Write the lane's `state` as its events tell it, and let electors take it again.

    - remembered: how many ended jobs are remembered; batches_ms: for how long ended batches are. commands, reports:
      where to read on, if the group's offsets are lost, too. progress: called with the events read so far and about
      how many there are.

    Raises OrderRefused if the lane works, OffsetsUnknown, KafkaException.
    """
    status = lane_status(config, names, number)
    if status.aside is None and status.commands is not None:
        raise OrderRefused(f"lane {number} works: there is nothing to rebuild")
    consumer = clients.reader(config, f"{names.prefix}rebuild")
    try:
        positions = _positions(config, consumer, names, number, (commands, reports))
        if not dry_run:
            _announce(config, names, number)
        fold, count = _folded(consumer, names, EventFold(number, remembered, lanes, batches_ms), progress)
        records = fold.state(_now_ms())
        if not dry_run:
            _write(config, consumer, names, number, records, LaneRecord(None, *positions))
    finally:
        consumer.close()
    return Rebuilt(count, len(fold.jobs), len(fold.ended), len(fold.unknown), *positions)


def _positions(
    config: KafkaConfig, consumer: Consumer, names: TopicNames, number: int, given: tuple[int | None, int | None]
) -> tuple[int, int]:
    """The next offsets to read: as given, as the group has committed them, or the end of an empty partition."""
    places = [TopicPartition(topic, number) for topic in (names.commands, names.reports)]
    asked = committed_offsets(config, f"{names.prefix}electors", places, TIMEOUT_S)
    found = {one.topic: one.offset for one in asked}
    positions = []
    for place, choice, option in zip(places, given, ("commands", "reports"), strict=True):
        low, high = consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)
        committed = found.get(place.topic, -1)
        if choice is not None:
            positions.append(choice)
        elif low <= committed <= high:
            positions.append(committed)
        elif low == high:
            positions.append(high)
        else:
            raise OffsetsUnknown(
                f"the electors' group has no offset of {place.topic} in lane {number} that the topic still holds "
                f"({low} to {high}): say with --{option}-offset where to read on"
            )
    return positions[0], positions[1]


def _folded(
    consumer: Consumer, names: TopicNames, fold: EventFold, progress: Callable[[int, int], object]
) -> tuple[EventFold, int]:
    number, lanes, count = fold.number, fold.lanes, 0
    for message, total in _all(consumer, names.events, range(lanes)):
        count += 1
        if count % READ_MAX == 0:
            progress(count, total)
        _apply(fold, message)
    if fold.unknown:
        # Jobs that were revived long after they had ended: their first events were forgotten, and are read again.
        again = EventFold(number, len(fold.unknown), lanes)
        for message, _ in _all(consumer, names.events, range(number, number + 1)):
            _apply(again, message, only=fold.unknown)
        fold.take(again)
    progress(count, count)
    return fold, count


def _apply(fold: EventFold, message: Message, only: Collection[str] | None = None) -> None:
    envelope = _envelope(message.value() or b"")
    if envelope.type.startswith("job.") and (only is None or envelope.subject in only):
        event = _read(bytes(envelope.data))
        fold.apply(envelope.subject, event, parse_time_ms(envelope.time), envelope.traceparent)
    elif envelope.type.startswith("batch.") and only is None:
        fold.batches.batch(envelope.subject, _batch_event(bytes(envelope.data)), parse_time_ms(envelope.time))
    elif only is None and message.partition() == fold.number:
        fold.controls.apply(envelope.type, bytes(envelope.data))


def _read(data: bytes) -> wire.JobEvent:
    """The event; msgspec cannot decode a Raw that may be missing, so `spec` is taken out before."""
    if b'"spec"' not in data:
        return _event(data)
    fields = _fields(data)
    spec = fields.pop("spec", None)
    event = _event(json.encode(fields))
    return wire.JobEvent(**{name: getattr(event, name) for name in event.__struct_fields__} | {"spec": spec})


def _all(consumer: Consumer, topic: str, numbers: range) -> Iterator[tuple[Message, int]]:
    """Every committed record of a topic's partitions up to their present ends, and about how many there are."""
    bounds = {n: consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=TIMEOUT_S) for n in numbers}
    total = sum(high - low for low, high in bounds.values())
    waiting = {n for n, (low, high) in bounds.items() if low < high}
    consumer.assign([TopicPartition(topic, n, bounds[n][0]) for n in waiting])
    deadline = time.monotonic() + TIMEOUT_S
    while waiting:
        for message in consumer.consume(READ_MAX, 0.2):
            deadline = time.monotonic() + TIMEOUT_S
            error = message.error()
            if error is None:
                yield message, total
            elif error.code() == KafkaError._PARTITION_EOF:
                waiting.discard(message.partition() or 0)
            elif error.fatal() or not error.retriable():
                raise KafkaException(error)
        if time.monotonic() > deadline:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{topic}: no end of {sorted(waiting)}"))
    consumer.unassign()


def _announce(config: KafkaConfig, names: TopicNames, number: int) -> None:
    """Say in `state` that the lane is being rebuilt: no elector takes it until the last transaction."""
    why = "its state is being rebuilt, or that was interrupted: repeat `joblog lanes rebuild`"
    aside = LaneAside(AsideCode.REBUILDING, why, "", _now_ms(), _id(names, number))
    _commit(_producer(config, names, number), names, number, {ASIDE_KEY: aside})


def _write(
    config: KafkaConfig,
    consumer: Consumer,
    names: TopicNames,
    number: int,
    records: dict[str, StateRecord],
    lane: LaneRecord,
) -> None:
    """The records in chunks, and in the last transaction the lane's own, which lets it work."""
    raw_keys = {message.key() or b"" for message, _ in _all(consumer, names.state, range(number, number + 1))}
    keep = {key.encode() for key in (*records, *OWN_KEYS)}
    changes: list[tuple[str | bytes, StateRecord]] = [(key, None) for key in sorted(raw_keys - keep)]
    changes += records.items()
    producer = _producer(config, names, number)
    for start in range(0, len(changes), CHUNK):
        _commit(producer, names, number, dict(changes[start : start + CHUNK]))
    _commit(producer, names, number, {LANE_KEY: lane, ASIDE_KEY: None, ORDER_KEY: None})


def _producer(config: KafkaConfig, names: TopicNames, number: int) -> Producer:
    """Fences a rebuild of the same lane that still runs."""
    producer = clients.transactional_producer(config, _id(names, number))
    producer.init_transactions(TIMEOUT_S)
    return producer


def _commit(producer: Producer, names: TopicNames, number: int, records: dict[str | bytes, StateRecord]) -> None:
    producer.begin_transaction()
    for key, record in records.items():
        producer.produce(names.state, write_state(record), key, number)
    producer.commit_transaction(TIMEOUT_S)


def _id(names: TopicNames, number: int) -> str:
    return f"{names.prefix}rebuild-{number}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
