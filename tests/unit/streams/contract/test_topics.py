from datetime import timedelta

import pytest
from joblog.streams.contract.topics import (
    ASSIGNMENT_PARTITIONS,
    DELAY_TIERS,
    EVENTS,
    STATE,
    TOPICS,
    Topic,
    TopicNames,
)

NAMES = TopicNames("p.")


def test_names_have_the_prefix_of_the_installation() -> None:
    assert [NAMES.commands, NAMES.reports, NAMES.events, NAMES.state, NAMES.assignments, NAMES.deadletters] == [
        "p.commands",
        "p.reports",
        "p.events",
        "p.state",
        "p.assignments",
        "p.deadletters",
    ]
    assert NAMES.delay("1m") == "p.delay.1m"
    assert TopicNames().events == "joblog.events"


def test_every_name_is_that_of_a_topic_and_no_topic_is_there_twice() -> None:
    names = [NAMES.of(topic) for topic in TOPICS]
    assert len(set(names)) == len(names)
    assert {NAMES.delay(tier) for tier in DELAY_TIERS} <= set(names)
    assert {getattr(NAMES, name) for name, one in vars(TopicNames).items() if isinstance(one, property)} <= set(names)


def test_the_public_topics_are_commands_and_events() -> None:
    assert {topic.name for topic in TOPICS if topic.public} == {"commands", "events"}


def test_events_are_kept_for_ever_and_state_is_compacted() -> None:
    assert EVENTS.configuration()["retention.ms"] == "-1"
    assert EVENTS.configuration()["cleanup.policy"] == "delete"
    assert STATE.configuration()["cleanup.policy"] == "compact"
    assert "retention.ms" not in STATE.configuration()


@pytest.mark.parametrize("tier", DELAY_TIERS)
def test_a_delay_topic_keeps_its_records_two_weeks_longer_than_they_wait(tier: str) -> None:
    (topic,) = (topic for topic in TOPICS if topic.name == f"delay.{tier}")
    kept = timedelta(milliseconds=int(topic.configuration()["retention.ms"]))
    assert kept == DELAY_TIERS[tier] + timedelta(days=14)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_topic_tells_time_by_the_broker_and_takes_any_record_that_is_written(topic: Topic) -> None:
    settings = topic.configuration()
    assert settings["message.timestamp.type"] == "LogAppendTime"
    assert int(settings["max.message.bytes"]) > 2_000_000
    assert all(isinstance(value, str) for value in settings.values())


def test_all_topics_have_a_partition_for_each_lane_but_those_that_workers_relays_and_clients_read() -> None:
    assert {topic.name: topic.partitions for topic in TOPICS if topic.partitions} == {
        "assignments": ASSIGNMENT_PARTITIONS,
        "outbox": 1,
        "queues": 1,
    }


def test_settings_of_its_own_win() -> None:
    topic = Topic("x", "k", "w", "r", "p", timedelta(days=1), config={"retention.ms": "5", "segment.ms": "6"})
    assert topic.configuration()["retention.ms"] == "5"
    assert topic.configuration()["segment.ms"] == "6"


def test_a_topic_says_who_writes_and_reads_it_and_by_which_key() -> None:
    assert all(topic.key and topic.written_by and topic.read_by and topic.purpose for topic in TOPICS)
