"""Events of other services while processes of triggers and the broker are killed: each makes its jobs once."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, Producer, TopicPartition
from confluent_kafka.cimpl import NewTopic
from joblog.services.embedded.stack import EmbeddedStack
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.group_offsets import committed_offsets
from joblog.streams.kafka.last_records import last_records, watermarks

from tests.support.pausing import pause, resume

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(400)]

ROLES = ("triggers-1", "triggers-2")
#: Who is killed in which round: one while the other goes on, ten times; then both, and the broker.
KILLS = (*(ROLES[:1], ROLES[1:]) * 5, ROLES)
#: Of a round: events in each of the three forms, broken records, and events that are sent twice.
EACH, BROKEN, TWICE = 60, 10, 10
PARTITIONS = 4
#: So long after a kill everything that was sent before has become jobs.
RECOVERED_S = 15
START_S = 40

MODULE = """
import os, time
from joblog.services import IncomingEvent, Job, trigger

TOPIC = os.environ["JOBLOG_TOPIC_PREFIX"] + "uploads"

@trigger(topic=TOPIC)
def uploaded(event: IncomingEvent):
    time.sleep(0.005)
    number = event.data["number"]
    return [Job("ok", number, index) for index in range(2 if number % 5 == 0 else 1)]

@trigger(topic=TOPIC, type="image.uploaded", source="/other")
async def other(event):
    raise AssertionError("no event comes from there")
"""

Place = tuple[int, int]


class Sender:
    """A service that knows nothing of Joblog; keeps what has to follow from what it sent."""

    def __init__(self, kafka: KafkaConfig, topic: str) -> None:
        self.topic = topic
        new = NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1)
        admin = clients.admin(kafka)
        admin.create_topics([new])[topic].result(20)
        self.producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "acks": "all"})
        self.jobs: set[tuple[int, int]] = set()
        self.broken: dict[Place, bytes] = {}
        self.number = 0
        self.sent = 0

    def round(self) -> None:
        for place in range(EACH):
            self.structured(twice=place < TWICE // 2)
            self.binary(twice=place < TWICE // 2)
            self.send(json.dumps({"number": self.next()}).encode())
        for text in [b"{broken", b"\xff\xfe", b'{"specversion": "1.0", "id": "1"}', b'{"specversion": "7"}'] * (
            BROKEN // 4
        ):
            self.send(text, is_broken=True)
        assert self.producer.flush(20) == 0

    def structured(self, *, twice: bool) -> None:
        number = self.next()
        event = {"specversion": "1.0", "id": f"e-{number}", "source": "/shop", "type": "image.uploaded"}
        for _ in range(1 + twice):
            self.send(json.dumps({**event, "data": {"number": number}}).encode())

    def binary(self, *, twice: bool) -> None:
        number = self.next()
        headers = {"ce_specversion": "1.0", "ce_id": f"e-{number}", "ce_source": "/shop", "ce_type": "image.uploaded"}
        for _ in range(1 + twice):
            self.send(json.dumps({"number": number}).encode(), {**headers, "content-type": "application/json"})

    def next(self) -> int:
        self.number += 1
        self.jobs |= {(self.number, index) for index in range(2 if self.number % 5 == 0 else 1)}
        return self.number

    def send(self, value: bytes, headers: dict[str, str] | None = None, *, is_broken: bool = False) -> None:
        def on_delivery(error: KafkaError | None, message: Message) -> None:
            assert error is None
            if is_broken:
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                self.broken[partition, offset] = value

        self.sent += 1
        partition = self.sent % PARTITIONS
        self.producer.produce(self.topic, value, partition=partition, headers=headers, on_delivery=on_delivery)


class Log:
    """The jobs that the elector has created so far, by what the function was given."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames, lanes: int) -> None:
        self.reader = clients.reader(kafka, f"{names.prefix}test")
        self.reader.assign([TopicPartition(names.events, lane, 0) for lane in range(lanes)])
        self.created: dict[tuple[int, int], list[str]] = defaultdict(list)

    def look(self) -> None:
        for record in self.reader.consume(500, 0.05):
            if record.error() is None:
                event = json.loads(record.value() or b"")
                if event["type"] == "job.enqueued" and event["data"]["version"] == 1:
                    number, index = event["data"]["spec"]["args"]
                    self.created[number, index].append(event["subject"])

    def wait_for(self, condition: Callable[[], bool], timeout_s: float, what: str) -> float:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() < began + timeout_s, f"not within {timeout_s} s: {what}"
            self.look()
        return time.monotonic() - began


