"""Records and topics that other services may have, on a real broker."""

import asyncio
import json
import time
from operator import itemgetter
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.cimpl import NewPartitions
from joblog.streams.kafka import clients
from joblog.streams.kafka.group_offsets import commit_offsets
from joblog.streams.triggers.handling import WAITING_FOR_TOPICS

from tests.support.odd_headers import NotUtf8, send_with_header
from tests.support.trigger_scene import DEADLINE_S, Scene, sample

pytestmark = pytest.mark.broker


def test_the_name_of_a_header_that_is_not_utf8_is_parked_and_the_partition_goes_on(
    scene: Scene, wait_until: Any
) -> None:
    scene.create_topic()
    scene.send("a")
    odd = ((None, b'"odd"'), (None, b'"odd, too"'))
    asyncio.run(send_with_header(scene.kafka.bootstrap_servers, scene.topic, 0, NotUtf8("?name"), *odd))
    scene.send("b")
    with scene.running():
        wait_until(lambda: scene.created() == ["a", "b"], DEADLINE_S, "the jobs of the readable events")
    first, second = sorted(scene.parked(), key=itemgetter("joblog-offset"))
    assert (first["joblog-offset"], second["joblog-offset"], first["own"]) == ("1", "2", "kept")
    assert first["joblog-reason-code"] == "undecodable"
    assert first["joblog-reason"].startswith("the name of a header is not UTF-8: '\\udcffname'")


def test_compressed_records_are_read(scene: Scene, wait_until: Any) -> None:
    scene.create_topic()
    sent = []
    for codec in ("lz4", "zstd", "snappy", "gzip"):
        scene.producer = Producer({"bootstrap.servers": scene.kafka.bootstrap_servers, "compression.type": codec})
        batch = [f"{codec} {number} " * 100 for number in range(20)]
        scene.send(*batch)
        sent += batch
    with scene.running():
        wait_until(lambda: scene.created() == sent, DEADLINE_S, "the jobs")


