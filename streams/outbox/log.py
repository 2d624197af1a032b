"""The transactions of an outbox's relay: commands and the mark that names their rows become visible together.

librdkafka speaks the first transaction protocol, in which a late answer may hit the next transaction (KIP-890). So a
producer whose transaction failed, in whatever way, is never used again: `open` makes a new one with the same id,
whose `init_transactions` ends what is open and fences every older relay of this outbox; then it reads the last mark.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import JoblogError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import TRANSACTION_TIMEOUT_S, KafkaConfig
from joblog.streams.kafka.last_records import watermarks
from joblog.streams.kafka.scan import Range, reading
from joblog.streams.outbox.marks import NOTHING, Mark, Row, decode_mark, encode_mark

log: Final = logging.getLogger(__name__)

#: How long to wait for the coordinator before looking whether to go on.
INIT_S: Final = 2
#: How long to try: another relay may reach brokers that do not answer here.
OPEN_S: Final = 10
#: Longer than the transaction's own time-out: the answer of the coordinator is worth waiting for.
_WAIT_S: Final = TRANSACTION_TIMEOUT_S + 5
#: What Kafka says of a record that it will never take.
_REFUSALS: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD}
)


class NotCommitted(JoblogError):
    """The transaction failed, or nobody knows whether it did: open the log again, which tells.

    - code: Kafka's name of the error, for metrics.
    """

    def __init__(self, reason: str, cause: Exception | None = None) -> None:
        found = cause.args[0] if isinstance(cause, KafkaException) else None
        why = cause if found is None else found.str()
        super().__init__(reason if cause is None else f"{reason}: {why}")
        self.code: Final[str] = "_STATE" if found is None else found.name()


class RowsRefused(JoblogError):
    """Kafka refuses some of these rows for what they are; nothing of the transaction was committed."""


class OutboxLog:
    """The log as the relay of one outbox uses it, from one thread.

    - outbox_id: what tells this outbox from others of the installation: the key of its marks.
    """

    def __init__(self, config: KafkaConfig, names: TopicNames, outbox_id: str) -> None:
        self.transactional_id: Final = f"{names.prefix}outbox-{outbox_id}"
        self._config = config
        self._names = names
        self._key = outbox_id.encode()
        self._producer: Producer | None = None

    def open(self, goes_on: Callable[[], bool]) -> Mark | None:
        """Fence older relays of this outbox and return its mark; None when told not to go on. Raises NotCommitted.

        In this order: before, the transaction of a relay that died may still become committed.
        """
        self.close()
        try:
            made = clients.transactional_producer(self._config, self.transactional_id)
            deadline = time.monotonic() + OPEN_S
            while not _is_initialised(made):
                if not goes_on():
                    return None
                if time.monotonic() > deadline:
                    raise NotCommitted(f"no broker has opened the outbox for {OPEN_S} s")
            mark = self._last_mark(goes_on)
        except KafkaException as exc:
            raise NotCommitted("the outbox cannot be opened", exc) from exc
        self._producer = made
        return mark

    def send(self, rows: Sequence[Row]) -> None:
        """Commit these rows' commands and the mark that names them.

        Raises RowsRefused, or NotCommitted if that failed or its outcome is unknown; then the log is closed.
        """
        producer, self._producer = self._producer, None
        if producer is None:
            raise NotCommitted("the outbox is not open")
        refused: list[str] = []
        try:
            self._commit(producer, rows, refused)
        except (KafkaException, BufferError, SystemError) as exc:
            # The client may log while its exception is set, which Python reports as SystemError.
            _drop(producer)
            if refused:
                raise RowsRefused(refused[0]) from exc
            raise NotCommitted("the transaction failed", exc) from exc
        except BaseException:
            _drop(producer)
            raise
        self._producer = producer

    def close(self) -> None:
        """Drop the producer, and whatever it has not sent."""
        if self._producer is not None:
            _drop(self._producer)
            self._producer = None

    def _commit(self, producer: Producer, rows: Sequence[Row], refused: list[str]) -> None:
        producer.begin_transaction()
        on_delivery = partial(_note_refusal, refused)
        for row in rows:
            try:
                producer.produce(self._names.commands, row.value, row.key, row.lane, on_delivery)
            except KafkaException as exc:
                _note_refusal(refused, exc.args[0], None)
                raise
        producer.produce(self._names.outbox, encode_mark(Mark.of(rows)), self._key, 0)
        producer.commit_transaction(_WAIT_S)

    def _last_mark(self, goes_on: Callable[[], bool]) -> Mark:
        """The mark of the last transaction. The open one of another outbox may hide it: that is waited for."""
        place = TopicPartition(self._names.outbox, 0)
        everything = {"isolation.level": "read_uncommitted"}
        with closing(clients.reader(self._config, f"{self.transactional_id}-end", **everything)) as consumer:
            low, high = watermarks(consumer, place)
        found = NOTHING
        with reading(self._config, self._names.outbox) as reader:
            for records in reader.read({0: Range(low, high)}, goes_on):
                for record in records:
                    if record.key() == self._key and (value := record.value()) is not None:
                        found = decode_mark(value)
        return found


def _is_initialised(producer: Producer) -> bool:
    try:
        producer.init_transactions(INIT_S)
    except KafkaException as exc:
        if not exc.args[0].retriable():
            raise
        log.warning("outbox.waiting_for_kafka", extra={"error": exc.args[0].str()})
        producer.poll(0)  # what it logs would pile up in it
        return False
    return True


def _note_refusal(refused: list[str], error: KafkaError | None, _message: Any) -> None:
    if error is not None and error.code() in _REFUSALS:
        refused.append(error.str())


def _drop(producer: Producer) -> None:
    producer.purge(in_queue=True, in_flight=True, blocking=False)
