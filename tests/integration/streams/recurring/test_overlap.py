"""Overlap on a real broker: whether the job before has ended is read from `events`, which the test writes."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from joblog.services.client.client import Client
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.recurring import Definition, Overlap, Progress
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import KafkaConfig, reader
from joblog.streams.recurring.sender import Record, Sender
from msgspec import json

from tests.support.recurring_process import Clock, Scheduler, commands, occurrences, write_definition

pytestmark = pytest.mark.broker


class World:
    """A definition of each policy, which comes every second of a clock that the test sets."""

    def __init__(self, kafka: KafkaConfig, topics: TopicNames, lanes: int, wait_until: Any, client: Client) -> None:
        self.kafka, self.topics, self.lanes, self.wait_until, self.client = kafka, topics, lanes, wait_until, client
        self.start = datetime.now(UTC).replace(microsecond=0)
        self.clock = Clock(self.start)
        for policy in Overlap:
            made = Definition(id=policy, schedule="* * * * * *", task="t", starts_at=self.start, overlap=policy)
            write_definition(kafka, topics, lanes, made)

    def progress(self, policy: Overlap) -> Progress:
        return self.client.recurring.get(policy).progress or Progress(through=self.start)

    def step(self, second: int) -> None:
        """Let the occurrence of this second come, and wait until it was decided on for each policy."""
        self.clock.at = self.start + timedelta(seconds=second)

        def all_are_through() -> bool:
            rows = self.client.recurring.list()
            return all(row.progress is not None and row.progress.through == self.clock.at for row in rows)

        self.wait_until(all_are_through, 30, f"the decisions of second {second}")

    def last(self, policy: Overlap) -> str:
        """The last job's id."""
        found = self.progress(policy).last_job_id
        assert found is not None
        return found

    def event(self, kind: str, *policies: Overlap) -> None:
        """Let something happen to the last jobs of these policies, or of all."""
        sender = Sender(self.kafka, f"{self.topics.prefix}events")
        records = []
        for job_id in map(self.last, policies or Overlap):
            value = {"specversion": "1.0", "id": "1", "source": "/", "type": kind, "subject": job_id, "data": {}}
            records.append(Record(self.topics.events, lane_of_job(job_id), job_id, json.encode(value)))
        sender.send(records)
        sender.close()

    def created(self) -> dict[str, list[int]]:
        """The seconds whose jobs were created."""
        found = occurrences(self.kafka, self.topics)
        return {name: [(one - self.start).seconds for one in times] for name, times in found.items()}

    def deleted(self) -> list[str]:
        return [one["subject"] for one in commands(self.kafka, self.topics, "job.delete")]


def test_each_policy_does_what_it_says_while_the_job_before_runs_and_after_it(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, wait_until: Callable[..., Any]
) -> None:
    with Client(kafka, topics, lanes) as client:
        world = World(kafka, topics, lanes, wait_until, client)
        with Scheduler(kafka, topics, lanes, world.clock):
            world.step(1)
            world.event("job.enqueued")
            replaced = [world.last(Overlap.REPLACE)]
            world.step(2)
            replaced.append(world.last(Overlap.REPLACE))
            world.step(3)
            assert world.progress(Overlap.SKIP).skipped_for == "overlap"
            assert world.progress(Overlap.QUEUE).waiting == world.start + timedelta(seconds=3)
            assert world.created() == {
                Overlap.ALLOW: [1, 2, 3],
                Overlap.SKIP: [1],
                Overlap.QUEUE: [1],
                Overlap.REPLACE: [1, 2, 3],
            }
            assert world.deleted() == replaced
            world.event("job.succeeded")
            wait_until(lambda: world.created()[Overlap.QUEUE] == [1, 3], 20, "what waited")
            assert world.progress(Overlap.QUEUE).waiting is None
            world.step(4)
            assert world.progress(Overlap.QUEUE).waiting == world.clock.at
        # Another process finds out by itself that the job has ended, and what waits for that.
        with Scheduler(kafka, topics, lanes, world.clock):
            world.event("job.failed", Overlap.QUEUE)
            wait_until(lambda: world.created()[Overlap.QUEUE] == [1, 3, 4], 30, "what waited for another process")
    assert world.created() == {
        Overlap.ALLOW: [1, 2, 3, 4],
        Overlap.SKIP: [1, 4],
        Overlap.QUEUE: [1, 3, 4],
        Overlap.REPLACE: [1, 2, 3, 4],
    }
    assert world.deleted() == replaced, "a job that has ended is not deleted"


def test_the_end_of_a_job_is_seen_though_the_clock_of_its_process_is_ahead(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, wait_until: Callable[..., Any]
) -> None:
    with Client(kafka, topics, lanes) as client:
        world = World(kafka, topics, lanes, wait_until, client)
        with Scheduler(kafka, topics, lanes, world.clock):
            world.step(3600)
            first = world.last(Overlap.SKIP)
            world.event("job.succeeded")
        # The next owner looks for the end of a job that was created by the clock of the one before.
        with Scheduler(kafka, topics, lanes, world.clock):
            world.step(3601)
            assert world.last(Overlap.SKIP) != first


def test_a_definition_goes_on_whose_jobs_end_at_once(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, wait_until: Callable[..., Any]
) -> None:
    """The end of a job may be in the log before its creation is acknowledged to the recurring process."""
    stop = threading.Event()
    with Client(kafka, topics, lanes) as client:
        world = World(kafka, topics, lanes, wait_until, client)
        elector = threading.Thread(target=end_at_once, args=(kafka, topics, lanes, stop))
        elector.start()
        try:
            with Scheduler(kafka, topics, lanes, world.clock):
                for second in range(1, 7):
                    world.step(second)
        finally:
            stop.set()
            elector.join()
    assert world.created() == {policy: [1, 2, 3, 4, 5, 6] for policy in Overlap}
    assert not world.deleted()


def end_at_once(kafka: KafkaConfig, topics: TopicNames, lanes: int, stop: threading.Event) -> None:
    """Write the events of each job as soon as its command can be read."""
    consumer, sender = reader(kafka, f"{topics.prefix}fast"), Sender(kafka, f"{topics.prefix}fast")
    consumer.assign([TopicPartition(topics.commands, lane, 0) for lane in range(lanes)])
    while not stop.is_set():
        message = consumer.poll(0.01)
        if message is not None and message.error() is None:
            job_id = (message.key() or b"").decode()
            about = {"specversion": "1.0", "id": "1", "source": "/", "subject": job_id, "data": {}}
            values = [json.encode({**about, "type": kind}) for kind in ("job.enqueued", "job.succeeded")]
            sender.send([Record(topics.events, lane_of_job(job_id), job_id, value) for value in values])
    consumer.close()
    sender.close()
