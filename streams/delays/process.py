"""The delays process: turns the timing wheel in the log, and reports jobs due.

Every record it reads is held on the shelf of its partition until it leaves its tier. The offset of a record is
committed when what it became is acknowledged by Kafka, and not before; so every timer is fired at least once,
and the repeats that follow a crash or a rebalance are the elector's to drop.

Limits. A timer is as punctual as the machines' clocks agree. A partition of the tier `now` is not read further
while `now_max` of its timers are held; one behind them in the log that is due sooner than they are is late.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from joblog.streams.contract.topics import WAITS_MS, TopicNames
from joblog.streams.delays.firing import Firing
from joblog.streams.delays.reader import LIMITS, DelayReader, Limits, client_id
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

IDLE_MS: Final = 100
#: The loop does not wait for less: what becomes due meanwhile goes out together, at half the cost.
#: Acknowledgements that are awaited are looked for this often, too.
TICK_MS: Final = 5
COMMIT_INTERVAL_S: Final = 1.0
FLUSH_TIMEOUT_S: Final = 5.0


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
        self._producer = clients.producer(config, client_id(names, instance), linger_ms=0)
        self._firing = Firing(self._producer, names, meters, clock)
        self._reader = DelayReader(
            config, names, lanes, instance=instance, meters=meters, limits=limits, finish=self._finish
        )

    def run(self, stop: threading.Event) -> None:
        """Turn the wheel until `stop` is set; then finish what was sent, commit, and leave the group.

        Raises KafkaException when the client cannot go on (another member took this one's name, say), and
        TopicsError when topics have more partitions than there are lanes; a new process goes on at what this
        one committed.
        """
        self._reader.join()
        try:
            while not stop.is_set():
                self._turn()
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
