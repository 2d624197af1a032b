"""What monitoring says of batches and their jobs."""

import pytest
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.questions import InvalidQuestion
from joblog.streams.contract.states import DELETED, PROCESSING, SUCCEEDED

from tests.support import projection_settings
from tests.support.projection_events import BatchStory, Story
from tests.support.projection_settings import Projection

# The fixtures that this module uses.
monitor = projection_settings.monitor
projection = projection_settings.projection
pytestmark = pytest.mark.database


def test_a_batch_is_as_its_last_event_says_with_its_jobs_in_pages(projection: Projection, monitor: Monitor) -> None:
    outer = BatchStory(random=1).told("batch.created", "Processing", total=1)
    batch = BatchStory(random=2).told("batch.created", "Processing", batch=outer.id, description="import", total=5)
    stories = [Story(random=10 + n, spec={"batch": batch.id, "priority": n}).enqueued() for n in range(5)]
    stories[0].deleted()
    batch.told("batch.progressed", "Processing", total=5, created=5, deleted=1, batch=outer.id, description="import")
    projection.apply(outer, batch, *stories, Story(random=99).enqueued())
    seen = monitor.batch(batch.id)
    assert seen is not None
    assert (seen.state, seen.version, seen.description, seen.batch) == (PROCESSING, 2, "import", outer.id)
    assert (seen.total, seen.created, seen.pending, seen.deleted) == (5, 5, 4, 1)
    assert seen.changed_at == batch.at
    first = monitor.batch_jobs(batch.id, limit=3)
    rest = monitor.batch_jobs(batch.id, limit=3, cursor=first.next_cursor)
    assert [job.id for job in (*first.items, *rest.items)] == sorted(story.id for story in stories)
    assert rest.next_cursor is None
    assert [job.priority for job in first.items] == [0, 1, 2]
    assert [job.id for job in monitor.batch_jobs(batch.id, state=DELETED).items] == [stories[0].id]


def test_batches_are_listed_by_state_and_by_their_outer_one(projection: Projection, monitor: Monitor) -> None:
    outer = BatchStory(random=1).told("batch.created", "Processing")
    ended = [
        BatchStory(random=2 + n).told("batch.created", "Processing").told("batch.succeeded", "Succeeded")
        for n in range(3)
    ]
    inner = BatchStory(random=9).told("batch.created", "Awaiting", batch=outer.id, parent=outer.id, on="succeeded")
    projection.apply(outer, *ended, inner)
    page = monitor.batches(state=SUCCEEDED, limit=2)
    rest = monitor.batches(state=SUCCEEDED, limit=2, cursor=page.next_cursor)
    assert [one.id for one in (*page.items, *rest.items)] == sorted((one.id for one in ended), reverse=True)
    assert [one.id for one in monitor.batches(batch=outer.id).items] == [inner.id]
    assert monitor.batch(Story(random=77).id) is None
    with pytest.raises(InvalidQuestion):
        monitor.batch("x")
    with pytest.raises(InvalidQuestion):
        monitor.batches(limit=2, cursor=page.next_cursor)
