"""The process of triggers in a thread, on a real broker."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.cimpl import NewTopic
from joblog.services.roles import triggers as wiring
from joblog.services.settings.model import Settings
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import SettingsError
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.last_records import last_records
from joblog.streams.metrics import Meters

pytestmark = pytest.mark.broker

DEADLINE_S = 30
MODULE = """
from joblog.services import IncomingEvent, Job, trigger

@trigger(topic="{prefix}uploads")
def uploaded(event: IncomingEvent):
    if event.data == "poison":
        raise ValueError("poison in " + event.id)
    return Job("images.shrink", event.data)
"""


class Scene:
    """An installation, a topic of another service, and what came of its events."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames, lanes: int, module: str) -> None:
        self.kafka, self.names, self.lanes, self.module = kafka, names, lanes, module
        self.topic = f"{names.prefix}uploads"
        self.producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        self.admin = clients.admin(kafka)

    def create_topic(self) -> None:
        new = NewTopic(self.topic, num_partitions=1, replication_factor=1)
        self.admin.create_topics([new])[self.topic].result(DEADLINE_S)

    def send(self, *data: Any) -> None:
        for one in data:
            self.producer.produce(self.topic, msgspec.json.encode(one))
        assert self.producer.flush(DEADLINE_S) == 0

    @contextmanager
    def running(self, **chosen: Any) -> Iterator[tuple[Health, Meters, Future[None]]]:
        settings = Settings(
            topic_prefix=self.names.prefix,
            lanes=self.lanes,
            kafka={"bootstrap_servers": self.kafka.bootstrap_servers, "extra": {"log_level": "0"}},
            triggers={"modules": self.module, "attempts": 3, "delay_s": 0.05, **chosen},
        )
        health, meters, stop = Health("triggers"), Meters(), threading.Event()
        role = wiring.triggers(settings)(meters, health)
        with ThreadPoolExecutor(1) as executor:
            try:
                running = executor.submit(role.run, stop)
                yield health, meters, running
            finally:
                stop.set()
        running.result(DEADLINE_S)

    def created(self) -> list[Any]:
        """The arguments of the jobs that were asked for, in their order: all are of one queue, so in one lane."""
        with closing(clients.reader(self.kafka, f"{self.names.prefix}test")) as reader:
            found = last_records(reader, self.names.commands, 1_000, DEADLINE_S)
            return [msgspec.json.decode(one.value() or b"")["data"]["args"][0] for one in found]

    def parked(self) -> list[dict[str, str]]:
        with closing(clients.reader(self.kafka, f"{self.names.prefix}test")) as reader:
            found = last_records(reader, self.names.deadletters, 1_000, DEADLINE_S)
            return [{name: text.decode() for name, text in one.headers() or []} for one in found]


@pytest.fixture
def scene(
    kafka: KafkaConfig,
    topics: TopicNames,
    lanes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    delete_topics: Callable[[list[str]], None],
) -> Iterator[Scene]:
    module = f"triggers_{topics.prefix.strip('.').replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(MODULE.format(prefix=topics.prefix))
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Scene(kafka, topics, lanes, module)
    yield made
    sys.modules.pop(module, None)
    if made.topic in made.admin.list_topics(timeout=DEADLINE_S).topics:
        delete_topics([made.topic])


def sample(meters: Meters, name: str, **labels: str) -> float | None:
    return meters.registry.get_sample_value(name, labels)


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
    assert said["joblog-reason"].startswith(f"{name}: ValueError: poison in {place}\n")
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
    from confluent_kafka.cimpl import NewPartitions  # noqa: PLC0415 - as the admin client has it

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


def test_a_compressed_topic_that_cannot_be_read_is_told_with_its_fix(scene: Scene, wait_until: Any) -> None:
    scene.create_topic()
    scene.producer = Producer({"bootstrap.servers": scene.kafka.bootstrap_servers, "compression.type": "lz4"})
    scene.send("a" * 1_000)
    with scene.running() as (health, _, _running):
        wait_until(lambda: "cramjam" in health.reason, DEADLINE_S, "the reason")
        assert not health.ready


def test_credentials_that_faust_cannot_use_are_refused() -> None:
    from joblog.streams.triggers.intake import credentials  # noqa: PLC0415

    with pytest.raises(SettingsError, match="triggers cannot use sasl_mechanism GSSAPI"):
        credentials({"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI"})
    found = credentials(
        {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "u",
            "sasl.password": "p",
        }
    )
    assert (found.username, found.password, found.mechanism.value) == ("u", "p", "SCRAM-SHA-512")
    assert (found.protocol.value, found.ssl_context.check_hostname) == ("SASL_SSL", True)
    assert credentials({}) is None
