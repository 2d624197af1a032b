"""The offsets that a consumer group has committed, asked for and set by somebody who is no member of it.

Not with an admin client: librdkafka ends the whole process (`Assertion eonce->refcnt > 0`, librdkafka #4605, #5397)
when the connection breaks on which an admin client asks a group's coordinator, as it does while a broker restarts.
"""

from collections.abc import Sequence
from contextlib import closing
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from joblog.streams.kafka.clients import SESSION_TIMEOUT_S, KafkaConfig

#: So long a client looks for the group's coordinator before it gives a commit up.
_COORDINATOR_MS: Final = SESSION_TIMEOUT_S * 1000


def committed_offsets(
    config: KafkaConfig, group: str, places: Sequence[TopicPartition], timeout_s: float
) -> list[TopicPartition]:
    """The places with the group's offsets (negative where it has none) and their metadata; raises KafkaException."""
    with closing(_client(config, group)) as client:
        found: list[TopicPartition] = client.committed(list(places), timeout=timeout_s)
    return _checked(found)


def commit_offsets(config: KafkaConfig, group: str, places: Sequence[TopicPartition]) -> None:
    """Set the offsets, and their metadata, of a group that has no members.

    Raises KafkaException, within some seconds as a rule; the client has no time-out of its own for this.
    """
    with closing(_client(config, group)) as client:
        done = client.commit(offsets=list(places), asynchronous=False)
    _checked(done or [])


def _client(config: KafkaConfig, group: str) -> Consumer:
    return Consumer(
        {
            **config.common(f"{group}-offsets"),
            "group.id": group,
            "enable.auto.commit": False,
            # Answers while a transaction is open that will set them: with what holds until then.
            "isolation.level": "read_uncommitted",
            "session.timeout.ms": _COORDINATOR_MS,
        }
    )


def _checked(places: list[TopicPartition]) -> list[TopicPartition]:
    for place in places:
        if place.error is not None:
            raise KafkaException(place.error)
    return places
