"""Creates Joblog's topics, and holds those that are there to their number of partitions."""

import time
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic
from joblog.streams.contract.topics import TOPICS, Topic, TopicNames
from joblog.streams.errors import BrokersAway, TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig

_POLL_S: Final = 0.05
#: A broker that is there answers within milliseconds; one that just starts, within seconds.
ANSWER_S: Final = 10


class _Found(NamedTuple):
    partitions: int
    with_leader: int


def create_topics(
    config: KafkaConfig, names: TopicNames, lanes: int, *, replication: int = 1, timeout_s: float = 60
) -> None:
    """Create the topics that are missing, and return when brokers serve all of them; repeating it is harmless.

    With three copies or more (`replication`) a write counts when two have it. Raises TopicsError when a
    topic cannot be created, has other partitions than `lanes` asks for, or is not served in time;
    BrokersAway when no broker answers.
    """
    client = clients.admin(config)
    deadline = time.monotonic() + timeout_s
    there = _topics(config, client, time.monotonic() + min(timeout_s, ANSWER_S))
    missing = [topic for topic in TOPICS if names.of(topic) not in there]
    _create(client, [_new(topic, names, lanes, replication) for topic in missing], deadline)
    while unserved := _unserved(there := _topics(config, client, deadline), names) or _unanswered(
        client, there, names
    ):
        if time.monotonic() > deadline:
            raise TopicsError(f"topics without a leader after {timeout_s:.0f} s: {', '.join(unserved)}")
        time.sleep(_POLL_S)
    _check_counts(there, names, lanes)


def check_topics(config: KafkaConfig, names: TopicNames, lanes: int, *, timeout_s: float = 30) -> None:
    """Raise TopicsError unless all topics are there, with the partitions that `lanes` asks for, or BrokersAway."""
    there = _topics(config, clients.admin(config), time.monotonic() + timeout_s)
    if missing := [names.of(topic) for topic in TOPICS if names.of(topic) not in there]:
        raise TopicsError(f"topics are missing: {', '.join(missing)}; create them first, or mind the prefix")
    _check_counts(there, names, lanes)


def _wanted(topic: Topic, lanes: int) -> int:
    return lanes if topic.partitions is None else topic.partitions


def _new(topic: Topic, names: TopicNames, lanes: int, replication: int) -> NewTopic:
    durability = {"min.insync.replicas": "2"} if replication >= 3 else {}
    return NewTopic(
        names.of(topic),
        num_partitions=_wanted(topic, lanes),
        replication_factor=replication,
        config={**topic.configuration(), **durability},
    )


def _create(client: AdminClient, new: Collection[NewTopic], deadline: float) -> None:
    if not new:
        return
    timeout_s = max(deadline - time.monotonic(), 1)
    created = client.create_topics(list(new), operation_timeout=timeout_s, request_timeout=timeout_s)
    for name, future in created.items():
        try:
            future.result()
        except KafkaException as exc:
            # Another process was faster; whether its partitions are ours is checked afterwards.
            if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicsError(f"topic {name} could not be created: {exc.args[0].str()}") from exc


def _topics(config: KafkaConfig, client: AdminClient, deadline: float) -> Mapping[str, _Found]:
    """The cluster's topics, as far as they are whole."""
    try:
        found = client.list_topics(timeout=max(deadline - time.monotonic(), 1)).topics
    except KafkaException as exc:
        raise BrokersAway(
            f"no broker answers at {config.bootstrap_servers}: {exc.args[0].str()}; is the address "
            "(kafka.bootstrap_servers) right, and are the brokers running?"
        ) from exc
    return {
        name: _Found(len(topic.partitions), sum(partition.leader >= 0 for partition in topic.partitions.values()))
        for name, topic in found.items()
        if topic.error is None
    }


def _unserved(there: Mapping[str, _Found], names: TopicNames) -> list[str]:
    wanted = [names.of(topic) for topic in TOPICS]
    return [name for name in wanted if name not in there or there[name].with_leader < there[name].partitions]


def _unanswered(client: AdminClient, there: Mapping[str, _Found], names: TopicNames) -> list[str]:
    """The topics of which a partition does not answer yet: a broker leads it, and has not heard of that itself."""
    asked = {
        TopicPartition(name, number): OffsetSpec.latest()  # type: ignore[no-untyped-call]
        for name in (names.of(topic) for topic in TOPICS)
        for number in range(there[name].partitions)
    }
    answers = client.list_offsets(asked, request_timeout=10)
    return sorted({partition.topic for partition, answer in answers.items() if answer.exception() is not None})


def _check_counts(there: Mapping[str, _Found], names: TopicNames, lanes: int) -> None:
    for topic in TOPICS:
        name, wanted = names.of(topic), _wanted(topic, lanes)
        if name in there and there[name].partitions != wanted:
            raise TopicsError(
                f"topic {name} has {there[name].partitions} partitions, not {wanted}. A job's lane is fixed for its "
                f"life, so the number never changes: set the lanes to what the topics have, or choose another prefix"
            )
