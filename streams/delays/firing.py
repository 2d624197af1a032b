"""Sends what leaves a tier: fired (a report), moved (to another tier), or parked (a dead letter).

A record is done when Kafka has acknowledged what it became; one that failed goes back to its shelf.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
from confluent_kafka import KafkaError, Message, Producer
from joblog.streams.contract import deadletters
from joblog.streams.contract.topics import TopicNames, tier_for
from joblog.streams.contract.wire import JobDue, Timer
from joblog.streams.delays.partition import Partition, Undecodable, decode_timer
from joblog.streams.delays.wheel import Held
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

ROLE: Final = "delays"
#: Records sent of one partition before the others have their turn.
SENT_MAX: Final = 1_000
#: A record whose delivery failed is sent again after this.
RETRY_MS: Final = 500

_encode: Final = msgspec.json.Encoder().encode

Record = Held[bytes | Undecodable]


class Firing:
    """The way out of all shelves, on one producer; `clock` gives unix seconds."""

    def __init__(self, producer: Producer, names: TopicNames, meters: Meters, clock: Callable[[], float]) -> None:
        self._producer = producer
        self._names = names
        self._meters = meters
        self._clock = clock

    def send(self, source: Partition, now_ms: int) -> None:
        """Send what is to leave by now, up to `SENT_MAX` records or until the producer's queue is full."""
        for _ in range(SENT_MAX):
            record = source.shelf.take(now_ms)
            if record is None:
                return
            try:
                self._send(source, record, now_ms)
            except BufferError:
                source.shelf.put_back(record, record.leaves_ms)
                return

    def _send(self, source: Partition, record: Record, now_ms: int) -> None:
        if isinstance(record.item, Undecodable):
            self._park(source, record, record.item)
            return
        timer = decode_timer(record.item)
        if timer.due_ms <= now_ms:
            self._fire(source, record, timer)
        else:
            self._move(source, record, timer, record.item, tier_for(timer.due_ms - now_ms))

    def _fire(self, source: Partition, record: Record, timer: Timer) -> None:
        self._producer.produce(
            self._names.reports,
            key=timer.job_id,
            value=_encode(JobDue(job_id=timer.job_id, version=timer.version)),
            partition=source.lane,
            on_delivery=partial(self._fired, source, record, timer.due_ms),
        )

    def _move(self, source: Partition, record: Record, timer: Timer, value: bytes, tier: str) -> None:
        self._producer.produce(
            self._names.delay(tier),
            key=timer.job_id,
            value=value,
            partition=source.lane,
            on_delivery=partial(self._moved, source, record, tier),
        )

    def _park(self, source: Partition, record: Record, what: Undecodable) -> None:
        why = deadletters.headers(what.code, what.reason, ROLE, source.topic, source.lane, what.offset, what.headers)
        self._producer.produce(
            self._names.deadletters,
            key=deadletters.key(what.key),
            value=deadletters.value(what.value),
            headers=why,
            on_delivery=partial(self._parked, source, record, what),
        )

    # --- acknowledgements: all are called by the producer's poll and flush ---

    def _fired(self, source: Partition, record: Record, due_ms: int, error: KafkaError | None, _: Message) -> None:
        if self._is_done(source, record, error):
            self._meters.inc("joblog_timers_fired_total")
            self._meters.observe("joblog_timer_lateness_seconds", self._clock() - due_ms / 1000)

    def _moved(self, source: Partition, record: Record, tier: str, error: KafkaError | None, _: Message) -> None:
        if self._is_done(source, record, error):
            self._meters.inc("joblog_timers_moved_total", tier)

    def _parked(
        self, source: Partition, record: Record, what: Undecodable, error: KafkaError | None, _: Message
    ) -> None:
        if self._is_done(source, record, error):
            self._meters.inc("joblog_quarantined_records_total", ROLE, what.code)
            log.warning(
                "delays.record.parked",
                extra={
                    "topic": source.topic,
                    "partition": source.lane,
                    "offset": what.offset,
                    "reason": what.reason,
                },
            )

    def _is_done(self, source: Partition, record: Record, error: KafkaError | None) -> bool:
        if error is None:
            source.shelf.done(record.offset)
            return True
        self._meters.inc("joblog_kafka_errors_total", ROLE, error.name())
        log.warning(
            "delays.delivery.failed",
            extra={"topic": source.topic, "partition": source.lane, "error": error.str()},
        )
        source.shelf.put_back(record, int(self._clock() * 1000) + RETRY_MS)
        return False
