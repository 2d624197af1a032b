from collections.abc import Mapping

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from joblog.streams.contract.topics import ASSIGNMENT_PARTITIONS, TOPICS, TopicNames
from joblog.streams.errors import BrokersAway, TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.admin import check_topics, create_topics
from joblog.streams.kafka.clients import KafkaConfig

pytestmark = pytest.mark.broker


def settings(client: AdminClient, topic: str) -> Mapping[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    entries = client.describe_configs([resource])[resource].result(30)
    return {name: entry.value for name, entry in entries.items()}


def test_topics_are_created_as_the_table_says(kafka: KafkaConfig, topics: TopicNames, lanes: int) -> None:
    client = clients.admin(kafka)
    there = client.list_topics(timeout=30).topics
    for topic in TOPICS:
        wanted = lanes if topic.partitions is None else topic.partitions
        assert len(there[topics.of(topic)].partitions) == wanted
        assert topic.configuration().items() <= settings(client, topics.of(topic)).items()
    assert len(there[topics.assignments].partitions) == ASSIGNMENT_PARTITIONS


def test_creating_topics_again_changes_nothing(kafka: KafkaConfig, topics: TopicNames, lanes: int) -> None:
    create_topics(kafka, topics, lanes)
    check_topics(kafka, topics, lanes)


def test_other_partitions_than_lanes_are_refused_and_the_fix_is_named(
    kafka: KafkaConfig, topics: TopicNames, lanes: int
) -> None:
    for function in (create_topics, check_topics):
        with pytest.raises(TopicsError, match=rf"{topics.commands} has 2 partitions, not 3.* set the lanes"):
            function(kafka, topics, lanes + 1)


def test_missing_topics_are_named(kafka: KafkaConfig, names: TopicNames, lanes: int) -> None:
    with pytest.raises(TopicsError, match=f"missing: {names.commands}, {names.reports}"):
        check_topics(kafka, names, lanes)


def test_more_copies_than_brokers_are_refused(kafka: KafkaConfig, names: TopicNames, lanes: int) -> None:
    with pytest.raises(TopicsError, match=r"could not be created: .*replication factor"):
        create_topics(kafka, names, lanes, replication=3)


def test_brokers_that_do_not_answer_are_named(names: TopicNames, lanes: int) -> None:
    with pytest.raises(BrokersAway, match=r"no broker answers at 127\.0\.0\.1:9: .*bootstrap_servers"):
        create_topics(KafkaConfig("127.0.0.1:9", {"log_level": "0"}), names, lanes, timeout_s=1)
