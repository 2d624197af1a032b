"""Events of other services while processes of triggers are killed in turns: each makes its jobs once."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, Producer, TopicPartition
from confluent_kafka.cimpl import NewTopic
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.last_records import last_records

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(400)]

ROUNDS = 10
#: Of a round: events in each of the three forms, broken records, and events that are sent twice.
EACH, BROKEN, TWICE = 60, 20, 20
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


@pytest.fixture
def sender(kafka: KafkaConfig, prefix: str, delete_topics: Callable[[list[str]], None]) -> Iterator[Sender]:
    topic = f"{prefix}uploads"
    client = clients.admin(kafka)
    client.create_topics([NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1)])[topic].result(20)
    yield Sender(kafka, topic)
    delete_topics([topic])


def deadletters(kafka: KafkaConfig, names: TopicNames) -> dict[Place, bytes]:
    with closing(clients.reader(kafka, f"{names.prefix}letters")) as reader:
        found = {}
        for record in last_records(reader, names.deadletters, 10_000, 30):
            headers = {name: text.decode() for name, text in record.headers() or []}
            assert headers["joblog-topic"] == f"{names.prefix}uploads"
            assert headers["joblog-reason-code"] in {"undecodable", "invalid_data"}
            found[int(headers["joblog-partition"]), int(headers["joblog-offset"])] = record.value() or b""
        return found


def test_each_event_makes_its_jobs_once_while_processes_are_killed_in_turns(
    installation: Any, sender: Sender, kafka: KafkaConfig, names: TopicNames, wait_until: Any
) -> None:
    (installation.home / "acceptance_triggers.py").write_text(MODULE)
    installation.extra = {"JOBLOG_TRIGGERS__MODULES": "acceptance_triggers", "JOBLOG_LOGS__LEVEL": "INFO"}
    roles = ["triggers-1", "triggers-2"]
    for role in ("elector-a", *roles):
        installation.start(role)
    log = Log(kafka, names, installation.lanes)
    with closing(log.reader):
        lasted = []
        for role in roles:
            wait_until(lambda: joined(installation, role), START_S, f"{role} in the group")  # noqa: B023
        for number in range(ROUNDS):
            victim = roles[number % 2]
            sender.round()
            due = len(sender.jobs)
            log.wait_for(lambda: len(log.created) > due - 150, START_S, "some jobs of the round")  # noqa: B023
            installation.kill(victim)
            lasted.append(log.wait_for(lambda: len(log.created) == due, RECOVERED_S, "all jobs of the round"))  # noqa: B023
            began = joined(installation, victim)
            installation.start(victim)
            wait_until(lambda: joined(installation, victim) > began, START_S, f"{victim} in the group again")  # noqa: B023
    assert installation.kills == {"triggers-1": 5, "triggers-2": 5}
    assert sender.sent >= 2_000
    assert log.created.keys() == sender.jobs
    assert [ids for ids in log.created.values() if len(ids) != 1] == []
    assert len(installation.events()) == len(sender.jobs)
    wait_until(lambda: deadletters(kafka, names) == sender.broken, 15, "all broken records in the dead letters")
    assert len(sender.broken) == ROUNDS * BROKEN
    print(f"seconds from a kill to all jobs: {[round(one, 1) for one in lasted]}")


def joined(installation: Any, role: str) -> int:
    """How often the process has got partitions, by its log."""
    return int((installation.home / f"{role}.log").read_text().count("triggers.assigned"))
