"""Sends what leaves a tier: fired (a report), moved (to another tier), or parked (a dead letter).

A record is done when Kafka has acknowledged what it became; one whose delivery failed goes back to its shelf. A
record whose handling raises an exception that nobody foresaw is parked, and the process goes on. An exception in an
acknowledgement comes out of the producer's `poll`, and the process starts over (process.py).
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException
from joblog.streams.contract import deadletters
from joblog.streams.contract.deadletters import internal_error
from joblog.streams.contract.topics import TopicNames, tier_for
from joblog.streams.contract.wire import JobDue, Timer
from joblog.streams.delays.partition import Partition, Unusable, decode_timer, failed
from joblog.streams.delays.wheel import Held
from joblog.streams.kafka.durable_producer import DurableProducer
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

ROLE: Final = "delays"
#: The partition of a dead letter is its key's to choose.
BY_KEY: Final = -1
#: Records sent of one partition before the others have their turn.
SENT_MAX: Final = 1_000
#: A record whose delivery failed is sent again after this.
RETRY_MS: Final = 500

_encode: Final = msgspec.json.Encoder().encode

Record = Held[bytes | Unusable]


class Firing:
    """Sends records of all partitions with one producer; `clock` gives unix seconds."""

    def __init__(
        self, producer: DurableProducer, names: TopicNames, meters: Meters, clock: Callable[[], float]
    ) -> None:
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
            except KafkaException as exc:
                self._put_back(source, record, exc.args[0])
                return
            except Exception as exc:  # noqa: BLE001  # it is logged; one record must not stop the others
                self._give_up(source, record, exc)

    def _send(self, source: Partition, record: Record, now_ms: int) -> None:
        if isinstance(record.item, Unusable):
            self._park(source, record, record.item)
            return
        timer = decode_timer(record.item)
        if timer.due_ms <= now_ms:
            self._fire(source, record, timer)
        else:
            self._move(source, record, timer, record.item, tier_for(timer.due_ms - now_ms))

    def _give_up(self, source: Partition, record: Record, error: Exception) -> None:
        """Send a dead letter in place of the record; raises the error if that has failed already."""
        log.error("delays.record.failed", exc_info=error, extra=_place(source, record))
        unusable = failed(record.offset, record.item, internal_error(error))
        if unusable is None:
            raise error
        source.shelf.put_back(record._replace(item=unusable), record.leaves_ms)

    def _fire(self, source: Partition, record: Record, timer: Timer) -> None:
        self._producer.produce(
            self._names.reports,
            _encode(JobDue(job_id=timer.job_id, version=timer.version)),
            timer.job_id,
            source.lane,
            partial(self._fired, source, record, timer.due_ms),
        )

    def _move(self, source: Partition, record: Record, timer: Timer, value: bytes, tier: str) -> None:
        self._producer.produce(
            self._names.delay(tier), value, timer.job_id, source.lane, partial(self._moved, source, record, tier)
        )

    def _park(self, source: Partition, record: Record, what: Unusable) -> None:
        why = deadletters.headers(what.code, what.reason, ROLE, source.topic, source.lane, what.offset, what.headers)
        self._producer.produce(
            self._names.deadletters,
            deadletters.value(what.value),
            deadletters.key(what.key),
            BY_KEY,
            partial(self._parked, source, record, what),
            why,
        )

    # --- acknowledgements, which the producer's poll and flush call ---

    def _fired(self, source: Partition, record: Record, due_ms: int, error: KafkaError | None, _: Any) -> None:
        if self._is_done(source, record, error):
            self._meters.inc("joblog_timers_fired_total")
            self._meters.observe("joblog_timer_lateness_seconds", self._clock() - due_ms / 1000)

    def _moved(self, source: Partition, record: Record, tier: str, error: KafkaError | None, _: Any) -> None:
        if self._is_done(source, record, error):
            self._meters.inc("joblog_timers_moved_total", tier)

    def _parked(self, source: Partition, record: Record, what: Unusable, error: KafkaError | None, _: Any) -> None:
        if self._is_done(source, record, error):
            self._meters.inc("joblog_quarantined_records_total", ROLE, what.code)
            log.warning(
                "delays.record.parked",
                extra={**_place(source, record), "code": what.code, "reason": what.reason},
            )

    def _is_done(self, source: Partition, record: Record, error: KafkaError | None) -> bool:
        if error is None:
            source.shelf.done(record.offset)
            return True
        self._put_back(source, record, error)
        return False

    def _put_back(self, source: Partition, record: Record, error: KafkaError) -> None:
        """Keep a record that Kafka did not take, and send it again after a while."""
        source.shelf.put_back(record, int(self._clock() * 1000) + RETRY_MS)
        self._meters.inc("joblog_kafka_errors_total", ROLE, error.name())
        extra = {"topic": source.topic, "partition": source.lane, "error": error.str()}
        log.warning("delays.delivery.failed", extra=extra)


def _place(source: Partition, record: Record) -> dict[str, str | int]:
    return {"topic": source.topic, "partition": source.lane, "offset": record.offset}
