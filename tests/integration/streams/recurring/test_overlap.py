"""Overlap on a real broker: whether the job before has ended is read from `events`, which the test writes."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.services.client.client import Client
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.recurring import Overlap, Progress
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig, reader
from joblog.streams.kafka.last_records import last_records
from joblog.streams.metrics import Meters
from joblog.streams.recurring.jobs import Installation
from joblog.streams.recurring.process import Recurring
from joblog.streams.recurring.sender import Record, Sender
from msgspec import json

pytestmark = pytest.mark.broker


@pytest.fixture
def client(kafka: KafkaConfig, topics: TopicNames, lanes: int) -> Iterator[Client]:
    """A client of an installation whose recurring process runs."""
    stop = threading.Event()
    process = Recurring(kafka, topics, Installation(lanes, {}, {}), meters=Meters(), health=Health("recurring"))
    thread = threading.Thread(target=process.run, args=(stop,))
    thread.start()
    with Client(kafka, topics, lanes) as made:
        yield made
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def progress_of(client: Client) -> Progress:
    return client.recurring.get("a").progress or Progress(through=datetime(2000, 1, 1, tzinfo=UTC))


def commands(kafka: KafkaConfig, topics: TopicNames) -> list[Any]:
    consumer = reader(kafka, f"{topics.prefix}look")
    try:
        return [json.decode(record.value() or b"") for record in last_records(consumer, topics.commands, 1_000, 20)]
    finally:
        consumer.close()


def event(kafka: KafkaConfig, topics: TopicNames, job_id: str, kind: str) -> None:
    sender = Sender(kafka, f"{topics.prefix}events")
    value = json.encode({"specversion": "1.0", "id": "1", "source": "/", "type": kind, "subject": job_id, "data": {}})
    sender.send([Record(topics.events, lane_of_job(job_id), job_id, value)])
    sender.close()


def test_skip_waits_for_the_end_of_the_job_before(
    client: Client, kafka: KafkaConfig, topics: TopicNames, wait_until: Callable[..., Any]
) -> None:
    client.recurring.add_or_update("a", "t", timedelta(seconds=1), overlap=Overlap.SKIP)
    first = wait_until(lambda: progress_of(client).last_job_id, 30, "the first job")
    event(kafka, topics, first, "job.enqueued")
    wait_until(lambda: progress_of(client).skipped_for == "overlap", 20, "an occurrence that is left out")
    assert progress_of(client).last_job_id == first
    event(kafka, topics, first, "job.succeeded")
    wait_until(lambda: progress_of(client).last_job_id != first, 20, "the second job")


def test_replace_deletes_the_job_before(
    client: Client, kafka: KafkaConfig, topics: TopicNames, wait_until: Callable[..., Any]
) -> None:
    client.recurring.add_or_update("a", "t", timedelta(seconds=1), overlap=Overlap.REPLACE)
    first = wait_until(lambda: progress_of(client).last_job_id, 30, "the first job")
    event(kafka, topics, first, "job.enqueued")
    wait_until(lambda: progress_of(client).last_job_id != first, 20, "the second job")
    deleted = [one["subject"] for one in commands(kafka, topics) if one["type"] == "job.delete"]
    assert first in deleted
