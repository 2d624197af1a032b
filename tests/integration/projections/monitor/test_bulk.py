"""What the monitor says of bulk operations, and of queues that are paused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.projections.monitor.bulk import filter_document, filter_of
from joblog.projections.monitor.job_filter import JobFilter, Order
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.questions import InvalidQuestion
from joblog.streams.contract.controls import BulkAction
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.states import State

from tests.support import projection_settings
from tests.support.projection_events import (
    BEGINNING,
    Story,
    bulk_events,
    cloud_event,
    queue_event,
    rejected_event,
    worker_event,
)
from tests.support.projection_settings import Projection

# The fixtures that this module uses.
monitor = projection_settings.monitor
projection = projection_settings.projection
pytestmark = pytest.mark.database

OPERATION = new_job_id(0, 1, 1)


def began(matched: Any, wanted: JobFilter, **data: Any) -> bytes:
    said = {"operation": OPERATION, "action": "requeue", "filter": filter_document(wanted), "rate": 1.0}
    return cloud_event(
        "bulk.started", OPERATION, BEGINNING, {**said, "fence": matched.fence, "matched": matched.jobs, **data}
    )


def test_the_jobs_of_an_operation_are_those_that_had_no_event_since_it_was_asked_for(
    projection: Projection, monitor: Monitor
) -> None:
    jobs = [Story(lane=n % 3, random=n + 1).enqueued().processing().failed() for n in range(9)]
    others = [Story(lane=1, random=20).enqueued(), Story(lane=2, random=21, task="other").enqueued().deleted()]
    projection.in_lanes(*((one.lane, value) for one in (*jobs, *others) for value in one.values))
    wanted = JobFilter(state=State.FAILED, task="demo.add")
    matched = monitor.bulk.matched(wanted, 4)
    assert matched.jobs == 9
    assert sum(matched.fence) == 9 * 3 + 1 + 2
    projection.in_lanes((0, began(matched, wanted)))

    later = Story(lane=0, random=30).enqueued().processing().failed()
    moved = jobs[4].enqueued().processing().failed()
    projection.in_lanes(*((0, value) for value in later.values))
    projection.in_lanes(*((moved.lane, value) for value in moved.values[3:]))
    operation = monitor.bulk.operation(OPERATION)
    assert operation is not None
    expected = sorted(story.id for story in jobs if story is not moved)
    found, last = [], None
    while page := monitor.bulk.page(operation, last, 3):
        found += page
        last = page[-1].id
    assert [one.id for one in found] == expected
    assert {(one.state, one.version) for one in found} == {(State.FAILED, 3)}
    assert found[0].snapshot is not None
    assert found[0].snapshot["spec"] == {"args": [1, 2], "kwargs": {"unit": "m"}}


def test_an_operation_shows_how_far_it_is_and_what_was_refused(projection: Projection, monitor: Monitor) -> None:
    assert monitor.bulk.operation(OPERATION) is None
    other = new_job_id(0, 1, 2)
    refused = [rejected_event(command_id=f"bulk/{OPERATION}/{n}", job_id=new_job_id(0, 5, n)) for n in range(3)]
    refused += [refused[0], rejected_event(command_id=f"bulk/{other}/1", job_id=new_job_id(0, 5, 9))]
    projection.values(*bulk_events(OPERATION)[:2], *refused)
    running = monitor.bulk.operation(OPERATION)
    assert running is not None
    assert (running.state, running.action, running.sent, running.refused) == ("running", BulkAction.REQUEUE, 4, 3)
    assert (running.done, running.left, running.cursor, running.started_by) == (1, 5, OPERATION, "ann")
    assert running.late_s is not None
    assert [one.id for one in monitor.bulk.operations(state="running")] == [OPERATION]
    projection.values(bulk_events(OPERATION)[2])
    ended = monitor.bulk.operation(OPERATION)
    assert ended is not None
    assert (ended.state, ended.sent, ended.left, ended.ended_by) == ("cancelled", 9, 0, "bob")
    assert monitor.bulk.operations(state="running") == ()


def test_a_queue_that_is_paused_is_shown_with_who_and_why(projection: Projection, monitor: Monitor) -> None:
    until = BEGINNING + timedelta(days=1)
    projection.in_lanes(
        *[
            (0, queue_event("queue.paused", "hot", BEGINNING + timedelta(seconds=1), by="bob", drain=True)),
            (1, queue_event("queue.paused", "hot", by="ann", reason="why", until=until.isoformat())),
            (2, queue_event("queue.paused", "cold")),
            (2, queue_event("queue.resumed", "cold")),
        ]
    )
    (queue,) = monitor.queues()
    assert queue.pause is not None
    assert queue.pause.model_dump() == {
        "state": "draining", "lanes": 2, "since": BEGINNING, "until": until, "paused_by": "ann", "reason": "why"
    }  # fmt: skip
    assert [(one.lane, one.state) for one in monitor.pauses("hot")] == [(0, "draining"), (1, "paused")]
    projection.in_lanes((0, queue_event("queue.drained", "hot")))
    assert [one.state for one in monitor.pauses("hot")] == ["drained", "paused"]


def test_a_quiet_worker_is_shown_as_such_also_when_it_renews(projection: Projection, monitor: Monitor) -> None:
    states = []
    for kind, data in (
        ("worker.started", {}),
        ("worker.quieted", {"by": "ann"}),
        ("worker.alive", {"quiet": True}),
        ("worker.resumed", {"quiet": True}),  # it has not announced that yet
        ("worker.stop_ordered", {"quiet": True}),
    ):
        projection.values(worker_event(kind, **data))
        states += [one.state for one in monitor.workers()]
    assert states == ["running", "quiet", "quiet", "running", "stopping"]


# --- filters ---


@pytest.mark.parametrize(
    "wanted",
    [
        JobFilter(),
        JobFilter(state=State.FAILED),
        JobFilter(state=[State.FAILED, State.ENQUEUED], queue="q", task="t", worker="w", q="a\u00e4"),
        JobFilter(retrying=True, created_after=BEGINNING, changed_before=datetime(2027, 1, 1, tzinfo=UTC)),
        JobFilter(parent=OPERATION),
        JobFilter(state=[]),
    ],
)
def test_a_filter_means_the_same_when_it_is_read_again(wanted: JobFilter) -> None:
    assert filter_of(filter_document(wanted)).parameters() == wanted.parameters()


@pytest.mark.parametrize(
    "document",
    [
        {"order": "newest"},
        {"colour": "red"},
        {"state": "Failed"},
        {"state": ["Odd"]},
        {"state": 1},
        {"created_after": "soon"},
        {"created_after": "2027-01-01T00:00:00"},
        {"queue": 1},
        {"parent": "nobody"},
        {"retrying": 1},
        {"retrying": "x"},
        {"retrying": None},
        {"queue": []},
        {"q": {}},
        {"worker": ["w"]},
    ],
)
def test_what_is_no_filter_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidQuestion):
        filter_of(document)


def test_an_order_would_have_no_effect() -> None:
    with pytest.raises(InvalidQuestion, match="order"):
        filter_document(JobFilter(order=Order.OLDEST))
