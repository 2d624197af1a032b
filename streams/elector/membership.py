"""This elector as a member of the electors' consumer group: which lanes it is given, and what it fetches of them.

The member is static: `group.instance.id` is the elector's id, so that a restart within the session gets the same
lanes back without a rebalance (KIP-345).
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import Fenced, TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

log: Final = logging.getLogger(__name__)

ROLE: Final = "elector"
#: How long an elector that stops waits for the group to take its lanes.
LEAVE_S: Final = 2.0

_NO_TOPIC: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
_FATAL: Final = frozenset({KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID})
_NO_RECORD: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})

#: A topic and a partition.
Place = tuple[str, int]


class Membership:
    """One member of the group. All callbacks are called within `fetch` and `leave`, on the caller's thread.

    - on_revoke: called with the consumer while this member still has its lanes, to give them back in order.
    - on_lost: called when the group went on without this member: nothing is its own any more.

    What `fetch` notes, for the caller to read and reset:

    - wanted: the lanes that the group wants this elector to have, None when nothing changed.
    - ends: by place, the offset at which a partition ended.
    - missing: by place, why the next record to read is not in the log any more.
    """

    def __init__(
        self,
        config: KafkaConfig,
        names: TopicNames,
        instance_id: str,
        meters: Meters,
        *,
        lanes: int,
        on_revoke: Callable[[Consumer], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._config = config
        self._names = names
        self._instance_id = instance_id
        self._group = f"{names.prefix}electors"
        self._meters = meters
        self._lanes = lanes
        self._give_back = on_revoke
        self._lose = on_lost
        self.wanted: list[int] | None = None
        self.ends: dict[Place, int] = {}
        self.missing: dict[Place, str] = {}
        self._generation = 0
        self._returned = False
        self._fatal: KafkaError | None = None
        self.consumer = self._new_consumer()

    def _new_consumer(self) -> Consumer:
        return clients.group_consumer(
            self._config,
            self._group,
            self._instance_id,
            error_cb=self._on_error,
            **{"group.instance.id": self._instance_id, "enable.partition.eof": True},
        )

    # --- joining and leaving ---

    def join(self) -> None:
        """Become a member; the lanes come with a later `fetch`."""
        self._subscribe()

    def rejoin(self) -> None:
        """Join again as a new client, after the old one was fenced."""
        self._generation += 1
        self.wanted, self._fatal = None, None
        self.forget_fetched()
        self.consumer.close()
        self.consumer = self._new_consumer()
        self._subscribe()

    def leave(self) -> None:
        """Hand the lanes over at once.

        A static member that closes does not leave its group: its lanes would wait for its session to end. A
        member that subscribes to other topics makes the group rebalance, and gets none of the lanes.
        """
        self._generation += 1
        generation = self._generation
        self.consumer.subscribe(
            [self._names.deadletters], on_assign=self._on_left, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        deadline = time.monotonic() + LEAVE_S
        while time.monotonic() < deadline and self._generation < generation + 2:
            self.consumer.poll(0.05)

    def close(self) -> None:
        self.consumer.close()

    def _subscribe(self, *more: str) -> None:
        topics = [self._names.commands, self._names.reports, *more]
        self.consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    # --- fetching ---

    def fetch(self, most: int, wait_s: float) -> list[Message] | None:
        """What is there, `most` records or a few more; waits for the first. None after a rebalance in between.

        What was fetched before a rebalance is fetched again from the right place, once lanes are assigned. Raises
        Fenced when the client has ended for good: a process with the same id joined the group.
        """
        generation = self._generation
        found = self.consumer.consume(1, wait_s)
        if found and most > 1:
            found += self.consumer.consume(most - 1, 0)
        records = self._records(found)
        if self._returned:
            # Back under its id within the session after it left (see `leave`), a static member is given what it had
            # then: nothing. The group shares the lanes out anew when a member's topics change; what is assigned of
            # the additional topic is not read.
            self._returned = False
            self._subscribe(self._names.assignments)
            return None
        if generation != self._generation:
            self.forget_fetched()
            return None
        return records

    def serve(self) -> None:
        """Let the client tell what it has to while nothing can be decided; records are fetched again later.

        What nobody takes from a client piles up in it: what it logs of a broker that is away, most of all.
        """
        for message in self.consumer.consume(1_000, 0):
            if (error := message.error()) is not None:
                self._note(error, message)
        self.forget_fetched()

    def forget_fetched(self) -> None:
        """What was noted of partitions is not true any more: they are read from elsewhere."""
        self.ends.clear()
        self.missing.clear()

    def _records(self, messages: list[Message]) -> list[Message]:
        """The records among what was fetched; the client's own events and errors come the same way."""
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            else:
                self._note(error, message)
        if self._fatal is not None:
            raise Fenced(f"{self._instance_id}: {self._fatal.str()}")
        return records

    def _note(self, error: KafkaError, message: Message) -> None:
        place = str(message.topic()), message.partition() or 0
        if error.code() == KafkaError._PARTITION_EOF:
            self.ends[place] = message.offset() or 0
            return
        if error.fatal() or error.code() in _FATAL:
            self._fatal = error
        self._meters.inc("joblog_kafka_errors_total", ROLE, error.name())
        if error.code() in _NO_RECORD:
            self.missing[place] = error.str()
            return
        hint = {"hint": "create the topics: joblog topics create"} if error.code() in _NO_TOPIC else {}
        log.warning("elector.kafka_error", extra={"error": error.str(), "code": error.name(), **hint})

    # --- what the group decides: called by the client within consume and poll ---

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Note what is to be taken over; that happens in the next turn, where errors can be handled."""
        self._generation += 1
        self._meters.inc("joblog_rebalances_total", ROLE)
        commands, reports = (
            sorted(one.partition for one in partitions if one.topic == topic)
            for topic in (self._names.commands, self._names.reports)
        )
        consumer.assign([])
        if partitions and all(one.topic == self._names.deadletters for one in partitions):
            self._returned = True
            return
        if commands != reports or (commands and commands[-1] >= self._lanes):
            raise TopicsError(
                f"assigned partitions {commands} of commands and {reports} of reports, with {self._lanes} lanes "
                "(JOBLOG_LANES): were partitions added?"
            )
        self.wanted = commands

    def _on_revoke(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._generation += 1
        self.wanted = None
        self._give_back(consumer)
        consumer.unassign()

    def _on_lost(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._generation += 1
        self.wanted = None
        self._lose()
        consumer.unassign()

    def _on_left(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._generation += 1
        consumer.assign([])

    def _on_error(self, error: KafkaError) -> None:
        self._meters.inc("joblog_kafka_errors_total", ROLE, error.name())
        if error.fatal() or error.code() in _FATAL:
            self._fatal = error


def no_answer(error: Exception) -> str:
    """The text of an error of Kafka's client in a line."""
    found = error.args[0] if error.args else error
    return found.str() if isinstance(found, KafkaError) else str(error)
