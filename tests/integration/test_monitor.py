"""Questions to the projection of a real log: all that Hangfire's monitoring answers, and paging that holds."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from joblog.projections import migrate
from joblog.projections.batch import decoded
from joblog.projections.filters import Order
from joblog.projections.models import Job, Page
from joblog.projections.monitor import Monitor
from joblog.projections.paging import InvalidQuestion
from joblog.projections.reads import DatabaseAway
from joblog.projections.tables import Tables
from joblog.services.embedded import StackAddresses
from joblog.streams.commands import Snapshot
from joblog.streams.errors import SchemaError
from joblog.streams.ids import new_job_id
from joblog.streams.states import ContinueOn, State

from tests.projection_events import BEGINNING, ERROR, WORKER, Story, placed, rejected_event, worker_event

NOW = datetime.now(UTC).replace(microsecond=0)


class Projection:
    """Applies values in the order given, each lane's offsets going on."""

    def __init__(self, dsn: str, schema: str) -> None:
        self._tables = Tables(dsn, schema, range(4))
        self.monitor = Monitor(dsn, schema)

    def apply(self, *stories: Story) -> None:
        self.values(*(value for story in stories for value in story.values))

    def values(self, *values: bytes) -> None:
        batch = placed([(0, value) for value in values], first_offset=self._tables.positions[0])
        assert self._tables.apply(decoded(batch), lambda: None) == []

    def raw(self, value: bytes) -> None:
        self._tables.apply(decoded(placed([(0, value)], first_offset=self._tables.positions[0])), lambda: None)

    def close(self) -> None:
        self._tables.close()
        self.monitor.close()


@pytest.fixture
def projection(stack: StackAddresses, schema: str) -> Iterator[Projection]:
    migrate.upgrade(stack.dsn, schema)
    made = Projection(stack.dsn, schema)
    yield made
    made.close()


@pytest.fixture
def monitor(projection: Projection) -> Monitor:
    return projection.monitor


def ids(page: Page[Job]) -> list[str]:
    return [job.id for job in page.items]


# --- one job ---


def test_a_job_with_all_that_happened_to_it(projection: Projection, monitor: Monitor) -> None:
    story = Story(spec={"args": [1, {"a": [2]}], "kwargs": {"b": None}, "priority": 5, "parameters": {"x": 1}})
    story.enqueued().processing().failed(traversed=True, reason="raised")
    story.scheduled(BEGINNING + timedelta(minutes=1), retry=1, reason="Retry 1 of 10").enqueued(retry=1)
    story.processing().parameter_set("y", {"z": 0}).succeeded({"sum": 3})
    child = Story(random=5).awaiting(story.id, "finished")
    projection.apply(story, child)
    projection.values(rejected_event(job_id=story.id, code="wrong_state"), rejected_event())

    found = monitor.job(story.id)
    assert found is not None
    assert (found.state, found.version, found.attempt, found.retry, found.priority) == (State.SUCCEEDED, 8, 2, 1, 5)
    assert (found.args, found.kwargs) == ((1, {"a": [2]}), {"b": None})
    assert (found.result, found.duration_ms, found.latency_ms) == ({"sum": 3}, 12.5, 3.0)
    assert found.parameters == {"x": 1, "y": {"z": 0}}
    assert found.created_at == BEGINNING + timedelta(seconds=1)
    assert [(one.version, one.type, one.reason, one.lasted_s) for one in found.history] == [
        (8, "job.succeeded", None, None),
        (7, "job.parameter_set", None, None),
        (6, "job.processing", None, 2.0),
        (5, "job.enqueued", None, 1.0),
        (4, "job.scheduled", "Retry 1 of 10", 1.0),
        (3, "job.failed", "raised", 1.0),
        (2, "job.processing", None, 1.0),
        (1, "job.enqueued", None, 1.0),
    ]
    assert found.history[5].traversed
    assert found.history[5].data["exception"] == ERROR
    assert found.history[4].data == {"due": "2026-11-23T15:01:00+00:00", "retry": 1}
    assert [(one.id, one.state, one.continue_on) for one in found.continuations] == [
        (child.id, State.AWAITING, ContinueOn.FINISHED)
    ]
    assert [one.code for one in found.rejected] == ["wrong_state"]


def test_an_unknown_job_is_none(monitor: Monitor) -> None:
    assert monitor.job(new_job_id(0, 0)) is None
    assert monitor.snapshot(new_job_id(0, 0)) is None


