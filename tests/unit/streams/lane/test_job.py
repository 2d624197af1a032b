from datetime import UTC, datetime
from typing import Any

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.states import FINAL_STATES, ContinueOn, State
from joblog.streams.contract.wire import JobEvent
from joblog.streams.lane.extras import USES_TIMES, Extras
from joblog.streams.lane.filters import FilterChain
from joblog.streams.lane.job import Job
from joblog.streams.lane.transitions import (
    EXPIRED,
    PARAMETERS_BYTES_MAX,
    TRANSITIONS,
    Assigned,
    Election,
    Expired,
    Held,
    Lost,
    ParentNoted,
    Rejection,
    decide,
)
from msgspec import Raw, json, structs

from tests.support.jobs import BOOM, ID, LATER, LATER_MS, LATER_TEXT, NOW, NOW_TEXT, PARENT, event, in_state

NO_FILTERS = Election(NOW, 0, FilterChain(()).elect, frozenset())
RUN = {"job_id": ID, "lease": 5, "worker": "w"}
SUCCEEDED = wire.RunSucceeded(**RUN, result=Raw(b'"ok"'), duration_ms=2.5, started_ms=NOW - 400)
FAILED = wire.RunFailed(**RUN, exception=BOOM, duration_ms=2.5, started_ms=NOW - 600)
RELEASED = wire.RunReleased(**RUN, reason="drained")
ENDED_WELL = wire.ParentEnded(job_id=ID, parent=PARENT, state=State.SUCCEEDED, run=True, reason="go")

TOLD = {"parent": PARENT, "outcome": wire.Outcome(State.SUCCEEDED)}


# --- what is heard where ---

AT_ITS_DEADLINE = Extras(USES_TIMES, deadline_ms=NOW)

INPUTS: dict[type, Any] = {
    wire.JobDue: wire.JobDue(job_id=ID, version=5),
    wire.ParentEnded: ENDED_WELL,
    ParentNoted: ParentNoted(PARENT, wire.Outcome(State.SUCCEEDED), "go"),
    wire.ParentRequeued: wire.ParentRequeued(job_id=ID, parent=PARENT),
    Assigned: Assigned("w"),
    Held: Held("mutex m"),
    wire.RunSucceeded: SUCCEEDED,
    wire.RunFailed: FAILED,
    wire.RunReleased: RELEASED,
    Lost: Lost("w", count=False),
    wire.RunProgressed: wire.RunProgressed(**RUN, progress=0.5),
    Expired: EXPIRED,
    wire.DeleteJob: wire.DeleteJob(job_id=ID),
    wire.RequeueJob: wire.RequeueJob(job_id=ID),
    wire.RescheduleJob: wire.RescheduleJob(job_id=ID, run_at=LATER),
    wire.SetParameter: wire.SetParameter(job_id=ID, name="p", value=1),
    wire.SetPriority: wire.SetPriority(job_id=ID, priority=7),
    wire.MoveJob: wire.MoveJob(job_id=ID, queue="other"),
}


def test_every_input_has_a_row_in_the_table() -> None:
    assert INPUTS.keys() == TRANSITIONS.keys()


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("state", State)
def test_an_input_is_heard_in_the_states_of_its_row_and_leads_to_its_candidate(kind: type, state: State) -> None:
    heard_in, candidate = TRANSITIONS[kind]
    decision = decide(
        in_state(state, extras=AT_ITS_DEADLINE, parent=PARENT, on=ContinueOn.SUCCEEDED), INPUTS[kind], NO_FILTERS
    )
    if (kind, state) == (Expired, State.PROCESSING):
        candidate = State.FAILED
    if state in heard_in:
        assert isinstance(decision, tuple)
        assert [(one.version, one.state) for one in decision] == [(6, candidate or state)]
    else:
        assert isinstance(decision, Rejection)
        assert decision.code == "wrong_state"
        assert str(state) in decision.reason


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_only_people_wake_what_has_ended(state: State) -> None:
    heard = {kind for kind, (heard_in, _) in TRANSITIONS.items() if state in heard_in} - {wire.ParentRequeued}
    people = {wire.RequeueJob, wire.RescheduleJob}
    failed = people | {wire.DeleteJob, wire.SetParameter, wire.SetPriority, wire.MoveJob}
    assert heard == (failed if state is State.FAILED else people)


