"""What monitoring tells of limits: who runs with each, and who waits for what."""

from typing import Any

import pytest
from joblog.projections.monitor.monitor import Monitor
from joblog.streams.contract.relations import LimitKind

from tests.support import projection_settings
from tests.support.projection_events import Story
from tests.support.projection_settings import Projection

# The fixtures that this module uses.
monitor = projection_settings.monitor
projection = projection_settings.projection
pytestmark = pytest.mark.database

MUTEX = {"kind": "mutex", "key": "invoice-7", "tenant": "shop"}
RATE = {"kind": "sliding_window", "key": "mail", "capacity": 50, "interval_s": 1.0}


def limited(number: int, *limits: dict[str, Any]) -> Story:
    return Story(random=number, lane=number % 3, spec={"limits": list(limits)}).enqueued()


def held(story: Story, waits_for: str) -> Story:
    return story.event("job.held", "Enqueued", note="held", waits_for=waits_for)


def test_limits_are_shown_with_those_that_run_and_those_that_wait(projection: Projection, monitor: Monitor) -> None:
    runs = limited(1, MUTEX, RATE).processing()
    why = f"mutex invoice-7, held by job {runs.id}"
    waits = held(limited(2, MUTEX, RATE), why)
    late = held(limited(3, RATE), "sliding window mail").parameter_set("p", 1)
    ended = held(limited(4, MUTEX), why).processing().succeeded()
    projection.apply(runs, waits, late, ended, limited(5, MUTEX), Story(random=6).enqueued())
    found = monitor.limits()
    assert [(one.kind, one.key, one.capacity, one.interval_s, one.running, one.waiting) for one in found] == [
        (LimitKind.MUTEX, "invoice-7", 1, None, (runs.id,), 1),
        (LimitKind.SLIDING_WINDOW, "mail", 50, 1.0, (runs.id,), 0),
    ]
    assert [(one.id, one.tenant, one.waits_for) for one in found[0].first_waiting] == [(waits.id, "shop", why)]
    told = {story.id: getattr(monitor.job(story.id), "waits_for", "?") for story in (runs, waits, late, ended)}
    assert told == {runs.id: None, waits.id: why, late.id: "sliding window mail", ended.id: None}