def deadletters(kafka: KafkaConfig, names: TopicNames) -> dict[Place, bytes]:
    with closing(clients.reader(kafka, f"{names.prefix}letters")) as reader:
        found = {}
        for record in last_records(reader, names.deadletters, 10_000, 30):
            headers = {name: text.decode() for name, text in record.headers() or []}
            assert headers["joblog-topic"] == f"{names.prefix}uploads"
            assert headers["joblog-reason-code"] in {"undecodable", "invalid_data"}
            found[int(headers["joblog-partition"]), int(headers["joblog-offset"])] = record.value() or b""
        return found


class Scene:
    """Two processes of triggers and an elector, what is sent to them, and what has come of it."""

    def __init__(self, installation: Any, wait_until: Any) -> None:
        self.installation, self.wait_until = installation, wait_until
        self.sender = Sender(installation.kafka, f"{installation.names.prefix}uploads")
        self.log = Log(installation.kafka, installation.names, installation.lanes)
        (installation.home / "acceptance_triggers.py").write_text(MODULE)
        installation.extra = {"JOBLOG_TRIGGERS__MODULES": "acceptance_triggers", "JOBLOG_LOGS__LEVEL": "INFO"}
        for role in ("elector-a", *ROLES):
            installation.start(role)
        for role in ROLES:
            wait_until(lambda: self.joined(role), START_S, f"{role} in the group")  # noqa: B023

    def round(self) -> None:
        """Send a round, and return when some of it has become jobs."""
        self.sender.round()
        self.log.wait_for(lambda: len(self.log.created) > len(self.sender.jobs) - 150, START_S, "some jobs")

    def recover(self, timeout_s: float = RECOVERED_S) -> float:
        """Wait until everything that was sent has become jobs; returns how long that took."""
        return self.log.wait_for(
            lambda: len(self.log.created) == len(self.sender.jobs), timeout_s, "all jobs of the round"
        )

    def joined(self, role: str) -> int:
        """How often the process has got partitions, by its log."""
        return int((self.installation.home / f"{role}.log").read_text().count("triggers.assigned"))

    @contextmanager
    def joining(self, *roles: str) -> Iterator[None]:
        """Within the block, these processes come to the group again."""
        began = {role: self.joined(role) for role in roles}
        yield
        for role in roles:
            self.wait_until(lambda: self.joined(role) > began[role], START_S, f"{role} in the group again")  # noqa: B023

    def check(self) -> None:
        """Each event made its jobs once, each broken record one dead letter, and everything is committed."""
        kafka, names, created = self.installation.kafka, self.installation.names, self.log.created
        assert created.keys() == self.sender.jobs
        assert [ids for ids in created.values() if len(ids) != 1] == []
        assert len(self.installation.events()) == len(self.sender.jobs)
        self.wait_until(lambda: deadletters(kafka, names) == self.sender.broken, 15, "all broken records parked")
        self.wait_until(lambda: left(kafka, names, self.sender.topic) == [0] * PARTITIONS, 15, "all offsets")


def test_each_event_makes_its_jobs_once_while_processes_and_the_broker_are_killed(
    own_stack: EmbeddedStack, install: Any, wait_until: Any
) -> None:
    kafka = KafkaConfig(own_stack.addresses.bootstrap_servers)
    installation = install(kafka, own_stack.addresses.dsn)
    scene, lasted = Scene(installation, wait_until), []
    with closing(scene.log.reader):
        for number, victims in enumerate(KILLS, 1):
            scene.round()
            for role in victims:
                installation.kill(role)
            if len(victims) == 1:  # the other one goes on
                lasted.append(scene.recover())
            with scene.joining(*victims):
                for role in victims:
                    installation.start(role)
                if number == len(KILLS):
                    own_stack.kill_broker()
                    own_stack.start_broker()
            scene.recover(START_S)
    assert installation.kills == dict.fromkeys(ROLES, 6)
    assert scene.sender.sent >= 2_000
    scene.check()
    print(f"seconds from a kill to all jobs, by the other process: {[round(one, 1) for one in lasted]}")


def test_a_process_that_was_paused_beyond_its_session_loses_and_doubles_nothing(
    installation: Any, wait_until: Any
) -> None:
    scene = Scene(installation, wait_until)
    with closing(scene.log.reader):
        scene.round()
        pause(installation.roles[ROLES[0]])
        scene.recover()
        with scene.joining(*ROLES):
            resume(installation.roles[ROLES[0]])
            scene.round()
        scene.recover()
    scene.check()
    assert all(process.poll() is None for process in installation.roles.values())


def left(kafka: KafkaConfig, names: TopicNames, topic: str) -> list[int]:
    """How many records of each partition are not committed."""
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    committed = committed_offsets(kafka, f"{names.prefix}triggers", places, 15)
    with closing(clients.reader(kafka, f"{names.prefix}ends")) as reader:
        return [watermarks(reader, place)[1] - place.offset for place in committed]