# --- decisions, as whole values ---


@pytest.mark.parametrize(
    ("job", "what", "expected"),
    [
        (
            in_state(State.SCHEDULED),
            INPUTS[wire.JobDue],
            event(State.ENQUEUED, reason="Triggered by its schedule", retry=2, lost=1),
        ),
        (in_state(State.AWAITING), ENDED_WELL, event(State.ENQUEUED, reason="go", retry=2, lost=1, **TOLD)),
        (
            in_state(State.AWAITING, due_ms=LATER_MS),
            ENDED_WELL,
            event(State.SCHEDULED, reason="go", due=LATER_TEXT, retry=2, **TOLD),
        ),
        (
            in_state(State.AWAITING, due_ms=NOW),
            ENDED_WELL,
            event(State.ENQUEUED, reason="go", retry=2, lost=1, **TOLD),
        ),
        (
            in_state(State.AWAITING, due_ms=LATER_MS),
            structs.replace(ENDED_WELL, run=False, reason="no"),
            event(State.DELETED, reason="no", parent=PARENT),
        ),
        (in_state(State.ENQUEUED), Assigned("w2"), event(State.PROCESSING, attempt=2, worker="w2", lease=6)),
        (
            in_state(State.PROCESSING),
            SUCCEEDED,
            event(State.SUCCEEDED, worker="w", lease=5, result=SUCCEEDED.result, duration_ms=2.5, latency_ms=100.0),
        ),
        (
            in_state(State.PROCESSING),
            structs.replace(SUCCEEDED, result=wire.NO_RAW, result_omitted="too long"),
            event(State.SUCCEEDED, worker="w", lease=5, result_omitted="too long", duration_ms=2.5, latency_ms=100.0),
        ),
        (
            in_state(State.PROCESSING),
            FAILED,
            event(
                State.FAILED,
                reason=f"{BOOM.type}: {BOOM.message}",
                worker="w",
                lease=5,
                duration_ms=2.5,
                latency_ms=0.0,  # the worker's clock is behind: it started before the job was ready
                exception=BOOM,
            ),
        ),
        (
            in_state(State.PROCESSING),
            wire.RunProgressed(**RUN, progress=0.4, text="page 40", lines=("a", "b")),
            event(State.PROCESSING, reason="page 40", note="progressed", progress=0.4, lines=("a", "b")),
        ),
        (in_state(State.PROCESSING), RELEASED, event(State.ENQUEUED, attempt=0, reason="drained", retry=2, lost=1)),
        (
            in_state(State.PROCESSING),
            structs.replace(RELEASED, started=True),
            event(State.ENQUEUED, attempt=1, reason="drained", retry=2, lost=1),
        ),
        (
            in_state(State.PROCESSING),
            Lost("w", count=False),
            event(State.ENQUEUED, reason="Worker w was lost", retry=2, lost=2),
        ),
        (
            in_state(State.PROCESSING),
            Lost("w", count=True),
            event(
                State.FAILED,
                reason="Worker w was lost",
                exception=wire.JobException("joblog.WorkerLost", "Worker w was lost", "", ("joblog.WorkerLost",)),
            ),
        ),
        (
            in_state(State.PROCESSING),
            wire.DeleteJob(job_id=ID, reason="unwanted", expected_state=State.PROCESSING, expected_version=5),
            event(State.DELETED, reason="unwanted"),
        ),
        (in_state(State.SUCCEEDED), wire.RequeueJob(job_id=ID), event(State.ENQUEUED)),
        (in_state(State.ENQUEUED), wire.RequeueJob(job_id=ID, queue="q2"), event(State.ENQUEUED, queue="q2")),
        (
            in_state(State.FAILED),
            wire.RescheduleJob(job_id=ID, run_at=LATER, reason="tomorrow"),
            event(State.SCHEDULED, reason="tomorrow", due=LATER_TEXT),
        ),
        (
            in_state(State.FAILED),
            wire.RescheduleJob(job_id=ID, run_at=datetime(1, 1, 1, tzinfo=UTC)),
            event(State.SCHEDULED, due=NOW_TEXT),
        ),
        (
            in_state(State.PROCESSING),
            wire.SetParameter(job_id=ID, name="p", value={"a": 10**30}, reason="told"),
            event(State.PROCESSING, reason="told", name="p", value=Raw(b'{"a":%d}' % 10**30)),
        ),
    ],
)
def test_an_input_leads_to_one_event(job: Job, what: Any, expected: JobEvent) -> None:
    before = json.encode(job)
    decision = decide(job, what, NO_FILTERS)
    assert isinstance(decision, tuple)
    assert [json.encode(one) for one in decision] == [json.encode(expected)]
    assert json.encode(job) == before