@pytest.mark.parametrize(
    "job_id", ["", "1", "DROP TABLE", new_job_id(0, 0, 0xABC).upper(), new_job_id(0, 0, 0xABC) + "\n"]
)
def test_what_is_no_job_id_is_refused(monitor: Monitor, job_id: str) -> None:
    with pytest.raises(InvalidQuestion, match="no job id"):
        monitor.job(job_id)


def test_answers_dump_to_json(projection: Projection, monitor: Monitor) -> None:
    story = Story().enqueued().processing().failed()
    projection.apply(story)
    projection.raw(b"\xff\x00")
    found = monitor.job(story.id)
    assert found is not None
    assert '"state":"Failed"' in found.model_dump_json()
    assert '"raw":"_wA="' in monitor.parked().model_dump_json()
    assert monitor.statistics().model_dump(mode="json")["counts"]["Failed"] == 1


def test_a_snapshot_revives_a_job(projection: Projection, monitor: Monitor) -> None:
    story = Story(spec={"args": [1], "priority": 3, "parameters": {"x": 1}}).enqueued().parameter_set("y", 2)
    projection.apply(story.processing().succeeded())
    found = monitor.snapshot(story.id)
    assert found is not None
    snapshot = Snapshot.model_validate(found)
    assert (snapshot.version, snapshot.state, snapshot.attempt) == (4, State.SUCCEEDED, 1)
    assert snapshot.spec.model_dump(exclude_unset=True) == {"args": (1,), "priority": 3, "parameters": {"x": 1}}
    assert snapshot.parameters == {"x": 1, "y": 2}
    assert snapshot.created_at == BEGINNING + timedelta(seconds=1)


def test_a_job_whose_creation_is_unknown_cannot_be_revived(projection: Projection, monitor: Monitor) -> None:
    story = Story().enqueued().processing().succeeded()
    projection.values(*story.values[1:])
    assert monitor.snapshot(story.id) is None


# --- lists by state, as Hangfire has them ---


def test_processing_jobs_show_who_runs_them_since_when(projection: Projection, monitor: Monitor) -> None:
    story = Story().enqueued().processing("w-7")
    projection.apply(story, Story(random=2).enqueued())
    [job] = monitor.jobs(state=State.PROCESSING).items
    assert (job.id, job.worker, job.lease, job.changed_at) == (story.id, "w-7", 2, story.at)


def test_scheduled_jobs_are_listed_by_when_they_are_due(projection: Projection, monitor: Monitor) -> None:
    stories = [Story(random=n).scheduled(BEGINNING + timedelta(hours=hour)) for n, hour in enumerate((3, 1, 2), 1)]
    retry = Story(random=9).enqueued().processing().failed(traversed=True)
    retry.scheduled(BEGINNING + timedelta(hours=4), retry=1, reason="Retry 1 of 10")
    projection.apply(*stories, retry)
    page = monitor.jobs(state=State.SCHEDULED, order=Order.DUE)
    assert ids(page) == [stories[1].id, stories[2].id, stories[0].id, retry.id]
    [job] = monitor.jobs(retrying=True, order=Order.DUE).items
    assert (job.id, job.retry, job.reason, job.due) == (retry.id, 1, "Retry 1 of 10", BEGINNING + timedelta(hours=4))
    assert job.exception is not None
    assert job.exception.message == "no such row"


def test_failed_jobs_show_the_exception(projection: Projection, monitor: Monitor) -> None:
    projection.apply(Story().enqueued().processing().failed(reason="An exception occurred"))
    [job] = monitor.jobs(state=State.FAILED).items
    assert job.exception is not None
    assert job.exception.model_dump(mode="json") == ERROR
    assert (job.reason, job.duration_ms, job.latency_ms) == ("An exception occurred", 7.0, 1.0)


def test_deleted_jobs_show_the_exception_they_had(projection: Projection, monitor: Monitor) -> None:
    projection.apply(Story().enqueued().processing().failed().deleted(reason="given up"))
    [job] = monitor.jobs(state=State.DELETED).items
    assert job.exception is not None
    assert (job.exception.type, job.reason) == ("builtins.ValueError", "given up")


