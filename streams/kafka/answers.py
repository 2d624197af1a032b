"""Brokers that do not answer, as an error that names their address."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from joblog.streams.errors import BrokersAway
from joblog.streams.kafka.clients import KafkaConfig

_AWAY: Final = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT})


@contextmanager
def answered(config: KafkaConfig) -> Iterator[None]:
    """Raise BrokersAway for what the block raises when brokers are silent; other KafkaExceptions stay."""
    try:
        yield
    except KafkaException as error:
        if error.args[0].code() in _AWAY:
            raise BrokersAway(f"no broker answers at {config.bootstrap_servers}: {error.args[0].str()}") from error
        raise
