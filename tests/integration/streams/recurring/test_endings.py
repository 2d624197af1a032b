"""Whether jobs have ended, as the recurring process reads it from `events` beside the jobs of everybody else."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from joblog.streams.contract.ids import lane_of_job, new_job_id
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.last_records import watermarks
from joblog.streams.recurring import endings as module
from joblog.streams.recurring.endings import Endings
from joblog.streams.recurring.ends import Watched
from joblog.streams.recurring.sender import Record, Sender
from msgspec import json

pytestmark = pytest.mark.broker


@pytest.fixture
def endings(kafka: KafkaConfig, topics: TopicNames) -> Iterator[Endings]:
    made = Endings(kafka, topics.events, f"{topics.prefix}endings")
    yield made
    made.close()


@pytest.fixture
def sender(kafka: KafkaConfig, topics: TopicNames) -> Iterator[Sender]:
    made = Sender(kafka, f"{topics.prefix}events")
    yield made
    made.close()


def happens(sender: Sender, topics: TopicNames, job_id: str, *kinds: str) -> None:
    """Write events of a job."""
    about = {"specversion": "1.0", "id": "1", "source": "/", "subject": job_id, "data": {}}
    values = [json.encode({**about, "type": kind}) for kind in kinds]
    sender.send([Record(topics.events, lane_of_job(job_id), job_id, value) for value in values])


def job() -> str:
    return new_job_id(1, int(datetime.now(UTC).timestamp() * 1_000))


def runs(endings: Endings, sender: Sender, topics: TopicNames, wait_until: Callable[..., Any]) -> str:
    """A job that is known to run: its lane was read up to its end."""
    job_id = job()
    endings.watch({job_id: Watched(datetime.now(UTC))})
    happens(sender, topics, job_id, "job.enqueued")
    wait_until(lambda: endings.is_running(job_id), 30, "the job before")
    return job_id


def test_the_end_of_a_job_is_seen_that_came_before_the_job_was_watched(
    endings: Endings, sender: Sender, topics: TopicNames, wait_until: Callable[..., Any]
) -> None:
    """A job may take a millisecond, and the recurring process asks for it a tick after it has created it."""
    fast, before = job(), runs(endings, sender, topics, wait_until)
    created_at = datetime.now(UTC)
    happens(sender, topics, fast, "job.enqueued", "job.processing", "job.succeeded")
    happens(sender, topics, before, "job.succeeded")
    wait_until(lambda: endings.is_running(before) is False, 30, "the end of the job before")
    endings.watch({fast: Watched(created_at)})
    assert not endings.is_running(fast), "it may have ended already"
    wait_until(lambda: endings.is_running(fast) is False, 30, "the end of the fast job")


def test_a_job_that_was_expected_is_known_without_reading_the_lane_again(
    endings: Endings, sender: Sender, topics: TopicNames, wait_until: Callable[..., Any]
) -> None:
    fast, before = job(), runs(endings, sender, topics, wait_until)
    created_at = datetime.now(UTC)
    endings.expect({fast: created_at})
    happens(sender, topics, fast, "job.enqueued", "job.succeeded")
    happens(sender, topics, before, "job.succeeded")
    wait_until(lambda: endings.is_running(before) is False, 30, "the end of the job before")
    endings.watch({fast: Watched(created_at - timedelta(seconds=1))})
    assert endings.is_running(fast) is False
    assert endings.has_come(fast)
    assert endings.has_come(job()) is None, "nobody watches it"


def test_an_expected_job_is_found_though_the_clock_of_its_process_is_ahead(
    endings: Endings, sender: Sender, topics: TopicNames, wait_until: Callable[..., Any]
) -> None:
    fast, created_at = job(), datetime.now(UTC)
    happens(sender, topics, fast, "job.enqueued", "job.succeeded")
    endings.expect({fast: created_at + timedelta(hours=1)})
    wait_until(lambda: endings.is_running(fast), 30, "the end of the lane, where nothing is so late")
    assert endings.has_come(fast) is False
    endings.watch({fast: Watched(created_at)})
    wait_until(lambda: endings.is_running(fast) is False, 30, "the end of the job")


def test_ends_are_seen_again_after_an_error_that_nobody_foresaw(
    endings: Endings,
    sender: Sender,
    topics: TopicNames,
    wait_until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors = iter([RuntimeError("nobody foresaw it")])

    def broken_once(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
        for error in errors:
            raise error
        return watermarks(consumer, place)

    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    monkeypatch.setattr(module, "watermarks", broken_once)
    fast = job()
    happens(sender, topics, fast, "job.enqueued", "job.succeeded")
    endings.watch({fast: Watched(datetime.now(UTC))})
    wait_until(lambda: endings.is_running(fast) is False, 30, "the end of the job")


def test_a_job_that_is_known_to_have_ended_is_read_of_from_then_on(
    endings: Endings, sender: Sender, topics: TopicNames, wait_until: Callable[..., Any]
) -> None:
    """It may have ended a month ago; but it may have been requeued since it was looked at."""
    requeued, ended = job(), job()
    later = datetime.now(UTC) + timedelta(
        minutes=5
    )  # behind the events of the creation, as its lane is sought by time
    happens(sender, topics, ended, "job.enqueued")
    endings.watch({ended: Watched(later, has_ended=True), requeued: Watched(later, has_ended=True)})
    wait_until(lambda: endings.is_running(requeued) is False, 30, "the end of the lane")
    assert endings.is_running(ended) is False
    happens(sender, topics, requeued, "job.enqueued")
    wait_until(lambda: endings.is_running(requeued), 30, "the requeued job")
    assert endings.is_running(ended) is False
