"""The partitions of the delay topics that one delays process has: read, paused when full, and committed."""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from joblog.streams.contract.topics import DELAY_TIERS, WAITS_MS, TopicNames
from joblog.streams.delays.firing import ROLE
from joblog.streams.delays.partition import Partition
from joblog.streams.delays.wheel import Shelf
from joblog.streams.errors import TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.bounded import Bounded, Hung
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

#: Records read in one go.
READ_MAX: Final = 1_000
OFFSETS_TIMEOUT_S: Final = 10.0
LEAVE_TIMEOUT_S: Final = 10.0
#: Errors of one kind are logged this often at most; all are counted.
LOG_INTERVAL_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Records held of one partition before it is paused: of the tier `now`, and of a tier that waits."""

    now_max: int = 200_000
    waiting_max: int = 1_000


LIMITS: Final = Limits()


class DelayReader:
    """A member of the group; it forgets what it holds of a partition that another member gets.

    - finish: called before partitions are given back, to wait for the acknowledgements of what was sent.
    - instance: the member's name, if it is static.
    """

    def __init__(
        self,
        config: KafkaConfig,
        names: TopicNames,
        lanes: int,
        *,
        instance: str | None,
        meters: Meters,
        limits: Limits,
        finish: Callable[[], object],
    ) -> None:
        self._lanes = lanes
        self._meters = meters
        self._limits = limits
        self._finish = finish
        self._tiers: Mapping[str, str] = {names.delay(tier): tier for tier in DELAY_TIERS}
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._log_at: dict[str, float] = {}
        options: dict[str, Any] = {"error_cb": self._on_error, "on_commit": self._on_commit}
        if instance is not None:
            options["group.instance.id"] = instance
        group = f"{names.prefix}{ROLE}"
        self._consumer = clients.group_consumer(config, group, client_id(names, instance), **options)

    @property
    def partitions(self) -> Collection[Partition]:
        return self._partitions.values()

    def join(self) -> None:
        self._consumer.subscribe(
            list(self._tiers), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def leave(self) -> None:
        """Commit what is done and leave the group; a member that cannot is expelled by the others in time.

        The client would not give up: while the coordinator is away it waits for it, as long as a commit is open.
        """
        bounded = Bounded("delays-leave")
        try:
            bounded.call(self._close, timeout_s=LEAVE_TIMEOUT_S)
        except Hung:
            log.warning("delays.leave_failed", extra={"after_s": LEAVE_TIMEOUT_S})
        bounded.close()

    def read(self, pause_ms: int, now_ms: Callable[[], int]) -> None:
        """Hold what is there: wait for one record, then take those that came with it.

        Raises KafkaException when the client cannot go on.
        """
        pause_s = pause_ms / 1000
        for _ in range(READ_MAX):
            message = self._consumer.poll(pause_s)
            if message is None:
                return
            if error := message.error():
                self._on_read_error(message, error)
            else:
                self._keep(message, now_ms())
            pause_s = 0

    def resume(self) -> None:
        """Read paused partitions again that have room."""
        for partition in self.partitions:
            if partition.is_paused and partition.shelf.has_room:
                self._consumer.resume([TopicPartition(partition.topic, partition.lane)])
                partition.is_paused = False

    def commit(self) -> None:
        """Commit what is done, without waiting; what fails is counted, and committed with the next."""
        undone = [each for each in self.partitions if each.position not in {each.start, each.committed}]
        if not undone:
            return
        offsets = [TopicPartition(each.topic, each.lane, each.position) for each in undone]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as exc:
            self._on_error(exc.args[0])
        else:
            for each in undone:
                each.committed = each.position

    def _keep(self, message: Message, now_ms: int) -> None:
        partition = self._partitions.get(_place(message))
        if partition is None:
            return  # read before a rebalance; whoever has the partition now reads it again
        partition.keep(message, now_ms)
        # Some records still come after the pause, and are kept too.
        if partition.shelf.is_full and not partition.is_paused:
            self._consumer.pause([TopicPartition(partition.topic, partition.lane)])
            partition.is_paused = True

    def _close(self) -> None:
        try:
            self._consumer.close()
        except KafkaException as exc:
            log.warning("delays.leave_failed", extra={"error": exc.args[0].str()})

    # --- what the client reports: all are called within its poll and close ---

    def _on_assign(self, _: Consumer, assigned: list[TopicPartition]) -> None:
        if strange := [each for each in assigned if each.partition >= self._lanes]:
            raise TopicsError(f"{strange[0].topic} has more partitions than there are lanes ({self._lanes})")
        self._meters.inc("joblog_rebalances_total", ROLE)
        self._assign(self._starts(assigned))
        log.info("delays.assigned", extra={"partitions": len(assigned)})

    def _on_revoke(self, _: Consumer, _revoked: list[TopicPartition]) -> None:
        """Finish what was sent, commit what is done, and forget the rest; the other members wait for this.

        The commit is sent before this member joins again or leaves, so it counts for the next owner. Waiting
        for the answer could take minutes when the broker is away.
        """
        self._finish()
        self.commit()
        self._partitions = {}

    def _on_lost(self, _consumer: Consumer, lost: list[TopicPartition]) -> None:
        log.warning("delays.lost", extra={"partitions": len(lost)})
        self._partitions = {}

    def _on_read_error(self, message: Message, error: KafkaError) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._restart(message, error)
        else:
            self._on_error(error)

    def _on_error(self, error: KafkaError) -> None:
        """Count it: the client goes on by itself, unless the error is fatal."""
        self._meters.inc("joblog_kafka_errors_total", ROLE, error.name())
        # A broker that is away is reported several times a second.
        if time.monotonic() >= self._log_at.get(error.name(), 0):
            self._log_at[error.name()] = time.monotonic() + LOG_INTERVAL_S
            log.warning("delays.kafka.error", extra={"code": error.name(), "error": error.str()})
        if error.fatal() or error.code() == KafkaError._FATAL:
            raise KafkaException(error)

    def _on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        failed = {(each.topic, each.partition): each.error or error for each in offsets}
        for place, reason in failed.items():
            if reason is not None:
                self._meters.inc("joblog_kafka_errors_total", ROLE, reason.name())
                if partition := self._partitions.get(place):
                    partition.committed = None

    def _restart(self, message: Message, error: KafkaError) -> None:
        """The log no longer holds the position (retention, deletion): go on with the oldest record that is left.

        The client fetches such a partition again only after a new assignment, which is that of all.
        """
        place = topic, lane = _place(message)
        self._meters.inc("joblog_kafka_errors_total", ROLE, error.name())
        log.error("delays.restarted", extra={"topic": topic, "partition": lane, "error": error.str()})
        if place in self._partitions:
            positions = {(each.topic, each.lane): each.position for each in self.partitions}
            positions[place] = OFFSET_BEGINNING
            self._assign([TopicPartition(*each, position) for each, position in positions.items()])

    def _assign(self, starts: list[TopicPartition]) -> None:
        """Hold nothing yet, and read from these offsets on."""
        self._partitions = {(each.topic, each.partition): self._empty(each) for each in starts}
        self._consumer.assign(starts)
        # The client remembers what was paused, also over another assignment.
        self._consumer.resume(starts)

    def _starts(self, assigned: list[TopicPartition]) -> list[TopicPartition]:
        """The committed offsets; the beginning where the group has committed none."""
        try:
            starts = self._consumer.committed(assigned, timeout=OFFSETS_TIMEOUT_S)
        except KafkaException as exc:
            # The client then looks them up by itself; where there are none, that ends in `_restart`.
            self._on_error(exc.args[0])
            return assigned
        for each in starts:
            if each.error is None and each.offset < 0:
                each.offset = OFFSET_BEGINNING
        return starts

    def _empty(self, start: TopicPartition) -> Partition:
        tier = self._tiers[start.topic]
        capacity = self._limits.waiting_max if WAITS_MS[tier] else self._limits.now_max
        return Partition(start.topic, start.partition, tier, Shelf(capacity), start.offset)


def client_id(names: TopicNames, instance: str | None) -> str:
    return f"{names.prefix}{ROLE}" if instance is None else f"{names.prefix}{ROLE}-{instance}"


def _place(message: Message) -> tuple[str, int]:
    topic, lane = message.topic(), message.partition()
    assert topic is not None
    assert lane is not None
    return topic, lane
