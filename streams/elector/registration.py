"""Which process is the latest that was started under an elector's id.

Two electors with one id would fence each other for ever, in their group and with their transactions: each cannot tell
a twin from its own request that was repeated after a broker's failure. So each process registers when it starts, and
looks that up when it is fenced: if a later one has registered, it ends, and that one goes on.

The register is the metadata of an offset that is committed for a group of the elector's own (it has no members, and
reads nothing): kept by the brokers, replaced by whoever registers later, and read back at once.
"""

from secrets import token_hex
from typing import Final

from confluent_kafka import TopicPartition
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.bounded import Bounded
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.group_offsets import commit_offsets, committed_offsets

ANSWER_S: Final = 5
#: The client's own time-out may not count while the group's coordinator is away, as with a transaction's offsets.
LIMIT_S: Final = 10.0


class Registration:
    """The registration of this process, under `instance_id`."""

    def __init__(self, config: KafkaConfig, names: TopicNames, instance_id: str) -> None:
        self._config = config
        self._topic = names.commands
        self._group = instance_id
        self._token = token_hex(8)
        self._bounded = Bounded("registration")

    @property
    def brokers(self) -> str:
        """The address that is asked."""
        return self._config.bootstrap_servers

    def register(self) -> None:
        """Be the latest. Raises KafkaException or Hung when no broker answers."""
        self._bounded.call(self._write, timeout_s=LIMIT_S)

    def is_latest(self) -> bool:
        """Whether nobody has registered later. Raises KafkaException or Hung when no broker answers."""
        found: list[str | None] = []
        self._bounded.call(self._read, found, timeout_s=LIMIT_S)
        return found[0] in (None, "", self._token)

    def close(self) -> None:
        """Let go of the thread in which brokers are asked."""
        self._bounded.close()

    def _write(self) -> None:
        commit_offsets(self._config, self._group, [TopicPartition(self._topic, 0, 0, self._token)])

    def _read(self, found: list[str | None]) -> None:
        (place,) = committed_offsets(self._config, self._group, [TopicPartition(self._topic, 0)], ANSWER_S)
        found.append(place.metadata)
