"""The process of triggers in a thread, on a real broker, with a topic of another service."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Final

import msgspec
from confluent_kafka import Producer
from confluent_kafka.cimpl import NewTopic
from joblog.services.roles import triggers as wiring
from joblog.services.settings.model import Settings
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.last_records import last_records
from joblog.streams.metrics import Meters

DEADLINE_S: Final = 30
MODULE: Final = """
from joblog.services import IncomingEvent, Job, trigger

@trigger(topic="{topic}")
def uploaded(event: IncomingEvent):
    if event.data == "poison":
        raise ValueError("poison in " + event.id)
    return Job("images.shrink", event.data)
"""


class Scene:
    """An installation, a topic of another service, and what came of its events."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames, lanes: int, directory: Path) -> None:
        self.kafka, self.names, self.lanes, self.directory = kafka, names, lanes, directory
        self.topic = f"{names.prefix}uploads"
        self.module = f"triggers_{names.prefix.strip('.').replace('-', '_')}"
        self.use(MODULE)
        self.producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        self.admin = clients.admin(kafka)

    def use(self, source: str) -> None:
        """Let the processes have these functions; {topic} is the topic of the other service."""
        (self.directory / f"{self.module}.py").write_text(source.replace("{topic}", self.topic))

    def create_topic(self, partitions: int = 1, **config: str) -> None:
        new = NewTopic(self.topic, num_partitions=partitions, replication_factor=1, config=config)
        self.admin.create_topics([new])[self.topic].result(DEADLINE_S)

    def send(self, *data: Any, partition: int = 0) -> None:
        for one in data:
            self.producer.produce(self.topic, msgspec.json.encode(one), partition=partition)
        self.flush()

    def flush(self) -> None:
        assert self.producer.flush(DEADLINE_S) == 0

    @contextmanager
    def running(self, **chosen: Any) -> Iterator[tuple[Health, Meters, Future[None]]]:
        settings = Settings(
            topic_prefix=self.names.prefix,
            lanes=self.lanes,
            kafka={"bootstrap_servers": self.kafka.bootstrap_servers, "extra": {"log_level": "0"}},
            triggers={"modules": self.module, "attempts": 3, "delay_s": 0.05, **chosen},
        )
        health, meters, stop = Health("triggers"), Meters(), Event()
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
        return [command["data"]["args"][0] for command in self.commands()]

    def created_ids(self) -> list[str]:
        return [command["data"]["job_id"] for command in self.commands()]

    def commands(self) -> list[Any]:
        with closing(clients.reader(self.kafka, f"{self.names.prefix}test")) as reader:
            found = last_records(reader, self.names.commands, 100_000, DEADLINE_S)
            return [msgspec.json.decode(one.value() or b"") for one in found]

    def parked(self) -> list[dict[str, str]]:
        with closing(clients.reader(self.kafka, f"{self.names.prefix}test")) as reader:
            found = last_records(reader, self.names.deadletters, 1_000, DEADLINE_S)
            return [{name: text.decode() for name, text in one.headers() or []} for one in found]


def sample(meters: Meters, name: str, **labels: str) -> float | None:
    return meters.registry.get_sample_value(name, labels)
