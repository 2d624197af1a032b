"""The delays process: turns the timing wheel in the log, and reports jobs that are due.

Every record it reads is held on the shelf of its partition until it leaves its tier. The offset of a record is
committed when what it became is acknowledged by Kafka, and not before; so every timer is fired at least once,
and the repeats that follow a crash or a rebalance are the elector's to drop.

A record that cannot be handled is parked (firing.py). After any other exception that nobody foresaw, such as one in a
callback of Kafka's client, the process leaves the group and joins it again, with what the log says. When that happens
again and again, it ends with the exception.

Limits. A timer is as punctual as the machines' clocks agree. A partition of the tier `now` is not read further
while `now_max` of its timers are held; one behind them in the log that is due sooner than they are is late.
"""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from joblog.streams.contract.topics import WAITS_MS, TopicNames
from joblog.streams.delays.firing import ROLE, Firing
from joblog.streams.delays.reader import LIMITS, DelayReader, Limits, client_id
from joblog.streams.errors import JoblogError
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.durable_producer import DurableProducer
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

IDLE_MS: Final = 100
#: The loop does not wait for less: what becomes due meanwhile goes out together, at half the cost.
#: Acknowledgements that are awaited are looked for this often, too.
TICK_MS: Final = 5
COMMIT_INTERVAL_S: Final = 1.0
FLUSH_TIMEOUT_S: Final = 5.0
#: How long to wait before joining again, after the first exception in a row, the second, and so on; after one more
#: the process ends. An exception that comes `RECOVERED_S` after the last one is the first of another row.
START_OVER_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
RECOVERED_S: Final = 60.0


class Delays:
    """One member of the group that turns the wheel.

    - instance: its name, if the member is static: it then keeps its partitions over a quick restart.
    - clock: unix seconds.
    """

    def __init__(
        self,
        config: KafkaConfig,
        names: TopicNames,
        lanes: int,
        *,
        instance: str | None = None,
        meters: Meters,
        health: Health,
        clock: Callable[[], float] = time.time,
        limits: Limits = LIMITS,
    ) -> None:
        self._meters = meters
        self._health = health
        self._clock = clock
        self._commit_at = 0.0
        make = partial(clients.producer, config, client_id(names, instance), linger_ms=0)
        self._producer = DurableProducer(make, lambda: meters.inc("joblog_producer_rebuilds_total", ROLE))
        self._firing = Firing(self._producer, names, meters, clock)
        self._make_reader = partial(
            DelayReader, config, names, lanes, instance=instance, meters=meters, limits=limits, finish=self._finish
        )
        self._reader = self._make_reader()
        self._failures = 0
        self._failed_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Turn the wheel until `stop` is set; then finish what was sent, commit, and leave the group.

        Raises KafkaException when the client cannot go on (another member took this one's name, say), TopicsError
        when topics have more partitions than there are lanes, and any exception that comes again and again; a new
        process goes on at what this one committed.
        """
        self._reader.join()
        try:
            while not stop.is_set():
                try:
                    self._turn()
                except JoblogError:
                    raise
                except Exception as error:
                    if _is_fatal(error) or not self._may_start_over():
                        raise
                    self._start_over(error, stop)
        finally:
            self._health.set_unready("stopped")
            self._reader.leave()

    def _turn(self) -> None:
        """1 hold what is there, 2 send what is to leave, 3 note what is acknowledged, 4 commit now and then."""
        self._health.beat()
        self._reader.read(self._pause_ms(), self._now_ms)
        now_ms = self._now_ms()
        for partition in self._reader.partitions:
            self._firing.send(partition, now_ms)
        self._reader.resume()
        self._producer.poll(0)
        if time.monotonic() >= self._commit_at:
            self._commit_at = time.monotonic() + COMMIT_INTERVAL_S
            self._reader.commit()
            self._show()

    def _may_start_over(self) -> bool:
        now = time.monotonic()
        self._failures = self._failures + 1 if now - self._failed_at < RECOVERED_S else 1
        self._failed_at = now
        return self._failures <= len(START_OVER_S)

    def _start_over(self, error: Exception, stop: threading.Event) -> None:
        """Leave the group, forget what is held, and join again: whatever went wrong, the log is right."""
        wait_s = START_OVER_S[self._failures - 1]
        self._meters.inc("joblog_internal_errors_total", ROLE)
        log.error("delays.started_over", exc_info=error, extra={"failures": self._failures, "wait_s": wait_s})
        self._health.set_unready(f"starting over after {type(error).__name__}: {error}")
        try:
            self._reader.leave()
        except Exception:  # its callbacks may fail as those before; the group misses this member soon
            log.exception("delays.leave_failed")
        stop.wait(wait_s)
        self._reader = self._make_reader()
        self._reader.join()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _pause_ms(self) -> int:
        """How long to wait for records: until the next one leaves, or something else is to be looked at."""
        limit_ms = TICK_MS if len(self._producer) else IDLE_MS
        held = (partition.shelf.next_ms for partition in self._reader.partitions)
        next_ms = min((at_ms for at_ms in held if at_ms is not None), default=None)
        if next_ms is None:
            return limit_ms
        until_ms = next_ms - self._now_ms()
        return 0 if until_ms < -TICK_MS else min(max(until_ms, TICK_MS), limit_ms)

    def _finish(self) -> None:
        self._producer.flush(FLUSH_TIMEOUT_S)

    def _show(self) -> None:
        partitions = self._reader.partitions
        if partitions:
            self._health.set_ready()
        else:
            self._health.set_unready("no partitions assigned")
        now = (partition for partition in partitions if WAITS_MS[partition.tier] == 0)
        self._meters.set("joblog_timers_waiting", sum(len(partition.shelf) for partition in now))


def _is_fatal(error: Exception) -> bool:
    """Whether Kafka's client will not work again under this name."""
    if not isinstance(error, KafkaException):
        return False
    reason: KafkaError = error.args[0]
    return reason.fatal() or reason.code() == KafkaError._FATAL
