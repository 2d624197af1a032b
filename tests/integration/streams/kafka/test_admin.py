from collections.abc import Mapping

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from joblog.streams.contract.topics import ASSIGNMENT_PARTITIONS, REPORTS, TOPICS, TopicNames
from joblog.streams.errors import BrokersAway, TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.admin import alter_topics, check_topics, create_topics, topic_differences
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.topic_rules import Difference

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
        with pytest.raises(TopicsError, match=r"have 2 partitions, not 3: set JOBLOG_LANES=2"):
            function(kafka, topics, lanes + 1)


def test_missing_topics_are_named(kafka: KafkaConfig, names: TopicNames, lanes: int) -> None:
    with pytest.raises(TopicsError, match=f"missing: {names.commands}, {names.reports}.*`joblog topics create`"):
        check_topics(kafka, names, lanes)


def test_settings_that_differ_are_found_and_altered_and_longer_retention_is_left_alone(
    kafka: KafkaConfig, topics: TopicNames, lanes: int
) -> None:
    assert topic_differences(kafka, topics) == []
    changed = [
        Difference(topics.commands, "retention.ms", "", "86400000"),
        Difference(topics.reports, "retention.ms", "", "3600000"),
        Difference(topics.deadletters, "retention.ms", "", "-1"),
        Difference(topics.state, "cleanup.policy", "", "delete"),
    ]
    alter_topics(kafka, changed)
    create_topics(kafka, topics, lanes)  # which leaves existing settings alone
    differences = topic_differences(kafka, topics)
    assert {(one.topic, one.setting, one.found, one.wanted) for one in differences} == {
        (topics.commands, "retention.ms", "86400000", "1209600000"),
        (topics.reports, "retention.ms", "3600000", "1209600000"),
        (topics.state, "cleanup.policy", "delete", "compact"),
    }
    alter_topics(kafka, differences)
    assert topic_differences(kafka, topics) == []
    client = clients.admin(kafka)
    assert settings(client, topics.deadletters)["retention.ms"] == "-1"
    assert REPORTS.configuration().items() <= settings(client, topics.reports).items()


def test_reports_are_to_be_kept_as_long_as_commands_even_if_those_are_kept_longer_than_needed(
    kafka: KafkaConfig, topics: TopicNames
) -> None:
    alter_topics(kafka, [Difference(topics.commands, "retention.ms", "", "2592000000")])
    (short,) = topic_differences(kafka, topics)
    assert short == (topics.reports, "retention.ms", "1209600000", "2592000000")
    alter_topics(kafka, [short])
    assert topic_differences(kafka, topics) == []


def test_a_setting_that_the_broker_refuses_is_an_error_with_the_topic(kafka: KafkaConfig, topics: TopicNames) -> None:
    with pytest.raises(TopicsError, match=rf"{topics.reports} could not be altered: .*retention"):
        alter_topics(kafka, [Difference(topics.reports, "retention.ms", "", "long")])


def test_more_copies_than_brokers_are_refused(kafka: KafkaConfig, names: TopicNames, lanes: int) -> None:
    with pytest.raises(TopicsError, match=r"could not be created: .*replication factor"):
        create_topics(kafka, names, lanes, replication=3)


def test_brokers_that_do_not_answer_are_named(names: TopicNames, lanes: int) -> None:
    with pytest.raises(BrokersAway, match=r"no broker answers at 127\.0\.0\.1:9: .*bootstrap_servers"):
        create_topics(KafkaConfig("127.0.0.1:9", {"log_level": "0"}), names, lanes, timeout_s=1)
