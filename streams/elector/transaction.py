"""One transaction of an elector: everything a batch led to, and how far was read, become true together."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from joblog.streams.contract import deadletters, wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.record_headers import Headers
from joblog.streams.contract.tiers import tier_for
from joblog.streams.contract.timestamps import format_time
from joblog.streams.contract.topics import DELAY_TIERS, TopicNames
from joblog.streams.elector.lane_records import LANE_KEY, LaneRecord, write_state
from joblog.streams.errors import StepBack, TooLarge
from joblog.streams.kafka.bounded import Bounded, Hung
from joblog.streams.kafka.clients import TRANSACTION_TIMEOUT_S, KafkaConfig, transactional_producer
from joblog.streams.lane.outbox import Outbox

log: Final = logging.getLogger(__name__)

_JSON: Final = "application/json"
#: Milliseconds as a rule; a coordinator that takes so long is away.
OFFSETS_S: Final = 5.0
#: So many producers may hang at a time, before a new one waits for their ends.
LEFT_BEHIND_MAX: Final = 3
PAUSE_S: Final = 0.2
#: How long to wait for the coordinator before looking whether to go on.
INIT_S: Final = 2
#: Longer than the transaction's own time-out: the answer of the coordinator is worth waiting for.
_WAIT_S: Final = TRANSACTION_TIMEOUT_S + 5


class TransactionLog:
    """The transactional producer of one elector, renewed after any doubtful outcome.

    librdkafka speaks the first transaction protocol, in which a late answer may hit the next transaction
    (KIP-890). Therefore a producer whose transaction failed, in whatever way, is never used again: `rebuild`
    makes a new one with the same id, whose `init_transactions` aborts what is open and fences what is late.
    """

    def __init__(self, config: KafkaConfig, names: TopicNames, transactional_id: str) -> None:
        self.transactional_id = transactional_id
        self._config = config
        self._names = names
        self._producer: Producer | None = None
        self._tiers = {tier: names.delay(tier) for tier in DELAY_TIERS}
        self._sources: dict[int, str] = {}
        self._bounded = Bounded("send-offsets")

    def rebuild(self, goes_on: Callable[[], bool]) -> None:
        """A new producer under the same id; waits for a broker while `goes_on`, and may raise KafkaException."""
        self.close()
        while self._bounded.left_behind >= LEFT_BEHIND_MAX and goes_on():
            time.sleep(PAUSE_S)  # each keeps a producer, with its threads and connections
        made = transactional_producer(self._config, self.transactional_id)
        while self._producer is None and goes_on():
            try:
                made.init_transactions(INIT_S)
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
                log.warning(
                    "elector.waiting_for_kafka",
                    extra={"brokers": self._config.bootstrap_servers, "error": error.args[0].str()},
                )
            else:
                self._producer = made

    def close(self) -> None:
        """Drop the producer, and whatever it has not sent."""
        self._bounded.close()
        if self._producer is not None:
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._producer = None

    def commit(
        self, write: Callable[["Writer"], None], offsets: Mapping[tuple[str, int], int], consumer: Consumer
    ) -> None:
        """Write and commit; raises StepBack if that failed or nobody knows whether it did.

        1. begin 2. write the outboxes and the lane records 3. send the offsets, which also checks that the
        group still counts this elector in 4. commit. Only then does the new state count.
        """
        producer = self._producer
        if producer is None:
            raise StepBack("there is no producer")
        try:
            producer.begin_transaction()
            write(Writer(producer, self._names, self._tiers, self._sources))
            if offsets:
                positions = [TopicPartition(topic, lane, offset) for (topic, lane), offset in offsets.items()]
                metadata = consumer.consumer_group_metadata()
                # Its own time-out does not count while the group's coordinator is away (librdkafka #5456).
                self._bounded.call(
                    producer.send_offsets_to_transaction, positions, metadata, _WAIT_S, timeout_s=OFFSETS_S
                )
            producer.commit_transaction(_WAIT_S)
        except BufferError as error:
            raise TooLarge(f"the transaction is larger than the producer takes: {error}") from error
        except (KafkaException, Hung) as error:
            raise StepBack(f"the transaction failed: {error}") from error


class Writer:
    """Produces what outboxes hold, within one transaction."""

    def __init__(
        self, producer: Producer, names: TopicNames, tiers: Mapping[str, str], sources: dict[int, str]
    ) -> None:
        self._produce = producer.produce
        self._names = names
        self._tiers = tiers
        self._sources = sources

    def outbox(self, lane: int, out: Outbox, now_ms: int) -> None:
        """All of one lane's outbox."""
        self._events(lane, out, now_ms)
        produce = self._produce
        assignments = self._names.assignments
        for partition, worker, assignment in out.assignments:
            produce(assignments, encode(assignment), worker, partition)
        for timer in out.timers:
            topic = self._tiers[tier_for(timer.due_ms - now_ms)]
            produce(topic, encode(timer), timer.job_id, lane)
        for to_lane, key, report in out.reports:
            produce(self._names.reports, encode(report), key, to_lane)
        state = self._names.state
        for key, value in out.state.items():
            produce(state, write_state(value), key, lane)

    def _events(self, lane: int, out: Outbox, now_ms: int) -> None:
        if not out.events:
            return
        produce = self._produce
        topic = self._names.events
        time = format_time(now_ms)
        source = self._sources.get(lane)
        if source is None:
            source = self._sources[lane] = f"/joblog/lanes/{lane}"
        envelope = wire.CloudEvent
        for key, kind, event_id, data, cause, traceparent in out.events:
            event = envelope("1.0", event_id, source, kind, key, time, _JSON, cause, traceparent, data)
            produce(topic, encode(event), key, lane)

    def lane_record(self, lane: int, record: LaneRecord) -> None:
        """Who owns the lane, and how far it has read."""
        self._produce(self._names.state, write_state(record), LANE_KEY, lane)

    def forward(self, message: Message, headers: Headers | None, lane: int) -> None:
        """Send a command on to its own lane, as it came."""
        self._produce(self._names.commands, message.value(), message.key(), lane, headers=headers)

    def deadletter(self, message: Message, headers: Headers, value: bytes | None) -> None:
        """Park a record with its reason."""
        self._produce(self._names.deadletters, value, deadletters.key(message.key()), headers=headers)
