"""What the projector exports of the tables: jobs, the oldest waiting one, workers and slots."""

from datetime import timedelta

import psycopg
import pytest
from confluent_kafka import Producer
from joblog.projections.projector.tables import Tables
from joblog.streams.metrics import Meters

from tests.support import projection_settings
from tests.support.projection_events import BEGINNING, BatchStory, Story, placed, queue_event, records, worker_event
from tests.support.projection_settings import Setting, WaitUntil, apply, interleaved, jobs, running, sample, write

dsn = projection_settings.dsn
setting = projection_settings.setting
tables = projection_settings.tables
writer = projection_settings.writer
pytestmark = [pytest.mark.broker, pytest.mark.database]


def test_gauges_are_what_the_tables_hold_and_lose_what_is_gone(tables: Tables) -> None:
    first = Story(random=1, queue="a").enqueued()
    second = Story(random=2, queue="a", at=BEGINNING + timedelta(minutes=1)).enqueued()
    third = Story(random=3, queue="b").scheduled(BEGINNING + timedelta(hours=1))
    apply(tables, records(first, second, third))
    worker = [(0, worker_event("worker.started", queues=["a", "c"])), (0, worker_event("worker.started", "host-2:1"))]
    worker += [(0, queue_event("queue.paused", "a")), (0, queue_event("queue.paused", "c"))]
    apply(tables, placed(worker, first_offset=3))
    meters = Meters(role="projector")
    tables.gauge(meters)
    counted = {
        (queue, state): sample(meters, "joblog_jobs", queue=queue, state=state)
        for queue in ("a", "b")
        for state in ("Awaiting", "Scheduled", "Enqueued", "Processing")
    }
    assert {place: n for place, n in counted.items() if n} == {("a", "Enqueued"): 2, ("b", "Scheduled"): 1}
    assert None not in counted.values()
    assert sample(meters, "joblog_jobs", queue="a", state="Succeeded") is None
    oldest = "joblog_queue_oldest_job_timestamp_seconds"
    assert sample(meters, oldest, queue="a") == BEGINNING.timestamp() + 1
    assert sample(meters, oldest, queue="b") is None
    assert sample(meters, "joblog_workers") == 2
    assert sample(meters, "joblog_slots") == 8
    assert [sample(meters, "joblog_queue_workers", queue=queue) for queue in ("a", "c", "default")] == [1, 1, 1]
    assert [sample(meters, "joblog_queue_paused", queue=queue) for queue in ("a", "b", "c")] == [1, None, 1]

    for story in (first, second):
        story.values.clear()
        story.processing().succeeded()
    apply(tables, records(first, second, first_offset=7))
    stopped = [
        (0, queue_event("queue.resumed", "c")),
        (0, worker_event("worker.stopped", at=BEGINNING + timedelta(minutes=5))),
    ]
    apply(tables, placed(stopped, first_offset=11))
    tables.gauge(meters)
    assert [sample(meters, "joblog_queue_paused", queue=queue) for queue in ("a", "c")] == [1, None]
    assert sample(meters, "joblog_jobs", queue="a", state="Enqueued") == 0
    assert sample(meters, oldest, queue="a") is None
    assert sample(meters, "joblog_workers") == 1
    assert sample(meters, "joblog_queue_workers", queue="c") is None


def test_open_batches_are_counted_with_the_oldest_and_the_most_silent(tables: Tables) -> None:
    old = BatchStory(random=1).told("batch.created", "Processing").told("batch.progressed", "Processing")
    silent = BatchStory(random=2, at=BEGINNING + timedelta(milliseconds=500)).told("batch.created", "Processing")
    ended = BatchStory(random=3).told("batch.created", "Processing").told("batch.failed", "Failed", failed=1)
    meters = Meters(role="projector")
    apply(tables, records(old, silent, ended))
    tables.gauge(meters)
    names = ("joblog_batch_oldest_timestamp_seconds", "joblog_batch_progress_timestamp_seconds")
    assert [sample(meters, "joblog_batches", state=state) for state in ("Awaiting", "Processing")] == [0, 2]
    assert [sample(meters, name, state="Processing") for name in names] == [
        BEGINNING.timestamp(),
        silent.at.timestamp(),
    ]
    for story in (old, silent):
        story.values.clear()
        story.told("batch.succeeded", "Succeeded")
    apply(tables, records(old, silent, first_offset=5))
    tables.gauge(meters)
    assert sample(meters, "joblog_batches", state="Processing") == 0
    assert [sample(meters, name, state="Processing") for name in names] == [None, None]


def test_more_queues_than_the_cap_are_shown_together_with_the_oldest_job_of_all(tables: Tables) -> None:
    big = [Story(random=1 + n, queue="big", at=BEGINNING + timedelta(hours=1)).enqueued() for n in range(3)]
    small = [Story(random=10 + n, queue=f"q{n}", at=BEGINNING + timedelta(minutes=n)).enqueued() for n in range(5)]
    apply(tables, records(*big, *small))
    meters = Meters(role="projector", queues_max=1)
    tables.gauge(meters)
    assert sample(meters, "joblog_jobs", queue="big", state="Enqueued") == 3
    assert sample(meters, "joblog_jobs", queue="other", state="Enqueued") == 5
    oldest = sample(meters, "joblog_queue_oldest_job_timestamp_seconds", queue="other")
    assert oldest == BEGINNING.timestamp() + 1


@pytest.fixture
def lanes() -> int:
    return 1


def test_events_are_applied_though_the_gauges_cannot_be_read(
    setting: Setting, writer: Producer, wait_until: WaitUntil
) -> None:
    with psycopg.connect(setting.dsn, options=f"-c search_path={setting.schema}") as other:
        other.execute("LOCK TABLE workers IN ACCESS EXCLUSIVE MODE")
        with running(setting.projector()):
            late = "joblog_db_errors_total"
            wait_until(lambda: sample(setting.meters, late, role="projector", sqlstate="57"), 30, "late gauges")
            assert setting.health.ready
            values = interleaved(jobs(20, setting.lanes))
            write(writer, setting.names, values)
            wait_until(lambda: setting.applied() == len(values), 30, "all events")
            other.rollback()
            wait_until(lambda: sample(setting.meters, "joblog_jobs", queue="q0", state="Awaiting") == 0, 30, "jobs")