@pytest.mark.parametrize(
    ("state", "what", "code"),
    [
        (State.SCHEDULED, wire.JobDue(job_id=ID, version=4), "stale"),
        (State.SCHEDULED, wire.JobDue(job_id=ID, version=6), "stale"),
        (State.AWAITING, structs.replace(ENDED_WELL, parent=ID), "stale"),
        (State.PROCESSING, structs.replace(SUCCEEDED, lease=4), "stale"),
        (State.PROCESSING, structs.replace(SUCCEEDED, worker="w2"), "stale"),
        (State.PROCESSING, structs.replace(FAILED, lease=4), "stale"),
        (State.PROCESSING, structs.replace(RELEASED, worker="w2"), "stale"),
        (State.PROCESSING, Lost("w2", count=False), "stale"),
        (State.ENQUEUED, wire.DeleteJob(job_id=ID, expected_state=State.FAILED), "wrong_state"),
        (State.ENQUEUED, wire.DeleteJob(job_id=ID, expected_version=4), "wrong_version"),
        (State.ENQUEUED, wire.RequeueJob(job_id=ID, expected_version=6), "wrong_version"),
        (State.FAILED, wire.RescheduleJob(job_id=ID, run_at=LATER, expected_state=State.DELETED), "wrong_state"),
        (State.ENQUEUED, wire.SetParameter(job_id=ID, name="p", value=1, expected_version=1), "wrong_version"),
        (State.ENQUEUED, wire.SetParameter(job_id=ID, name="p", value="x" * PARAMETERS_BYTES_MAX), "too_large"),
    ],
)
def test_what_comes_too_late_or_asks_too_much_is_rejected(state: State, what: Any, code: str) -> None:
    decision = decide(in_state(state), what, NO_FILTERS)
    assert isinstance(decision, Rejection)
    assert decision.code == code


def test_parameters_are_bounded_together() -> None:
    half = "x" * (PARAMETERS_BYTES_MAX // 2)
    job = in_state(State.ENQUEUED, parameters=json.encode({"first": half}))
    again = wire.SetParameter(job_id=ID, name="first", value=half)
    assert isinstance(decide(job, again, NO_FILTERS), tuple)
    assert isinstance(decide(job, structs.replace(again, name="second"), NO_FILTERS), Rejection)


def test_filters_are_asked_about_watched_states_but_not_about_parameters() -> None:
    asked: list[State] = []

    def elect(_job: Job, candidate: JobEvent, _what: Any, _now_ms: int) -> tuple[JobEvent, ...]:
        asked.append(candidate.state)
        return (candidate,)

    watching = Election(NOW, 0, elect, frozenset({State.ENQUEUED}))
    for kind in (wire.SetParameter, Assigned, wire.DeleteJob, wire.RequeueJob):
        decide(in_state(State.ENQUEUED), INPUTS[kind], watching)
    assert asked == [State.ENQUEUED]
