"""Creates and deletes topics, checks those that are there, and alters settings that are not as they should be."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic
from joblog.streams.contract.topics import TOPICS, Topic, TopicNames
from joblog.streams.errors import BrokersAway, TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.topic_rules import (
    Difference,
    differences,
    missing_topics,
    partition_mistake,
    wanted_partitions,
)

_POLL_S: Final = 0.05
#: A broker that runs answers within milliseconds; one that is starting, within seconds.
ANSWER_S: Final = 10


class _Found(NamedTuple):
    partitions: int
    with_leader: int


def create_topics(
    config: KafkaConfig, names: TopicNames, lanes: int, *, replication: int = 1, timeout_s: float = 60
) -> None:
    """Create the topics that are missing, and return when brokers serve all of them; safe to repeat.

    With three replicas or more (`replication`) two of them must have a record before it is acknowledged. The
    settings of existing topics are left alone: `topic_differences` finds what differs, `alter_topics` changes it.
    Raises TopicsError when a topic cannot be created, has another number of partitions than `lanes` asks for, or
    is not served in time; BrokersAway when no broker answers.
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
    if mistake := partition_mistake(_counts(there), names, lanes, TOPICS):
        raise TopicsError(str(mistake))


def check_topics(
    config: KafkaConfig,
    names: TopicNames,
    lanes: int,
    *,
    topics: Sequence[Topic] = TOPICS,
    timeout_s: float = 30,
    client: AdminClient | None = None,
) -> None:
    """Raise TopicsError unless all of `topics` are there, with the partitions that `lanes` asks for.

    Raises BrokersAway when no broker answers. `client` is one to use again for further checks.
    """
    there = _topics(config, client or clients.admin(config), time.monotonic() + timeout_s)
    if missing := missing_topics(there, names, topics):
        raise TopicsError(
            f"topics are missing: {', '.join(missing)}. Create them with `joblog topics create`, check "
            "JOBLOG_TOPIC_PREFIX, or let this user describe them"
        )
    if mistake := partition_mistake(_counts(there), names, lanes, topics):
        raise TopicsError(str(mistake))


def topic_differences(config: KafkaConfig, names: TopicNames) -> list[Difference]:
    """The settings of existing topics that are not as the table of topics has them.

    Raises BrokersAway when no broker answers; TopicsError when this user may not see the settings.
    """
    client = clients.admin(config)
    there = _topics(config, client, time.monotonic() + ANSWER_S)
    by_name = {names.of(topic): topic for topic in TOPICS if names.of(topic) in there}
    if not by_name:
        return []
    try:
        configs = topic_settings(client, by_name)
    except KafkaException as exc:
        raise TopicsError(f"the settings of the topics cannot be read: {exc.args[0].str()}") from exc
    return differences(configs, by_name, names)


def topic_settings(client: AdminClient, topics: Collection[str]) -> Mapping[str, Mapping[str, str]]:
    """The settings of each topic, as Kafka names them; raises KafkaException."""
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
    asked = client.describe_configs(resources, request_timeout=ANSWER_S)
    return {
        resource.name: {name: entry.value for name, entry in future.result().items() if entry.value is not None}
        for resource, future in asked.items()
    }


def alter_topics(config: KafkaConfig, changes: Collection[Difference]) -> None:
    """Set what differs as it is wanted, and nothing else; returns when a broker shows the new settings.

    Raises TopicsError with the topic that was refused.
    """
    by_topic: dict[str, list[ConfigEntry]] = {}
    for one in changes:
        entry = ConfigEntry(one.setting, one.wanted, incremental_operation=AlterConfigOpType.SET)
        by_topic.setdefault(one.topic, []).append(entry)
    if not by_topic:
        return
    resources = [
        ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries) for topic, entries in by_topic.items()
    ]
    client = clients.admin(config)  # a client that is dropped drops its requests
    altered = client.incremental_alter_configs(resources, request_timeout=ANSWER_S)
    for resource, future in altered.items():
        try:
            future.result()
        except KafkaException as exc:
            raise TopicsError(f"topic {resource.name} could not be altered: {exc.args[0].str()}") from exc
    deadline = time.monotonic() + ANSWER_S
    while not _are_made(changes, topic_settings(client, by_topic)):
        if time.monotonic() > deadline:
            raise TopicsError(f"altered, but not shown by a broker after {ANSWER_S} s: {', '.join(by_topic)}")
        time.sleep(_POLL_S)


def delete_topics(client: AdminClient, topics: Collection[str], timeout_s: float) -> None:
    """Delete topics, and return when the controller has; a broker may list them for a moment longer.

    Raises KafkaException for one that cannot be deleted.
    """
    for deletion in client.delete_topics(list(topics), operation_timeout=timeout_s).values():
        deletion.result(timeout_s)


def _are_made(changes: Collection[Difference], configs: Mapping[str, Mapping[str, str]]) -> bool:
    return all(configs[one.topic][one.setting] == one.wanted for one in changes)


def _counts(found: Mapping[str, _Found]) -> Mapping[str, int]:
    return {name: one.partitions for name, one in found.items()}


def _new(topic: Topic, names: TopicNames, lanes: int, replication: int) -> NewTopic:
    durability = {"min.insync.replicas": "2"} if replication >= 3 else {}
    return NewTopic(
        names.of(topic),
        num_partitions=wanted_partitions(topic, lanes),
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
            # Another process was faster; whether it chose the same partition counts is checked afterwards.
            if exc.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicsError(f"topic {name} could not be created: {exc.args[0].str()}") from exc


def _topics(config: KafkaConfig, client: AdminClient, deadline: float) -> Mapping[str, _Found]:
    """The cluster's topics, without those that brokers report an error for."""
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
    """The topics with a partition that does not answer yet: its new leader does not know its role itself."""
    asked = {
        TopicPartition(name, number): OffsetSpec.latest()  # type: ignore[no-untyped-call]
        for name in (names.of(topic) for topic in TOPICS)
        for number in range(there[name].partitions)
    }
    answers = client.list_offsets(asked, request_timeout=10)
    return sorted({partition.topic for partition, answer in answers.items() if answer.exception() is not None})
