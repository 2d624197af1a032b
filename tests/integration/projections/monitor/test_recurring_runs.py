"""The runs of recurring jobs: which definition and which occurrence made which job."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from joblog.projections.monitor import monitor as asked
from joblog.projections.monitor.models import RecurringRun, RunCounts
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.questions import InvalidQuestion
from joblog.services.embedded.stack import StackAddresses
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.recurring import Cause
from joblog.streams.contract.states import State

from tests.support import projection_settings
from tests.support.projection_events import BEGINNING, Story
from tests.support.projection_settings import Projection

# The fixtures that this module uses.
monitor = projection_settings.monitor
projection = projection_settings.projection
pytestmark = pytest.mark.database

#: Nothing that an index could compress.
LONG = "".join(chr(0x4E00 + random.Random(n).randrange(20_000)) for n in range(9_000))
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def run_of(recurring_id: str, minutes: int, cause: str = "schedule", number: int = 0) -> Story:
    """A job of a definition; its id does not sort as its occurrence does."""
    time = (NOON + timedelta(minutes=minutes)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    parameters = {"RecurringJobId": recurring_id, "Time": time, "Cause": cause, "x": 1}
    return Story(random=number or 1_000 - minutes, spec={"parameters": parameters})


def minutes(runs: tuple[RecurringRun, ...]) -> list[float]:
    return [(run.occurrence - NOON) / timedelta(minutes=1) for run in runs if run.occurrence is not None]


def test_a_run_says_when_why_and_how_it_went(projection: Projection, monitor: Monitor) -> None:
    retried = run_of("a", 1).enqueued().processing().failed(traversed=True)
    retried.scheduled(BEGINNING + timedelta(minutes=1), retry=1).enqueued(retry=1).processing()
    started_at = retried.at
    retried.succeeded()
    waiting = run_of("a", 2, "misfire").enqueued()
    projection.apply(retried, waiting, run_of("b", 3).enqueued(), Story(random=5).enqueued().processing())
    assert monitor.recurring_runs("a").items == (
        RecurringRun(
            occurrence=NOON + timedelta(minutes=2),
            cause=Cause.MISFIRE,
            job_id=waiting.id,
            state=State.ENQUEUED,
            created_at=BEGINNING + timedelta(seconds=1),
            changed_at=waiting.at,
            started_at=None,
            duration_ms=None,
            attempt=0,
            error=None,
        ),
        RecurringRun(
            occurrence=NOON + timedelta(minutes=1),
            cause=Cause.SCHEDULE,
            job_id=retried.id,
            state=State.SUCCEEDED,
            created_at=BEGINNING + timedelta(seconds=1),
            changed_at=retried.at,
            started_at=started_at,
            duration_ms=12.5,
            attempt=2,
            error="builtins.ValueError: no such row",
        ),
    )
    assert monitor.recurring_counts("a") == RunCounts(counts={State.ENQUEUED: 1, State.SUCCEEDED: 1}, is_all=True)
    assert monitor.states([retried.id, waiting.id, new_job_id(0, 0)]) == {
        retried.id: State.SUCCEEDED,
        waiting.id: State.ENQUEUED,
    }


def test_pages_follow_each_other_also_where_two_have_one_occurrence(projection: Projection, monitor: Monitor) -> None:
    twins = [run_of("a", 3, "trigger", number) for number in (1, 2, 3)]
    projection.apply(*(run_of("a", n).enqueued() for n in (1, 2, 4, 5)), *(one.enqueued() for one in twins))
    found: list[RecurringRun] = []
    cursor = None
    while True:
        page = monitor.recurring_runs("a", limit=2, cursor=cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
        assert len(page.items) == 2
    assert minutes(tuple(found)) == [5, 4, 3, 3, 3, 2, 1]
    assert len({one.job_id for one in found}) == 7
    assert minutes(monitor.recurring_runs("a", before=NOON + timedelta(minutes=3)).items) == [2, 1]
    first = monitor.recurring_runs("a", limit=2).next_cursor
    with pytest.raises(InvalidQuestion, match="another list"):
        monitor.recurring_runs("b", cursor=first)


def test_a_job_that_is_created_again_is_one_run(projection: Projection, monitor: Monitor) -> None:
    story = run_of("a", 1).enqueued().deleted()
    projection.apply(story.created_again().enqueued().processing())
    assert [(one.job_id, one.state) for one in monitor.recurring_runs("a").items] == [(story.id, State.PROCESSING)]


def test_parameters_that_nobody_would_write_keep_no_job_out_of_the_tables(
    projection: Projection, monitor: Monitor
) -> None:
    for number, parameters in enumerate(
        (
            {"RecurringJobId": LONG, "Time": LONG},
            {"RecurringJobId": "a", "Time": "noon", "Cause": "a whim"},
            {"RecurringJobId": "a", "Time": {"at": 12}},
            {"RecurringJobId": "a", "Time": "9999-12-31T23:59:59-23:00"},
            {"RecurringJobId": "a", "Time": None},
            {"RecurringJobId": None, "Time": "2026-11-23T12:00:00.000Z"},
        ),
        1,
    ):
        projection.apply(Story(random=number, spec={"parameters": parameters}).enqueued())
    projection.apply(Story(random=9).enqueued().parameter_set("RecurringJobId", "a").parameter_set("Time", "late"))
    runs = monitor.recurring_runs("a").items
    assert [(one.occurrence, one.cause) for one in runs] == [(None, None)] * 4
    assert monitor.recurring_runs("a", limit=1).next_cursor is not None


@pytest.mark.parametrize("name", ["", "a b", "a|pause", "a" * 201])
def test_what_is_no_id_is_refused(monitor: Monitor, name: str) -> None:
    with pytest.raises(InvalidQuestion, match="no id of a recurring job"):
        monitor.recurring_runs(name)


def test_counts_end_where_counting_would_take_long(
    projection: Projection, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    projection.apply(*(run_of("a", n).enqueued().processing().succeeded() for n in (1, 2)), run_of("a", 3).enqueued())
    monkeypatch.setattr(asked, "RUNS_COUNTED_MAX", 2)
    assert monitor.recurring_counts("a") == RunCounts(counts={State.ENQUEUED: 1, State.SUCCEEDED: 1}, is_all=False)


def test_a_page_is_read_from_the_index(projection: Projection, stack: StackAddresses, schema: str) -> None:
    """A definition that comes every second has millions of jobs."""
    projection.apply(*(run_of("a", n).enqueued() for n in range(1, 500)))
    question: dict[str, Any] = {
        "recurring": "a",
        "before": None,
        "last_id": None,
        "last_occurrence": None,
        "limit": 5,
    }
    with psycopg.connect(stack.dsn, options=f"-c search_path={schema}") as connection:
        connection.execute("ANALYZE jobs")
        for name in ("recurring_runs", "recurring_counts"):
            steps = connection.execute("EXPLAIN " + asked.SQL[name], question, prepare=False).fetchall()
            plan = "\n".join(step for (step,) in steps)
            assert "Index Scan Backward using jobs_by_recurring" in plan, plan
