"""Sends commands that must become true together: one transaction of Kafka, for as many lanes as they are in.

Readers of any lane wait for the end of an open transaction. So the commands are gathered before it begins, it has the
time-out of the electors' transactions, and if this process dies in it, nobody waits longer than that.

A producer whose transaction failed, in whatever way, is never used again (streams/elector/transaction.py says why).
The next one has the same transactional id: when its `init_transactions` returns, the outcome of the last transaction
is decided, and whatever it was, the same commands may be sent again. Calls into librdkafka that may never return are
made in a thread that is left behind then.
"""

import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Final

from confluent_kafka import KafkaException, Producer
from joblog.services.client.forks import Process
from joblog.services.client.sending import NotAcknowledged
from joblog.services.client.templates import CommandRecord
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.errors import JoblogError
from joblog.streams.kafka.bounded import Bounded, Hung
from joblog.streams.kafka.clients import TRANSACTION_TIMEOUT_S, KafkaConfig, transactional_producer

#: Above the transaction's own time-out: the coordinator's answer is worth waiting for.
_COMMIT_S: Final = TRANSACTION_TIMEOUT_S + 5.0
#: How much longer to wait for a call than it was told to take itself.
_GRACE_S: Final = 2.0


class TransactionSender:
    """One transactional producer, made when it is needed; threads take turns.

    - check: called before a transaction, and raises what makes it impossible.
    """

    def __init__(
        self, config: KafkaConfig, topic: str, client_id: str, timeout_s: float, check: Callable[[], object]
    ) -> None:
        self._config = config
        self._topic = topic
        self._id = f"{client_id}-{secrets.token_hex(6)}"
        self._timeout_s = timeout_s
        self._check = check
        self._lock = threading.Lock()
        self._process = Process()
        self._bounded = Bounded("joblog-client-transactions")
        self._producer: Producer | None = None
        self._is_closed = False

    def send(self, records: Sequence[CommandRecord], job_ids: Sequence[str]) -> None:
        """Send all or none. Raises NotAcknowledged with these ids if nobody knows, or none was sent."""
        self._process.check()
        with self._lock:
            if self._is_closed:
                raise JoblogError("this client is closed")
            try:
                self._check()
                producer = self._ready()
                producer.begin_transaction()
                for job_id, value, _ in records:
                    producer.produce(self._topic, value, job_id, lane_of_job(job_id))
                self._call(producer.commit_transaction, _COMMIT_S)
            except (KafkaException, BufferError, Hung) as exc:
                self._drop()
                reason = f"brokers {self._config.bootstrap_servers}: {exc}"
                raise NotAcknowledged(reason, job_ids, job_ids) from exc
            except BaseException:
                self._drop()
                raise

    def close(self) -> None:
        """Drop the producer, after the transaction of another thread that is in progress."""
        if not self._process.is_this:
            return
        with self._lock:
            self._is_closed = True
            self._drop()
            self._bounded.close()

    def _ready(self) -> Producer:
        if self._producer is None:
            made = transactional_producer(self._config, self._id)
            self._call(made.init_transactions, self._timeout_s)
            self._producer = made
        return self._producer

    def _call(self, function: Callable[[float], object], timeout_s: float) -> None:
        self._bounded.call(function, timeout_s, timeout_s=timeout_s + _GRACE_S)

    def _drop(self) -> None:
        """Give the producer up, and what it has not sent; the next one ends its transaction."""
        if self._producer is not None:
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._producer = None
