"""What monitoring tells of the whole: statistics, queues, workers, series, and what it does when Postgres is away."""

import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import psycopg
import pytest
from joblog.projections.database import DatabaseAway
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.questions import InvalidQuestion
from joblog.projections.schema import migrate
from joblog.services.embedded.stack import StackAddresses
from joblog.streams.contract.states import State
from joblog.streams.errors import SchemaError

from tests.support import projection_settings
from tests.support.projection_events import BEGINNING, WORKER, Story, rejected_event, worker_event
from tests.support.projection_settings import Projection

# The fixtures that this module uses.
crowd = projection_settings.crowd
monitor = projection_settings.monitor
projection = projection_settings.projection
pytestmark = pytest.mark.database
NOW = datetime.now(UTC).replace(microsecond=0)


def test_statistics_count_what_is_and_what_was(projection: Projection, monitor: Monitor, crowd: list[Story]) -> None:
    retry = Story(random=50).enqueued().processing().failed(traversed=True).scheduled(BEGINNING, retry=1)
    again = Story(random=51).enqueued().processing().succeeded().enqueued(reason="once more")
    projection.apply(retry, again)
    projection.values(worker_event("worker.started"), worker_event("worker.lost", "w-2"))
    found = monitor.statistics()
    assert found.counts == {
        State.AWAITING: 0,
        State.SCHEDULED: 1,
        State.ENQUEUED: 9,
        State.PROCESSING: 8,
        State.SUCCEEDED: 8,
        State.FAILED: 8,
        State.DELETED: 8,
    }
    assert (found.succeeded, found.failed, found.deleted, found.retries) == (9, 8, 8, 1)
    assert (found.queues, found.workers) == (3, 1)


def test_queues_tell_who_waits_longest(projection: Projection, monitor: Monitor, crowd: list[Story]) -> None:
    projection.values(worker_event("worker.started", queues=["q1", "idle"]))
    found = {queue.name: queue for queue in monitor.queues()}
    assert found.keys() == {"q0", "q1", "idle"}
    assert (found["q1"].length, found["q1"].workers, found["q0"].workers) == (4, 1, 0)
    assert [job.id for job in found["q1"].first_jobs] == [crowd[n - 1].id for n in (5, 15, 25, 35)]
    assert found["q0"].counts[State.FAILED] == 4
    assert found["idle"].first_jobs == ()
    assert found["idle"].oldest_waiting_s is None


def test_a_queue_shows_five_jobs_and_the_age_of_the_oldest(projection: Projection, monitor: Monitor) -> None:
    started = NOW - timedelta(seconds=101)
    projection.apply(*(Story(random=n, at=started + timedelta(seconds=n)).enqueued() for n in range(7)))
    [queue] = monitor.queues()
    assert len(queue.first_jobs) == 5
    assert queue.oldest_waiting_s is not None
    assert 100 <= queue.oldest_waiting_s < 1_000


def test_workers_tell_what_they_run(projection: Projection, monitor: Monitor) -> None:
    story = Story().enqueued().processing(WORKER)
    projection.apply(story, Story(random=2).enqueued().processing("w-9"))
    projection.values(
        worker_event("worker.started"),
        worker_event("worker.alive", at=BEGINNING + timedelta(minutes=2)),
        worker_event("worker.stopped", "w-old", at=NOW - timedelta(days=3)),
        worker_event("worker.lost", "w-late", at=NOW - timedelta(hours=3)),
    )
    [running, lost] = monitor.workers()
    assert (running.name, running.state, running.processing, running.slots) == (WORKER, "running", 1, 4)
    assert (running.queues, running.tasks, running.pid) == (("default",), ("demo.add",), 4711)
    assert (running.started_at, running.heartbeat) == (BEGINNING, BEGINNING + timedelta(minutes=2))
    assert (lost.name, lost.state, lost.processing) == ("w-late", "lost", 0)
    assert [worker.name for worker in monitor.workers(timedelta(days=9))] == [WORKER, "w-late", "w-old"]


def test_series_have_a_bucket_for_every_day_and_hour(projection: Projection, monitor: Monitor) -> None:
    recently = NOW - timedelta(hours=2)
    projection.apply(
        Story(random=1, at=recently).enqueued().processing().succeeded(),
        Story(random=2, at=recently).enqueued().processing().failed(traversed=True).deleted(),
        Story(random=3, at=NOW - timedelta(days=3)).enqueued().processing().failed(),
        Story(random=4, at=NOW - timedelta(days=8)).enqueued().processing().failed(),
    )
    hours, days = monitor.by_hour(), monitor.by_day()
    assert (len(hours), len(days)) == (24, 7)
    assert [later.since - one.since for one, later in pairwise(hours)] == [timedelta(hours=1)] * 23
    assert [(b.succeeded, b.failed, b.deleted) for b in hours if b.succeeded or b.failed or b.deleted] == [(1, 0, 1)]
    assert sum(b.failed for b in days) == 1
    assert next(b for b in days if b.failed).since.date() == (NOW - timedelta(days=3)).date()
    assert sum(b.succeeded for b in days) == 1
    assert sum(b.failed for b in monitor.by_day(30)) == 2
    with pytest.raises(InvalidQuestion, match="buckets"):
        monitor.by_day(0)