def test_awaiting_jobs_show_the_state_of_their_parent(projection: Projection, monitor: Monitor) -> None:
    parent = Story(random=1).enqueued().processing()
    child = Story(random=2).awaiting(parent.id, "ended")
    orphan = Story(random=3).awaiting(Story(random=4).id)
    projection.apply(parent, child, orphan)
    found = {job.id: job for job in monitor.jobs(state=State.AWAITING).items}
    assert (found[child.id].parent, found[child.id].parent_state) == (parent.id, State.PROCESSING)
    assert found[child.id].continue_on is ContinueOn.ENDED
    assert found[orphan.id].parent_state is None


def test_succeeded_jobs_show_result_and_times(projection: Projection, monitor: Monitor) -> None:
    projection.apply(Story().enqueued().processing().succeeded(result=[1], result_omitted=None))
    [job] = monitor.jobs(state=State.SUCCEEDED).items
    assert (job.result, job.duration_ms, job.latency_ms, job.worker) == ([1], 12.5, 3.0, WORKER)


def test_long_arguments_and_results_are_left_out_of_lists(projection: Projection, monitor: Monitor) -> None:
    story = Story(spec={"args": ["x" * 9_000]}).enqueued().processing().succeeded("y" * 9_000)
    projection.apply(story)
    [job] = monitor.jobs().items
    assert (job.args, job.kwargs, job.result) == (None, None, None)
    found = monitor.job(story.id)
    assert found is not None
    assert (found.args, found.result) == (("x" * 9_000,), "y" * 9_000)


# --- filters ---


@pytest.fixture
def crowd(projection: Projection) -> list[Story]:
    """Forty jobs, a second apart, over two queues, three tasks and five states."""
    made = []
    for n in range(1, 41):
        story = Story(
            random=n, queue=f"q{n % 2}", task=f"t{n % 3}", at=BEGINNING + timedelta(minutes=n), id=new_job_id(0, n, n)
        ).enqueued()
        match n % 5:
            case 1:
                story.processing(f"w{n % 2}")
            case 2:
                story.processing().succeeded()
            case 3:
                story.processing().failed(exception={"type": f"demo.Error{n}", "message": "50% of A_b"})
            case 4:
                story.deleted()
        made.append(story)
    projection.apply(*made)
    return made


@pytest.mark.parametrize(
    ("chosen", "fits"),
    [
        ({}, lambda _: True),
        ({"state": State.FAILED}, lambda n: n % 5 == 3),
        ({"state": [State.FAILED, State.DELETED]}, lambda n: n % 5 in {3, 4}),
        ({"state": []}, lambda _: False),
        ({"queue": "q1"}, lambda n: n % 2 == 1),
        ({"queue": "nobody"}, lambda _: False),
        ({"task": "t2"}, lambda n: n % 3 == 2),
        ({"queue": "q0", "task": "t1", "state": State.SUCCEEDED}, lambda n: n % 30 == 22),
        ({"worker": "w1", "state": State.PROCESSING}, lambda n: n % 10 == 1),
        ({"worker": "w0"}, lambda n: n % 10 == 6),
        ({"created_after": BEGINNING + timedelta(minutes=30)}, lambda n: n >= 30),
        ({"created_before": BEGINNING + timedelta(minutes=10)}, lambda n: n < 10),
        ({"changed_after": BEGINNING + timedelta(minutes=20, seconds=2)}, lambda n: n > 20),
        (
            {"changed_after": BEGINNING + timedelta(minutes=5), "changed_before": BEGINNING + timedelta(minutes=7)},
            lambda n: n in {5, 6},
        ),
        ({"q": "demo.error13"}, lambda n: n == 13),
        ({"q": "50% of a_b"}, lambda n: n % 5 == 3),
        ({"q": "50_"}, lambda _: False),
        ({"q": "'; DROP TABLE jobs; --"}, lambda _: False),
        ({"retrying": True}, lambda _: False),
    ],
)
def test_lists_hold_what_fits_and_nothing_else(monitor: Monitor, crowd: list[Story], chosen: Any, fits: Any) -> None:
    wanted = [story.id for n, story in enumerate(crowd, 1) if fits(n)]
    assert ids(monitor.jobs(**chosen, limit=500, order=Order.OLDEST)) == wanted
    assert ids(monitor.jobs(**chosen, limit=500)) == wanted[::-1]


def test_a_job_is_found_by_its_id(monitor: Monitor, crowd: list[Story]) -> None:
    assert ids(monitor.jobs(q=crowd[6].id)) == [crowd[6].id]
    assert ids(monitor.jobs(q=crowd[6].id.upper())) == [crowd[6].id]
    assert ids(monitor.jobs(q=crowd[6].id, state=State.AWAITING)) == []


