"""What monitoring tells of limits: who runs with each, and who waits for what."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.projections.monitor.monitor import Monitor
from joblog.services.cli.app import app
from joblog.services.embedded.stack import StackAddresses
from joblog.streams.contract.relations import LimitKind
from typer.testing import CliRunner

from tests.support import projection_settings
from tests.support.projection_events import BEGINNING, Story, cloud_event
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


def waits_for(monitor: Monitor, story: Story) -> str | None:
    found = monitor.job(story.id)
    assert found is not None
    return found.waits_for


def test_who_has_a_limit_now_is_named_and_not_who_had_it_first(projection: Projection, monitor: Monitor) -> None:
    first, waits = limited(1, MUTEX).processing(), limited(2, MUTEX)
    projection.apply(first, held(waits, f"mutex invoice-7, held by job {first.id}"))
    assert waits_for(monitor, waits) == f"mutex invoice-7, held by job {first.id}"
    then = limited(3, MUTEX)
    projection.apply(first.succeeded())
    assert waits_for(monitor, waits) == "mutex invoice-7"
    projection.apply(then.processing())
    assert waits_for(monitor, waits) == f"mutex invoice-7, held by job {then.id}"
    (use,) = monitor.limits()
    assert [one.waits_for for one in use.first_waiting] == [f"mutex invoice-7, held by job {then.id}"]


def limit_event(capacity: int | None = 2, at: datetime = BEGINNING, **fields: Any) -> bytes:
    data = {"kind": "semaphore", "key": "default", "scope": "queue", "capacity": capacity, "by": "ann", **fields}
    return cloud_event("limit.changed", "default", at, {name: one for name, one in data.items() if one is not None})


def told(*command: str, stack: StackAddresses, schema: str) -> str:
    """What the command line prints, in one line."""
    environment = {"JOBLOG_POSTGRES__DSN": stack.dsn, "JOBLOG_POSTGRES__SCHEMA_NAME": schema}
    result = CliRunner().invoke(app, command, env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_jobs_that_wait_for_the_limit_of_their_queue_say_so_while_it_is_full(
    projection: Projection, monitor: Monitor, stack: StackAddresses, schema: str
) -> None:
    running, waits, own = [Story(random=1).enqueued().processing()], Story(random=2).enqueued(), limited(3, MUTEX)
    projection.in_lanes(*((lane, limit_event()) for lane in range(2)))
    projection.apply(*running, waits, held(own, "mutex invoice-7"))
    assert waits_for(monitor, waits) is None
    projection.apply(Story(random=4, lane=1).enqueued().processing())
    full = "the limit of queue default (2 running of 2)"
    assert [waits_for(monitor, one) for one in (waits, own)] == [full, full]
    assert f"waits for {full}" in told("job", "show", waits.id, stack=stack, schema=schema)
    assert "limit semaphore: 2 limit by ann" in told("queue", "show", "default", stack=stack, schema=schema)
    assert "semaphore: 2" in told("queue", "list", stack=stack, schema=schema)
    (queue,) = [one for one in monitor.queues() if one.name == "default"]
    assert queue.limit is not None
    assert (queue.limit.kind, queue.limit.capacity, queue.limit.set_by) == (LimitKind.SEMAPHORE, 2, "ann")
    projection.in_lanes(*((lane, limit_event(None)) for lane in range(2)))
    assert waits_for(monitor, waits) is None


def test_starts_of_a_queue_with_a_rate_are_counted_in_its_interval(projection: Projection, monitor: Monitor) -> None:
    now = datetime.now(UTC)
    waits = Story(random=1).enqueued()
    projection.values(limit_event(3, now, kind="sliding_window", interval_s=600.0))
    projection.apply(waits, *(Story(random=2 + n, at=now).enqueued().processing().succeeded() for n in range(2)))
    projection.apply(Story(random=9, at=now - timedelta(minutes=11)).enqueued().processing())
    assert waits_for(monitor, waits) is None
    projection.apply(Story(random=10, at=now).enqueued().processing())
    assert waits_for(monitor, waits) == "the limit of queue default (3 started of 3 in 600 s)"
