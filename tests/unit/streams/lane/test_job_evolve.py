from datetime import UTC, datetime
from typing import Any

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.wire import JobEvent
from joblog.streams.lane.job import (
    EVENT_TYPES,
    Job,
    deleted,
    enqueued,
    event_type,
    evolve,
    failed,
    first_event,
    new_job,
    revived,
    scheduled,
)
from msgspec import Raw, json, structs

from tests.support.jobs import BOOM, ID, LATER, LATER_MS, LATER_TEXT, NOW, PARENT, SPEC, event, in_state


@pytest.mark.parametrize(
    ("before", "happened", "changes"),
    [
        (
            in_state(State.PROCESSING),
            event(State.ENQUEUED, attempt=0, retry=1, lost=2, queue="q2"),
            {"state": State.ENQUEUED, "attempt": 0, "retries": 1, "lost": 2, "queue": "q2"}
            | {"worker": None, "lease": 0, "ready_ms": NOW},
        ),
        (
            in_state(State.ENQUEUED),
            event(State.PROCESSING, attempt=2, worker="w2", lease=6),
            {"state": State.PROCESSING, "attempt": 2, "worker": "w2", "lease": 6},
        ),
        (
            in_state(State.PROCESSING),
            event(State.SCHEDULED, due=LATER_TEXT, retry=3),
            {"state": State.SCHEDULED, "due_ms": LATER_MS, "retries": 3, "worker": None, "lease": 0},
        ),
        (
            in_state(State.PROCESSING),
            failed(in_state(State.PROCESSING), BOOM, None),
            {"state": State.FAILED, "due_ms": NOW, "worker": None, "lease": 0},
        ),
        (in_state(State.PROCESSING), event(State.SUCCEEDED), {"state": State.SUCCEEDED, "worker": None, "lease": 0}),
        (in_state(State.AWAITING), event(State.DELETED), {"state": State.DELETED}),
        (
            in_state(State.PROCESSING, parameters=b'{"o":1}'),
            event(State.PROCESSING, name="p", value=Raw(b"[2]")),
            {"parameters": b'{"o":1,"p":[2]}'},
        ),
        (
            in_state(State.ENQUEUED, priority=1),
            event(State.ENQUEUED, note="priority_set", priority=7),
            {"priority": 7},
        ),
        (in_state(State.FAILED), event(State.FAILED, note="moved", queue="slow"), {"queue": "slow"}),
        (in_state(State.ENQUEUED), event(State.ENQUEUED, note="held", waits_for="mutex m"), {}),
        (in_state(State.PROCESSING), event(State.PROCESSING, note="progressed", progress=0.5), {}),
    ],
)
def test_an_event_changes_the_job_and_nothing_else(before: Job, happened: JobEvent, changes: dict[str, Any]) -> None:
    untouched = structs.replace(before)
    assert evolve(before, happened, NOW) == structs.replace(before, version=6, **changes)
    assert before == untouched


@pytest.mark.parametrize("state", State)
def test_every_event_leads_to_its_state_wherever_the_job_was(state: State) -> None:
    happened = event(state, due=LATER_TEXT, worker="w", lease=6, exception=BOOM)
    assert {evolve(in_state(before), happened, NOW).state for before in State} == {state}
    assert event_type(happened) == EVENT_TYPES[state]


@pytest.mark.parametrize(
    ("create", "expected"),
    [
        (wire.CreateJob("t"), JobEvent(1, State.ENQUEUED, 0, "default", "t", None, Raw(SPEC))),
        (
            wire.CreateJob("t", queue="q", run_at=LATER),
            JobEvent(1, State.SCHEDULED, 0, "q", "t", None, Raw(SPEC), LATER_TEXT),
        ),
        (
            wire.CreateJob("t", run_at=datetime(2020, 1, 1, tzinfo=UTC)),
            JobEvent(1, State.ENQUEUED, 0, "default", "t", None, Raw(SPEC)),
        ),
        (
            wire.CreateJob("t", parent=wire.Parent(PARENT, ContinueOn.ENDED)),
            JobEvent(1, State.AWAITING, 0, "default", "t", None, Raw(SPEC), parent=PARENT, on=ContinueOn.ENDED),
        ),
        (
            wire.CreateJob("t", parent=wire.Parent(PARENT), run_at=LATER),
            JobEvent(
                *(1, State.AWAITING, 0, "default", "t", None, Raw(SPEC), LATER_TEXT),
                parent=PARENT,
                on=ContinueOn.SUCCEEDED,
            ),
        ),
    ],
)
def test_a_job_begins_ready_scheduled_or_awaiting(create: wire.CreateJob, expected: JobEvent) -> None:
    first = first_event(create, SPEC, NOW)
    assert json.encode(first) == json.encode(expected)
    job = new_job(ID, first, SPEC, 7, NOW, create)
    assert (job.state, job.version, job.priority, job.created_ms) == (expected.state, 1, 7, NOW)
    assert (job.ready_ms == NOW) is (expected.state is State.ENQUEUED)
    assert job.due_ms == (LATER_MS if expected.due else 0)
    assert (job.parent, job.on) == (expected.parent, expected.on)


def test_an_ended_job_is_revived_from_its_snapshot() -> None:
    spec = wire.JobSpec(Raw(b"[1]"), priority=7)
    created = datetime(2027, 1, 15, tzinfo=UTC)
    snapshot = wire.Snapshot(9, State.SUCCEEDED, 2, "t", "q", created, spec, {"p": Raw(b"1")})
    expected = Job(ID, "q", "t", State.SUCCEEDED, 9, 2, 7, NOW - 8 * 3_600_000, json.encode(spec))
    expected.parameters = b'{"p":1}'
    assert revived(ID, snapshot) == expected


def test_the_events_that_filters_elect_keep_what_they_do_not_change() -> None:
    job = in_state(State.PROCESSING)
    assert enqueued(job, "r", queue="q2") == event(State.ENQUEUED, reason="r", retry=2, lost=1, queue="q2")
    assert enqueued(job, None, retries=0, attempt=0, lost=0) == event(State.ENQUEUED, attempt=0)
    assert scheduled(job, LATER_MS, "r") == event(State.SCHEDULED, reason="r", due=LATER_TEXT, retry=2)
    assert deleted(job, "r") == event(State.DELETED, reason="r")
    assert failed(job, BOOM, "r") == event(State.FAILED, reason="r", exception=BOOM)
