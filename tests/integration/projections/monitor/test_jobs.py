"""What monitoring tells of one job, and of the jobs of each state."""

from datetime import timedelta

import pytest
from joblog.projections.monitor.job_filter import Order
from joblog.projections.monitor.models import Job, Page
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.questions import InvalidQuestion
from joblog.streams.contract.commands import Snapshot
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.states import ContinueOn, State

from tests.support import projection_settings
from tests.support.projection_events import BEGINNING, ERROR, WORKER, Story, rejected_event
from tests.support.projection_settings import Projection

# The fixtures that this module uses.
monitor = projection_settings.monitor
projection = projection_settings.projection
pytestmark = pytest.mark.database


def ids(page: Page[Job]) -> list[str]:
    return [job.id for job in page.items]


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
    for value in story.values[1:]:
        projection.raw(value)
    assert monitor.snapshot(story.id) is None


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