def test_what_is_handled_is_committed_behind_gaps_of_offsets(scene: Scene, wait_until: Any) -> None:
    scene.create_topic()
    scene.send("first")
    producer = clients.transactional_producer(scene.kafka, f"{scene.names.prefix}tx")
    producer.init_transactions(DEADLINE_S)
    for ends in (producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        for number in range(5):
            producer.produce(scene.topic, json.dumps(f"{ends.__name__} {number}"))
        producer.flush(DEADLINE_S)
        ends(DEADLINE_S)
    wanted = ["first", *(f"commit_transaction {number}" for number in range(5))]
    lag = {"topic": scene.topic, "partition": "0"}
    with scene.running() as (_, meters, _running):
        wait_until(lambda: scene.created() == wanted, DEADLINE_S, "the jobs")
        wait_until(lambda: sample(meters, "joblog_trigger_lag_records", **lag) == 0, DEADLINE_S, "no lag")
    scene.send("last")
    with scene.running() as (_, meters, _running):
        wait_until(lambda: scene.created() == [*wanted, "last"], DEADLINE_S, "the job")
        assert sample(meters, "joblog_trigger_events_total", topic=scene.topic) == 1


def test_tombstones_are_passed_over(scene: Scene, wait_until: Any) -> None:
    scene.create_topic(**{"cleanup.policy": "compact"})
    for value in (b'"a"', None, b'"b"', None):
        scene.producer.produce(scene.topic, value, key=b"k")
    scene.flush()
    with scene.running() as (_, meters, _running):
        wait_until(lambda: scene.created() == ["a", "b"], DEADLINE_S, "the jobs")
        wait_until(
            lambda: sample(meters, "joblog_trigger_events_total", topic=scene.topic) == 4, DEADLINE_S, "all records"
        )
    assert scene.parked() == []


def test_records_of_other_services_may_be_larger_than_any_of_ours(scene: Scene, wait_until: Any) -> None:
    scene.create_topic(**{"max.message.bytes": "20000000"})
    scene.producer = Producer({"bootstrap.servers": scene.kafka.bootstrap_servers, "message.max.bytes": 20_000_000})
    scene.use(
        "from joblog.services import Job, trigger\n"
        "@trigger(topic='{topic}')\n"
        "def uploaded(event): return Job('images.shrink', len(event.data)) if event.data[0] == 'a' else None\n"
    )
    scene.send("a" * 9_000_000)
    scene.producer.produce(scene.topic, b"{" + b"x" * 9_000_000)
    scene.send("ab")
    with scene.running():
        wait_until(lambda: scene.created() == [9_000_000, 2], DEADLINE_S, "the jobs")
    (said,) = scene.parked()
    assert said["joblog-offset"] == "1"


def test_a_topic_that_is_created_again_is_read_from_its_beginning(scene: Scene, wait_until: Any) -> None:
    scene.create_topic()
    scene.send("a", "b")
    with scene.running() as (health, _, _running):
        wait_until(lambda: scene.created() == ["a", "b"], DEADLINE_S, "the jobs of the former topic")
        scene.admin.delete_topics([scene.topic])[scene.topic].result(DEADLINE_S)
        create_again(scene)
        # More than the former topic had, so that its offsets are places in this one.
        scene.send("c", "d", "e", "f")
        wait_until(lambda: sorted(scene.created())[-4:] == ["c", "d", "e", "f"], DEADLINE_S, "the jobs of the other")
        wait_until(lambda: health.ready, DEADLINE_S, "readiness")
    assert sorted(set(scene.created())) == ["a", "b", "c", "d", "e", "f"]


def test_an_offset_of_a_former_topic_of_the_same_name_is_no_place_in_this_one(scene: Scene, wait_until: Any) -> None:
    scene.create_topic()
    scene.send("a", "b", "c")
    # As a process commits that has not noticed yet.
    former = TopicPartition(scene.topic, 0, 2, "another id")
    commit_offsets(scene.kafka, f"{scene.names.prefix}triggers", [former])
    with scene.running():
        wait_until(lambda: scene.created() == ["a", "b", "c"], DEADLINE_S, "the jobs")


def test_an_offset_that_an_operator_has_set_is_kept(scene: Scene, wait_until: Any) -> None:
    scene.create_topic()
    scene.send("a", "b", "c")
    commit_offsets(scene.kafka, f"{scene.names.prefix}triggers", [TopicPartition(scene.topic, 0, 2)])
    with scene.running():
        wait_until(lambda: scene.created() == ["c"], DEADLINE_S, "the job")


def test_a_topic_that_ends_before_the_place_of_the_group_is_read_again_and_nothing_new_is_left_out(
    scene: Scene, wait_until: Any
) -> None:
    """As when brokers lost the end of it, in an election of a leader that was behind."""
    scene.create_topic()
    scene.send("a", "b", "c")
    commit_offsets(scene.kafka, f"{scene.names.prefix}triggers", [TopicPartition(scene.topic, 0, 100)])
    with scene.running():
        wait_until(lambda: scene.created() == ["a", "b", "c"], DEADLINE_S, "the jobs")
    scene.send("d")
    with scene.running() as (_, meters, _running):
        wait_until(lambda: scene.created() == ["a", "b", "c", "d"], DEADLINE_S, "the job")
        assert sample(meters, "joblog_trigger_events_total", topic=scene.topic) == 1, "the earlier place is committed"


def create_again(scene: Scene) -> None:
    """As soon as the broker has forgotten the former topic."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            scene.create_topic()
        except KafkaException:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


def test_a_group_that_lost_its_offsets_repeats_the_same_jobs(scene: Scene, wait_until: Any) -> None:
    scene.create_topic()
    scene.send("a", "b")
    with scene.running():
        wait_until(lambda: scene.created() == ["a", "b"], DEADLINE_S, "the jobs")
    group = f"{scene.names.prefix}triggers"
    scene.admin.delete_consumer_groups([group])[group].result(DEADLINE_S)
    with scene.running():
        wait_until(lambda: scene.created() == ["a", "b", "a", "b"], DEADLINE_S, "the jobs again")
    first, second, *again = scene.created_ids()
    assert again == [first, second]
    assert first != second


def test_a_group_has_its_place_in_a_topic_that_appeared_while_it_ran_though_there_was_no_event(
    scene: Scene, wait_until: Any
) -> None:
    with scene.running(start="latest") as (health, _, _running):
        wait_until(lambda: health.reason.startswith(WAITING_FOR_TOPICS), DEADLINE_S, "the process to look")
        scene.create_topic()
        wait_until(lambda: health.ready, DEADLINE_S, "readiness")
    scene.send("while nobody runs")
    with scene.running(start="latest"):
        wait_until(lambda: scene.created() == ["while nobody runs"], DEADLINE_S, "the job")


def test_latest_holds_for_a_new_group_and_not_for_partitions_that_were_added_since(
    scene: Scene, wait_until: Any
) -> None:
    scene.create_topic()
    with scene.running(start="latest") as (health, _, _running):
        wait_until(lambda: health.ready, DEADLINE_S, "readiness")
    scene.admin.create_partitions([NewPartitions(scene.topic, 2)])[scene.topic].result(DEADLINE_S)
    wait_until(lambda: len(scene.admin.list_topics(timeout=5).topics[scene.topic].partitions) == 2, DEADLINE_S, "two")
    scene.send("while nobody runs", partition=1)
    with scene.running(start="latest"):
        wait_until(lambda: scene.created() == ["while nobody runs"], DEADLINE_S, "the job")
