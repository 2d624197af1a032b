"""The process of triggers on a real broker: what becomes of events, offsets and topics."""

from typing import Any

import msgspec
import pytest
from confluent_kafka.cimpl import NewPartitions
from joblog.streams.errors import SettingsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.faust_credentials import credentials

from tests.support.trigger_scene import DEADLINE_S, Scene, sample

pytestmark = pytest.mark.broker


def test_a_function_that_raises_is_called_again_then_parked_and_its_partition_goes_on(
    scene: Scene, wait_until: Any
) -> None:
    scene.create_topic()
    scene.send("a", "poison", "b")
    with scene.running() as (health, meters, _):
        wait_until(lambda: scene.created() == ["a", "b"], DEADLINE_S, "the jobs of the healthy events")
        wait_until(lambda: health.ready, DEADLINE_S, "readiness")
        name = f"{scene.module}.uploaded"
        assert sample(meters, "joblog_trigger_errors_total", trigger=name) == 3
        assert sample(meters, "joblog_trigger_jobs_total", trigger=name) == 2
        assert sample(meters, "joblog_trigger_events_total", topic=scene.topic) == 3
        lag = {"topic": scene.topic, "partition": "0"}
        wait_until(lambda: sample(meters, "joblog_trigger_lag_records", **lag) == 0, DEADLINE_S, "no lag")
    (said,) = scene.parked()
    place = f"{scene.topic}/0/1"
    assert (said["joblog-reason-code"], said["joblog-topic"], said["joblog-offset"]) == (
        "function_raised", scene.topic, "1",
    )  # fmt: skip
    assert said["joblog-reason"].startswith(f"{name}: ValueError: poison in {place}@")
    assert "raise ValueError" in said["joblog-reason"]


def test_what_is_handled_is_committed_when_the_process_stops(scene: Scene, wait_until: Any) -> None:
    scene.create_topic()
    for round_, data in enumerate(("a", "b")):
        scene.send(data)
        with scene.running() as (_, meters, _running):
            wait_until(lambda: len(scene.created()) > round_, DEADLINE_S, "the job")  # noqa: B023
            wait_until(
                lambda: sample(meters, "joblog_trigger_events_total", topic=scene.topic) == 1,
                DEADLINE_S,
                "one event",
            )
    assert scene.created() == ["a", "b"]


def test_a_topic_that_is_not_there_is_waited_for_visibly_and_read_when_it_appears(
    scene: Scene, wait_until: Any
) -> None:
    with scene.running() as (health, _, _running):
        wait_until(lambda: "waiting for topics" in health.reason, DEADLINE_S, "the reason")
        assert scene.topic in health.reason
        assert (health.ready, health.alive) == (False, True)
        scene.create_topic()
        scene.send("a")
        wait_until(lambda: scene.created() == ["a"], DEADLINE_S, "the job")
        wait_until(lambda: health.ready, DEADLINE_S, "readiness")


def test_a_partition_that_is_added_is_read(scene: Scene, wait_until: Any) -> None:
    scene.create_topic()
    with scene.running() as (health, _, _running):
        wait_until(lambda: health.ready, DEADLINE_S, "readiness")
        scene.admin.create_partitions([NewPartitions(scene.topic, 2)])[scene.topic].result(DEADLINE_S)
        wait_until(
            lambda: len(scene.admin.list_topics(timeout=5).topics[scene.topic].partitions) == 2, DEADLINE_S, "two"
        )
        scene.producer.produce(scene.topic, b'"second"', partition=1)
        assert scene.producer.flush(DEADLINE_S) == 0
        wait_until(lambda: scene.created() == ["second"], DEADLINE_S, "the job")


def test_events_of_an_aborted_transaction_are_not_read(scene: Scene, wait_until: Any) -> None:
    scene.create_topic()
    producer = clients.transactional_producer(scene.kafka, f"{scene.names.prefix}tx")
    producer.init_transactions(DEADLINE_S)
    for data, ends in (("no", producer.abort_transaction), ("yes", producer.commit_transaction)) * 2:
        producer.begin_transaction()
        producer.produce(scene.topic, msgspec.json.encode(data))
        producer.flush(DEADLINE_S)
        ends(DEADLINE_S)
    with scene.running() as (_, meters, _running):
        wait_until(lambda: scene.created() == ["yes", "yes"], DEADLINE_S, "the jobs")
    scene.send("after")
    with scene.running() as (_, meters, _running):
        wait_until(lambda: scene.created() == ["yes", "yes", "after"], DEADLINE_S, "the job")
        assert sample(meters, "joblog_trigger_events_total", topic=scene.topic) == 1


def test_a_new_group_may_begin_at_the_end_and_loses_nothing_from_then_on(scene: Scene, wait_until: Any) -> None:
    scene.create_topic()
    scene.send("old")
    with scene.running(start="latest") as (health, _, _running):
        wait_until(lambda: health.ready, DEADLINE_S, "readiness")
    scene.send("while nobody runs")
    with scene.running(start="latest") as (_, _meters, _running):
        wait_until(lambda: scene.created() == ["while nobody runs"], DEADLINE_S, "the job")


def test_credentials_that_faust_cannot_use_are_refused() -> None:
    with pytest.raises(SettingsError, match="triggers cannot use sasl_mechanism GSSAPI"):
        credentials({"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI"}, "triggers")
    with pytest.raises(SettingsError, match=r"certificates of kafka\.ssl_.*No such file"):
        credentials({"security.protocol": "SSL", "ssl.ca.location": "/nowhere.pem"}, "triggers")
    found = credentials(
        {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "u",
            "sasl.password": "p",
        },
        "triggers",
    )
    assert (found.username, found.password, found.mechanism.value) == ("u", "p", "SCRAM-SHA-512")
    assert (found.protocol.value, found.ssl_context.check_hostname) == ("SASL_SSL", True)
    plain = credentials({"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}, "triggers")
    assert plain.protocol.value == "SASL_PLAINTEXT"
    assert credentials({}, "triggers") is None
