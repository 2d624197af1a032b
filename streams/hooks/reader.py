"""Reads `events` as a member of a group, lets hooks be called, and commits what they know.

One thread, one record at a time: so the order of a lane holds, and an offset is committed only when all before it is
done. A function runs in a thread beside, so that one which takes long costs neither the membership nor /livez: the
reader goes on polling, with its partitions paused. Start more processes to share the lanes.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from math import inf
from typing import Any, Final, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.hooks.calling import ROLE, Calling, Hook, Record, Stopped
from joblog.streams.hooks.parking import Parking
from joblog.streams.kafka import clients
from joblog.streams.kafka.bounded import Bounded, Hung
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.patience import Patience

log = logging.getLogger(__name__)

POLL_S: Final = 0.1
#: So long a function may take until the reader polls beside it.
BRIEF_S: Final = 1.0
COMMIT_S: Final = 1.0
#: How long a function may go on when the process stops.
GRACE_S: Final = 10.0
ANSWER_S: Final = 10.0
#: Errors of one kind are logged this often at most; all are counted.
LOG_INTERVAL_S: Final = 10.0

Start = Literal["earliest", "latest"]


class TransitionReader:
    """Calls hooks for all transitions, at least once each, those of a lane in their order.

    - group: its members share the lanes; another group is told of everything for itself.
    - start: where a group begins that has never been there: `latest`, or `earliest` for all that the log holds.
    """

    def __init__(
        self,
        config: KafkaConfig,
        names: TopicNames,
        hooks: Sequence[Hook],
        *,
        group: str,
        start: Start,
        patience: Patience,
        meters: Meters,
        health: Health,
    ) -> None:
        self._config, self._names, self._group = config, names, group
        self._start = start
        self._meters, self._health = meters, health
        self._calling = Calling(hooks, self, patience, meters.inc)
        self._stop = threading.Event()
        #: By lane: the next offset to be done, and the one that was committed last.
        self._next: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        self._commit_at = 0.0
        self._log_at: dict[str, float] = {}
        self._told_ms = 0
        #: The lane of the record that is being handled; records that came while it was.
        self._handled: int | None = None
        self._early: deque[Any] = deque()
        self._is_beside = False

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`. Raises KafkaException if the client cannot go on."""
        self._stop = stop
        self._consumer = clients.group_consumer(
            self._config,
            self._group,
            f"{self._names.prefix}{ROLE}",
            error_cb=self._on_error,
            on_commit=self._on_commit,
        )
        self._parking = Parking(self._config, self._names, self._meters)
        self._functions = ThreadPoolExecutor(1, thread_name_prefix="hook")
        self._consumer.subscribe(
            [self._names.events], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        try:
            while not stop.is_set():
                self._turn()
        except Stopped:
            log.info("hooks.stopped_in_the_middle")
        finally:
            self._functions.shutdown(wait=False)
            self._leave()

    def _turn(self) -> None:
        self._health.beat()
        message: Any = self._early.popleft() if self._early else self._consumer.poll(POLL_S)
        if message is not None:
            if (error := message.error()) is not None:
                self._on_read_error(message, error)
            elif message.offset() >= self._next.get(message.partition(), inf):
                self._handle(message)
        if time.monotonic() >= self._commit_at:
            self._commit()

    def _handle(self, message: Any) -> None:
        lane = self._handled = message.partition()
        try:
            self._calling.handle(message)
        except Stopped:
            if self._stop.is_set():
                raise
            return  # the lane is another member's by now, who is told of this again
        finally:
            self._handled = None
        if lane in self._next:  # it may have gone and come back meanwhile
            self._next[lane] = max(self._next[lane], message.offset() + 1)
        _, self._told_ms = message.timestamp()

    # --- what calling needs ---

    def run_function(self, call: Callable[[], object]) -> None:
        """Let the function run in its thread, and poll beside it if it takes long."""
        running: Future[object] = self._functions.submit(call)
        try:
            running.result(BRIEF_S)
        except StillRunning:
            if running.done():  # it raised that itself
                raise
        else:
            return
        self._beside(running.done, grace_s=GRACE_S)
        running.result()

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._beside(lambda: time.monotonic() >= until)

    def park(self, record: Record, code: str, reason: str) -> None:
        sent = self._parking.send(record, code, reason)
        self._beside(sent)

    def _beside(self, is_over: Callable[[], bool], grace_s: float = 0.0) -> None:
        """Stay in the group until something is over; raises Stopped if the process stops, or loses the lane."""
        self._consumer.pause(self._assigned())
        self._is_beside, give_up_at = True, inf
        try:
            while not is_over():
                self._health.beat()
                message = self._consumer.poll(POLL_S)
                if message is not None:
                    self._early.append(message)
                if self._handled is not None and self._handled not in self._next:
                    raise Stopped
                if self._stop.is_set():
                    give_up_at = min(give_up_at, time.monotonic() + grace_s)
                if time.monotonic() >= give_up_at:
                    raise Stopped
        finally:
            self._is_beside = False
            self._consumer.resume(self._assigned())

    def _assigned(self) -> list[TopicPartition]:
        return [TopicPartition(self._names.events, lane) for lane in self._next]

    # --- the group ---

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        self._meters.inc("joblog_rebalances_total", ROLE)
        known = consumer.committed(assigned, timeout=ANSWER_S)
        starts = [TopicPartition(one.topic, one.partition, self._begin(consumer, one)) for one in known]
        self._early.clear()
        self._next = {one.partition: one.offset for one in starts}
        # What is not committed yet is, at once: else events that come while no process runs would be left out.
        self._committed = {one.partition: one.offset for one in known if one.offset >= 0}
        self._commit_at = 0.0
        consumer.assign(starts)
        # Within one poll lanes go and come: what comes beside a function that goes on must wait for it, too.
        (consumer.pause if self._is_beside else consumer.resume)(starts)
        self._health.set_ready()
        log.info("hooks.assigned", extra={"lanes": sorted(self._next)})

    def _begin(self, consumer: Consumer, known: TopicPartition) -> int:
        if known.offset >= 0:
            return known.offset
        low, high = consumer.get_watermark_offsets(known, timeout=ANSWER_S)
        return int(high if self._start == "latest" else low)

    def _on_revoke(self, _consumer: Consumer, _revoked: list[TopicPartition]) -> None:
        self._commit()
        self._forget()

    def _on_lost(self, _consumer: Consumer, lost: list[TopicPartition]) -> None:
        log.warning("hooks.lost", extra={"lanes": len(lost)})
        self._forget()

    def _forget(self) -> None:
        self._next = {}
        self._early.clear()

    def _commit(self) -> None:
        """Commit what is done, without waiting; what fails is committed with the next, or done again."""
        if self._told_ms:
            self._meters.set("joblog_hook_told_timestamp_seconds", self._told_ms / 1000)
        self._commit_at = time.monotonic() + COMMIT_S
        undone = {lane: offset for lane, offset in self._next.items() if self._committed.get(lane) != offset}
        if not undone:
            return
        offsets = [TopicPartition(self._names.events, lane, offset) for lane, offset in undone.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as exc:
            self._count(exc.args[0])
        else:
            self._committed |= undone

    def _on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        for one in offsets:
            reason = one.error or error
            if reason is not None:
                self._count(reason)
                self._committed.pop(one.partition, None)

    def _leave(self) -> None:
        self._commit()
        bounded = Bounded("hooks-leave")
        try:
            bounded.call(self._consumer.close, timeout_s=ANSWER_S)
        except (Hung, KafkaException) as exc:
            log.warning("hooks.leave_failed", extra={"reason": str(exc)})
        bounded.close()

    # --- errors ---

    def _on_read_error(self, message: Any, error: KafkaError) -> None:
        if error.code() != KafkaError._AUTO_OFFSET_RESET:
            self._on_error(error)
            return
        # The log no longer holds the position (retention): go on with the oldest record that is left.
        self._count(error)
        lane = message.partition()
        place = TopicPartition(self._names.events, lane)
        low, _ = self._consumer.get_watermark_offsets(place, timeout=ANSWER_S)
        log.error("hooks.skipped", extra={"lane": lane, "from": self._next.get(lane), "to": low})
        if lane in self._next:
            self._next[lane] = low
            self._consumer.assign([TopicPartition(self._names.events, *one) for one in self._next.items()])

    def _on_error(self, error: KafkaError) -> None:
        self._count(error)
        if error.fatal() or error.code() == KafkaError._FATAL:
            raise KafkaException(error)

    def _count(self, error: KafkaError) -> None:
        self._meters.inc("joblog_kafka_errors_total", ROLE, error.name())
        # A broker that is away is reported several times a second.
        if time.monotonic() >= self._log_at.get(error.name(), 0):
            self._log_at[error.name()] = time.monotonic() + LOG_INTERVAL_S
            log.warning("hooks.kafka.error", extra={"code": error.name(), "error": error.str()})