def test_continuations_are_found_by_their_parent(projection: Projection, monitor: Monitor) -> None:
    parent = Story(random=1).enqueued()
    children = [Story(random=n).awaiting(parent.id) for n in (2, 3)]
    projection.apply(parent, *children)
    assert set(ids(monitor.jobs(parent=parent.id))) == {child.id for child in children}


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 501}, "limit"),
        ({"parent": "nobody"}, "no job id"),
        ({"created_after": datetime(2026, 1, 1)}, "no zone"),  # noqa: DTZ001
        ({"order": Order.DUE, "state": State.FAILED}, "only Scheduled"),
        ({"q": "a\x00b"}, "NUL"),
        ({"cursor": "nonsense"}, "no cursor"),
        ({"cursor": "ä"}, "no cursor"),
        ({"cursor": "W10"}, "no cursor"),
    ],
)
def test_questions_that_make_no_sense_are_refused(monitor: Monitor, chosen: Any, words: str) -> None:
    with pytest.raises(InvalidQuestion, match=words):
        monitor.jobs(**chosen)


# --- paging ---


@pytest.mark.parametrize("order", [Order.NEWEST, Order.OLDEST, Order.CREATED])
@pytest.mark.parametrize("limit", [1, 7, 39, 40])
def test_pages_put_together_are_the_list(monitor: Monitor, crowd: list[Story], order: Order, limit: int) -> None:
    whole = ids(monitor.jobs(limit=500, order=order))
    pages, cursor = [], None
    while True:
        page = monitor.jobs(limit=limit, order=order, cursor=cursor)
        pages += ids(page)
        cursor = page.next_cursor
        if cursor is None:
            break
        assert len(page.items) == limit
    assert pages == whole
    assert len(whole) == len(crowd)


def test_jobs_of_the_same_instant_are_paged_by_their_id(projection: Projection, monitor: Monitor) -> None:
    stories = [Story(random=n).enqueued() for n in range(1, 8)]
    projection.apply(*stories)
    first = monitor.jobs(limit=3)
    second = monitor.jobs(limit=10, cursor=first.next_cursor)
    assert ids(first) + ids(second) == sorted((story.id for story in stories), reverse=True)


def test_due_jobs_are_paged(projection: Projection, monitor: Monitor) -> None:
    projection.apply(*(Story(random=n).scheduled(BEGINNING + timedelta(hours=n // 3)) for n in range(1, 10)))
    whole = ids(monitor.jobs(order=Order.DUE))
    first = monitor.jobs(order=Order.DUE, limit=4)
    assert ids(first) + ids(monitor.jobs(order=Order.DUE, cursor=first.next_cursor)) == whole
    assert len(whole) == 9


def test_new_jobs_do_not_shift_the_pages(projection: Projection, monitor: Monitor, crowd: list[Story]) -> None:
    first = monitor.jobs(limit=10)
    projection.apply(Story(random=99, at=BEGINNING + timedelta(hours=9)).enqueued())
    second = monitor.jobs(limit=10, cursor=first.next_cursor)
    assert not set(ids(first)) & set(ids(second))
    assert ids(second)[0] == crowd[29].id


def test_a_cursor_of_another_list_is_refused(monitor: Monitor, crowd: list[Story]) -> None:
    cursor = monitor.jobs(limit=5, queue="q1").next_cursor
    for other in ({"queue": "q0"}, {"queue": "q1", "order": Order.OLDEST}, {"queue": "q1", "state": State.FAILED}):
        with pytest.raises(InvalidQuestion, match="another list"):
            monitor.jobs(cursor=cursor, **other)  # type: ignore[arg-type]
    with pytest.raises(InvalidQuestion, match="another list"):
        monitor.parked(cursor=cursor)


# --- the whole ---


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


# --- waiting, and being away ---


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
    monkeypatch.setattr("joblog.projections.reads.WAIT_S", 0.3)
    with Monitor("postgresql://nobody@127.0.0.1:1/nothing", "joblog") as monitor, pytest.raises(DatabaseAway):
        monitor.statistics()


def test_it_cannot_write(projection: Projection, monitor: Monitor) -> None:
    with (
        pytest.raises((psycopg.errors.ReadOnlySqlTransaction, DatabaseAway)),
        monitor._reads.consistent() as ask,
    ):
        ask("DELETE FROM jobs RETURNING id", {})
