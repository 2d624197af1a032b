"""Lists of jobs: filters, order, and pages that hold while the jobs move on."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.projections.monitor.job_filter import Order
from joblog.projections.monitor.models import Job, Page
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.questions import InvalidQuestion
from joblog.streams.contract.states import ContinueOn, State

from tests.support import projection_settings
from tests.support.projection_events import BEGINNING, Story
from tests.support.projection_settings import Projection

# The fixtures that this module uses.
crowd = projection_settings.crowd
monitor = projection_settings.monitor
projection = projection_settings.projection
pytestmark = pytest.mark.database


def ids(page: Page[Job]) -> list[str]:
    return [job.id for job in page.items]


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
        ({"created_after": datetime.min.replace(tzinfo=UTC)}, lambda _: True),
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


def test_a_job_has_continuations_that_wait_for_others_as_well(projection: Projection, monitor: Monitor) -> None:
    one, other = (Story(random=n).enqueued() for n in (1, 2))
    alone = Story(random=3).awaiting(one.id)
    parents = {"job_ids": [one.id, other.id, one.id], "on": "ended"}
    both = Story(random=4, at=BEGINNING + timedelta(minutes=1), spec={"parents": parents})
    both.event("job.awaiting", "Awaiting")
    plain = Story(random=5, at=BEGINNING - timedelta(minutes=1), spec={"parents": {"job_ids": [one.id]}})
    plain.event("job.awaiting", "Awaiting")
    projection.apply(one, other, alone, both, plain)
    projection.apply(one, other, alone, both, plain)  # the same once more
    found = {parent.id: monitor.job(parent.id) for parent in (one, other)}
    assert [[(child.id, child.continue_on) for child in job.continuations] for job in found.values() if job] == [
        [(both.id, ContinueOn.ENDED), (alone.id, ContinueOn.SUCCEEDED), (plain.id, ContinueOn.SUCCEEDED)],
        [(both.id, ContinueOn.ENDED)],
    ]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 501}, "limit"),
        ({"parent": "nobody"}, "no job id"),
        ({"created_after": datetime(2026, 1, 1)}, "no zone"),  # noqa: DTZ001
        ({"order": Order.DUE, "state": State.FAILED}, "only Scheduled"),
        ({"q": "a\x00b"}, "NUL"),
        ({"q": "a\udcffb"}, "UTF-8"),
        ({"queue": "\ud83d"}, "UTF-8"),
        ({"cursor": "nonsense"}, "no cursor"),
        ({"cursor": "ä"}, "no cursor"),
        ({"cursor": "W10"}, "no cursor"),
    ],
)
def test_questions_that_make_no_sense_are_refused(monitor: Monitor, chosen: Any, words: str) -> None:
    with pytest.raises(InvalidQuestion, match=words):
        monitor.jobs(**chosen)


@pytest.mark.parametrize("queue", ["", "No Queue", "a\x00b", "\udcff"])
def test_the_pauses_of_what_is_no_queue_are_refused(monitor: Monitor, queue: str) -> None:
    with pytest.raises(InvalidQuestion, match="not a queue name"):
        monitor.pauses(queue)


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
    for n in range(10, 13):  # what scheduled these was never seen
        projection.raw(Story(random=n, version=1, state="Scheduled").parameter_set("x", n).values[0])
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