def test_rejected_and_parked_records_are_paged(projection: Projection, monitor: Monitor) -> None:
    projection.values(*(rejected_event(code=f"c{n}") for n in range(5)))
    for n in range(5):
        projection.raw(b"no event %d" % n)
    first = monitor.rejected(limit=3)
    second = monitor.rejected(limit=3, cursor=first.next_cursor)
    assert [one.code for one in (*first.items, *second.items)] == ["c4", "c3", "c2", "c1", "c0"]
    assert second.next_cursor is None
    broken = monitor.parked(limit=2)
    rest = monitor.parked(limit=9, cursor=broken.next_cursor)
    assert [one.raw for one in (*broken.items, *rest.items)] == [b"no event %d" % n for n in (4, 3, 2, 1, 0)]


def test_offsets_tell_how_far_each_lane_was_applied(projection: Projection, monitor: Monitor) -> None:
    projection.apply(Story().enqueued().processing())
    found = monitor.offsets()
    assert [(one.lane, one.next_offset) for one in found] == [(0, 2), (1, 0), (2, 0), (3, 0)]
    assert found[0].log_time == BEGINNING + timedelta(milliseconds=1)
    assert found[1].late_s is None


def test_waiting_ends_when_the_job_comes_to_a_state(projection: Projection, monitor: Monitor) -> None:
    story = Story().enqueued()
    later = threading.Timer(0.3, lambda: projection.apply(story.processing().succeeded(7)))
    later.start()
    found = monitor.wait_for(story.id, {State.SUCCEEDED, State.FAILED}, 20)
    later.join()
    assert found is not None
    assert found.result == 7


def test_waiting_ends_in_time(projection: Projection, monitor: Monitor) -> None:
    story = Story().enqueued()
    projection.apply(story)
    assert monitor.wait_for(story.id, {State.SUCCEEDED}, 0.1) is None


def test_a_cut_connection_is_replaced(stack: StackAddresses, projection: Projection, monitor: Monitor) -> None:
    monitor.statistics()
    with psycopg.connect(stack.dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'joblog-monitor'"
        )
    assert monitor.statistics().succeeded == 0


def test_without_tables_it_says_what_to_do(stack: StackAddresses, schema: str) -> None:
    with Monitor(stack.dsn, schema) as monitor, pytest.raises(SchemaError, match="joblog migrate"):
        monitor.statistics()


def test_without_postgres_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblog.projections.monitor.reads.WAIT_S", 0.3)
    told = r"at 127\.0\.0\.1:1, database nothing: .*[Rr]efused"
    with (
        Monitor("postgresql://me:hunter2@127.0.0.1:1/nothing", "joblog") as monitor,
        pytest.raises(DatabaseAway, match=told) as error,
    ):
        monitor.statistics()
    assert "hunter2" not in str(error.value)


def test_all_connections_in_use_are_no_postgres_that_is_away(
    stack: StackAddresses, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joblog.projections.monitor.reads.WAIT_S", 0.3)
    migrate.upgrade(stack.dsn, schema)
    with (
        Monitor(stack.dsn, schema, connections_max=1) as monitor,
        monitor._reads.consistent(),
        pytest.raises(DatabaseAway, match=r"no connection was free within 0\.3 s"),
    ):
        monitor.statistics()


def test_it_cannot_write(projection: Projection, monitor: Monitor) -> None:
    with (
        pytest.raises((psycopg.errors.ReadOnlySqlTransaction, DatabaseAway)),
        monitor._reads.consistent() as ask,
    ):
        ask("DELETE FROM jobs RETURNING id", {})


def test_live_jobs_are_counted_by_queue_and_lane(
    projection: Projection, monitor: Monitor, crowd: list[Story]
) -> None:
    found = monitor.live_jobs()
    live = {State.AWAITING, State.SCHEDULED, State.ENQUEUED, State.PROCESSING}
    assert len({(one.queue, one.lane) for one in found}) == len(found)
    by_state = monitor.statistics().counts
    assert sum(one.jobs for one in found) == sum(by_state[state] for state in live) > 0
    assert all(one.jobs > 0 for one in found)


def test_parked_records_are_counted_by_code_with_the_last_place(projection: Projection, monitor: Monitor) -> None:
    assert monitor.parked_codes() == ()
    for value in (b"no event", b"", b"[]"):
        projection.raw(value)
    parked = monitor.parked(limit=10).items
    found = {one.code: one for one in monitor.parked_codes()}
    assert sum(one.records for one in found.values()) == len(parked) == 3
    for code, one in found.items():
        last = next(record for record in parked if record.code == code)
        assert (one.lane, one.log_offset) == (last.lane, last.log_offset)
