"""One transaction of an elector: everything a turn led to, and how far was read, become true together."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from joblog.streams.contract.topics import DELAY_TIERS, TopicNames
from joblog.streams.elector.writer import Writer
from joblog.streams.errors import StepBack, TooLarge
from joblog.streams.kafka.bounded import Bounded, Hung
from joblog.streams.kafka.clients import TRANSACTION_TIMEOUT_S, KafkaConfig, transactional_producer

log: Final = logging.getLogger(__name__)

#: Milliseconds as a rule; a coordinator that takes so long is away.
OFFSETS_S: Final = 5.0
#: So many producers may hang at a time, before a new one waits for their ends.
LEFT_BEHIND_MAX: Final = 3
PAUSE_S: Final = 0.2
#: How long to wait for what was written, before waiting for the offsets; the commit waits for the rest.
HURRY_S: Final = 1.0
#: How long to wait for the coordinator before looking whether to go on.
INIT_S: Final = 2
#: Longer than the transaction's own time-out: the answer of the coordinator is worth waiting for.
_WAIT_S: Final = TRANSACTION_TIMEOUT_S + 5


def _hurry(producer: Producer) -> None:
    """Send what was written without lingering for more, while the offsets are on their way."""
    # The commit hears of a failure, too. With a fatal one the client may log when its exception is set,
    # which Python reports as SystemError.
    with suppress(KafkaException, SystemError):
        producer.flush(HURRY_S)


class TransactionLog:
    """The transactional producer of one elector, renewed after any doubtful outcome.

    librdkafka speaks the first transaction protocol, in which a late answer may hit the next transaction
    (KIP-890). Therefore a producer whose transaction failed, in whatever way, is never used again: `rebuild`
    makes a new one with the same id, whose `init_transactions` aborts what is open and fences what is late.
    """

    def __init__(self, config: KafkaConfig, names: TopicNames, lanes: int, transactional_id: str) -> None:
        self.transactional_id = transactional_id
        self._config = config
        self._names = names
        self._lanes = lanes
        self._producer: Producer | None = None
        self._tiers = {tier: names.delay(tier) for tier in DELAY_TIERS}
        self._sources: dict[int, str] = {}
        self._bounded = Bounded("send-offsets")

    @property
    def is_ready(self) -> bool:
        """Whether there is a producer."""
        return self._producer is not None

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
                made.poll(0)  # what it logs would pile up in it
            else:
                self._producer = made

    def close(self) -> None:
        """Drop the producer, and whatever it has not sent."""
        self._bounded.close()
        if self._producer is not None:
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._producer = None

    def commit(
        self, write: Callable[[Writer], None], offsets: Mapping[tuple[str, int], int], consumer: Consumer
    ) -> None:
        """Write and commit; raises StepBack (or what `write` raises) if that failed or nobody knows whether it did.

        1. begin 2. write the outputs and the lane records 3. send the offsets, which also checks that the
        group still counts this elector in 4. commit. Only then does the new state count.
        """
        producer = self._producer
        if producer is None:
            raise StepBack("there is no producer")
        try:
            producer.begin_transaction()
            write(Writer(producer, self._lanes, self._names, self._tiers, self._sources))
            if offsets:
                positions = [TopicPartition(topic, lane, offset) for (topic, lane), offset in offsets.items()]
                metadata = consumer.consumer_group_metadata()
                # Its own time-out does not count while the group's coordinator is away (librdkafka #5456).
                self._bounded.call(
                    producer.send_offsets_to_transaction,
                    positions,
                    metadata,
                    _WAIT_S,
                    timeout_s=OFFSETS_S,
                    meanwhile=partial(_hurry, producer),
                )
            producer.commit_transaction(_WAIT_S)
        except BufferError as error:
            raise TooLarge(f"the transaction is larger than the producer takes: {error}") from error
        except (KafkaException, Hung) as error:
            raise StepBack(f"the transaction failed: {error}") from error
