"""Kafka clients with the one safe profile: nothing is lost, nothing uncommitted is read, nothing is skipped."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

_librdkafka: Final = logging.getLogger("joblog.librdkafka")

#: Seconds until the group takes a silent elector's lanes away, and the longest a transaction may stay open.
SESSION_TIMEOUT_S: Final = 6
TRANSACTION_TIMEOUT_S: Final = 10


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Where the brokers are, and how to be let in.

    `options` are librdkafka properties for every client (SASL, TLS); they may not weaken the profile below.
    """

    bootstrap_servers: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold passwords

    def common(self, client_id: str) -> dict[str, Any]:
        return {
            **self.options,
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": client_id,
            # A broker that restarts is back within seconds: look for it often, and say so once.
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "allow.auto.create.topics": False,
            "log.connection.close": False,
            # What librdkafka has to say goes where all logs go, not to stderr.
            "logger": _librdkafka,
        }


#: Kafka's own default partitioner, so that `key = queue` finds the same lane from any client.
_WRITING: Final[Mapping[str, Any]] = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    # A dead letter carries the largest record whole, and the topics take as much (contract/topics.py).
    "message.max.bytes": 2_000_000,
}

_READING: Final[Mapping[str, Any]] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # A position the log no longer holds is an incident to look at, never a jump.
    "auto.offset.reset": "error",
    "fetch.wait.max.ms": 100,
    # The local queue stays short, so that a report never waits behind seconds of commands already fetched.
    "queued.max.messages.kbytes": 8192,
    "fetch.queue.backoff.ms": 5,
}


def producer(config: KafkaConfig, client_id: str, *, linger_ms: float = 2, timeout_ms: int = 30_000) -> Producer:
    """An idempotent producer; `timeout_ms` until a record without acknowledgement is reported as failed."""
    return Producer(
        {
            **config.common(client_id),
            **_WRITING,
            "linger.ms": linger_ms,
            "message.timeout.ms": timeout_ms,
            "queue.buffering.max.messages": 200_000,
        }
    )


def transactional_producer(config: KafkaConfig, transactional_id: str) -> Producer:
    """A producer for transactions; `init_transactions` is the caller's to call, and fences an older holder."""
    return Producer(
        {
            **config.common(transactional_id),
            **_WRITING,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_S * 1000,
            "message.timeout.ms": TRANSACTION_TIMEOUT_S * 1000,
            # A transaction right behind another is told to try again while that one's markers are written:
            # soon, not after the default of 100 ms.
            "retry.backoff.ms": 3,
            # For while a turn is written; then the transaction is flushed. Below some milliseconds librdkafka does
            # not sleep until a batch is due, but polls, and small requests cost the broker more.
            "linger.ms": 5,
            # A transaction is gathered whole; what leads to more is cut before (elector/turn.py, lane/lane.py).
            "queue.buffering.max.messages": 2_000_000,
            "queue.buffering.max.kbytes": 2_000_000,
        }
    )


def group_consumer(config: KafkaConfig, group: str, client_id: str, **options: Any) -> Consumer:
    """A member of a classic consumer group (KIP-848 has a session of 45 s at least), range assignor."""
    return Consumer(
        {
            **config.common(client_id),
            **_READING,
            "group.id": group,
            "group.protocol": "classic",
            "partition.assignment.strategy": "range",
            "session.timeout.ms": SESSION_TIMEOUT_S * 1000,
            "heartbeat.interval.ms": SESSION_TIMEOUT_S * 1000 // 3,
            # Taking over a lane with a million live jobs happens between two polls.
            "max.poll.interval.ms": 300_000,
            **options,
        }
    )


def reader(config: KafkaConfig, client_id: str, **options: Any) -> Consumer:
    """A consumer for `assign()`: it belongs to no group and commits nothing; it reports the end of a partition."""
    return Consumer(
        {
            **config.common(client_id),
            **_READING,
            "group.id": f"{client_id}-reader",
            "enable.partition.eof": True,
            **options,
        }
    )


def admin(config: KafkaConfig, client_id: str = "joblog-admin") -> AdminClient:
    """A client for topics and settings."""
    return AdminClient(config.common(client_id))
