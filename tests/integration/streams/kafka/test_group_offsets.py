import time

import pytest
from confluent_kafka import KafkaException, TopicPartition
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import SESSION_TIMEOUT_S, KafkaConfig
from joblog.streams.kafka.group_offsets import commit_offsets, committed_offsets

pytestmark = pytest.mark.broker

NO_BROKER = KafkaConfig("127.0.0.1:1")


def test_what_was_committed_is_found_with_its_metadata(kafka: KafkaConfig, topics: TopicNames) -> None:
    group, places = f"{topics.prefix}readers", [TopicPartition(topics.commands, lane) for lane in range(2)]
    assert all(one.offset < 0 for one in committed_offsets(kafka, group, places, 10))
    for text in ("first", "second"):
        commit_offsets(kafka, group, [TopicPartition(topics.commands, 1, 7, text)])
    lane_0, lane_1 = committed_offsets(kafka, group, places, 10)
    assert (lane_0.offset < 0, lane_1.offset, lane_1.metadata) == (True, 7, "second")


def test_without_a_broker_both_raise_in_time() -> None:
    place, began = TopicPartition("t", 0, 0), time.monotonic()
    with pytest.raises(KafkaException):
        committed_offsets(NO_BROKER, "g", [place], 0.5)
    with pytest.raises(KafkaException):
        commit_offsets(NO_BROKER, "g", [place])
    assert time.monotonic() - began < SESSION_TIMEOUT_S + 10
