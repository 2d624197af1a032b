"""Jobs with a deadline, or a time within which they have to start."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.streams.contract import wire
from joblog.streams.contract.retry import Curve, OnExceeded, Retry
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.lane.extras import USES_TIMES, Extras
from joblog.streams.lane.features.times import ENDED_MAX, STALE_MIN, Times
from joblog.streams.lane.filters import FilterChain
from joblog.streams.lane.job import Job, enqueued
from joblog.streams.lane.times import DEADLINE_PASSED, over_at
from joblog.streams.lane.transitions import EXPIRED, Election, Rejection, decide

from tests.support.jobs import in_state
from tests.support.scene import (
    IN_A_MINUTE,
    NEVER,
    NOW,
    ClockSet,
    Pause,
    Scene,
    Tick,
    create,
    id_of,
    released,
    run_failed,
    succeeded,
    worker,
)

DEADLINE = datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(seconds=90)
TEXT = "2027-01-15T08:01:30.000Z"


def expiring(name: str, **fields: Any) -> wire.CreateJob:
    return create(name, **{"expires_in_s": 60.0, **fields})


def dated(name: str, **fields: Any) -> wire.CreateJob:
    return create(name, **{"deadline": DEADLINE, **fields})


def times_of(scene: Scene) -> Times:
    return next(one for one in scene.lane.features if isinstance(one, Times))


# --- before it starts ---


@pytest.mark.parametrize("more", [{}, {"run_at": DEADLINE + timedelta(days=1)}, {"on": "z"}])
def test_a_job_that_nobody_starts_is_deleted_when_its_time_is_over(more: dict[str, Any]) -> None:
    one = Scene().given(expiring("a", **more), dated("b", **more))
    one.when(Tick(59_999)).then()
    one.when(Tick(1)).then("a2 Deleted")
    assert one.reasons == ["Expired: not started within 60 s of its creation"]
    one.when(Tick(30_000)).then("b2 Deleted")
    assert one.reasons == [f"Expired: not started before its deadline, {TEXT}"]
    assert one.lane.jobs == {}


def test_the_earlier_of_both_times_counts() -> None:
    one = Scene().given(dated("a", expires_in_s=60.0), dated("b", expires_in_s=600.0))
    one.when(Tick(60_000)).then("a2 Deleted")
    one.when(Tick(30_000)).then("b2 Deleted")


def test_no_job_starts_when_its_time_is_over_though_no_tick_has_come() -> None:
    one = Scene().given(expiring("a"), create("c", priority=-1)).given(Pause(60_000))
    one.when(worker(slots=2)).then("a2 Deleted", "c2 Processing #1 by w")


def test_what_has_started_does_not_expire_but_for_its_deadline() -> None:
    one = Scene().given(worker(), expiring("a", retry=IN_A_MINUTE)).given(run_failed("a", 2))
    one.when(Tick(66_000), worker()).then("a5 Enqueued retry 1", "a6 Processing #2 by w")


def test_a_run_that_is_given_back_before_it_began_was_no_start() -> None:
    one = Scene().given(worker(), expiring("a")).given(worker(slots=0)).given(released("a", 2), worker(slots=0))
    one.when(Tick(60_000)).then("a4 Deleted")


def test_a_requeue_does_not_give_more_time() -> None:
    one = Scene().given(worker(), dated("a", retry=NEVER)).given(run_failed("a", 2)).given(Pause(90_000))
    one.when(wire.RequeueJob(job_id=id_of("a"))).then("a4 Enqueued", "a5 Deleted")


# --- while it runs ---


def test_a_run_is_cancelled_at_the_deadline_and_its_report_comes_too_late() -> None:
    one = Scene().given(worker(), dated("a"), create("b")).given(worker())
    one.when(Tick(90_000, caught_up=False)).then("a3 Failed", "b2 Processing #1 by w")
    one.and_assigned("w: cancel a, lease 2", "w: run b, lease 2")
    (failure, _) = (data for _, _, _, data, _, _ in one.out.events)
    assert failure.exception.type == DEADLINE_PASSED
    assert failure.reason == f"{DEADLINE_PASSED}: the run was cancelled at the job's deadline, {TEXT}"
    one.when(succeeded("a", 2)).then()
    assert one.out.counts["joblog_stale_reports_total", "run.succeeded"] == 1


def test_no_retry_is_due_after_the_deadline() -> None:
    one = Scene().given(worker(), dated("a", retry=IN_A_MINUTE)).given(Pause(29_999), worker())
    one.when(run_failed("a", 2)).then("a3 Failed traversed", "a4 Scheduled retry 1")
    late = Scene().given(worker(), dated("a", retry=IN_A_MINUTE)).given(Pause(30_000), worker())
    late.when(run_failed("a", 2)).then("a3 Failed")
    assert late.reasons == ["shop.Boom: no (no retry before the deadline)"]


def test_a_policy_that_deletes_deletes_what_has_no_time_for_a_retry() -> None:
    policy = Retry(curve=Curve.FIXED, delays_s=(100.0,), attempts=2, on_exceeded=OnExceeded.DELETE)
    one = Scene().given(worker(), dated("a", retry=policy))
    one.when(run_failed("a", 2)).then("a3 Failed traversed", "a4 Deleted")
    assert one.reasons[-1] == "No retry before the deadline: no"


# --- clocks, take-overs, many jobs ---


def test_times_hold_after_a_takeover() -> None:
    one = Scene().given(worker(), dated("a", priority=1), expiring("b")).given(worker()).reloaded()
    one.when(Tick(60_000, caught_up=False)).then("b2 Deleted")
    one = one.reloaded()
    one.when(Tick(30_000, caught_up=False)).then("a3 Failed").and_assigned("w: cancel a, lease 2")


def test_the_time_of_day_counts_as_events_have_it() -> None:
    one = Scene().given(expiring("a")).given(ClockSet(-30_000))
    one.when(Tick(60_000)).then()
    one.when(Tick(30_000)).then("a2 Deleted")
    one = Scene().given(expiring("a")).given(ClockSet(60_000))
    one.when(Tick(0)).then("a2 Deleted")


def test_after_a_pause_jobs_are_ended_some_at_a_time() -> None:
    jobs = [wire.CreateJob("t", queue="q0", idempotency_key=str(n), expires_in_s=1.0) for n in range(ENDED_MAX + 1)]
    one = Scene().given(*jobs)
    assert len(one.when(Tick(3_600_000)).out.events) == ENDED_MAX
    assert len(one.when(Tick(0)).out.events) == 1


def test_jobs_that_end_long_before_their_deadline_take_no_memory_until_then() -> None:
    one = Scene().given(worker(slots=1))
    for n in range(5 * STALE_MIN):
        one.given(dated("a")).given(succeeded("a", 2))
        one.lane.ended.remove(id_of("a"))
        assert len(times_of(one)) <= STALE_MIN + 1, n


def test_a_filter_cannot_keep_a_job_whose_time_is_over() -> None:
    class Keeping:
        name, order, states = "keeping", 50, frozenset({State.DELETED})

        def elect(self, job: Any, *_: Any) -> Any:
            return enqueued(job, "kept")

    one = Scene(filters=[Keeping()]).given(expiring("a"))
    one.when(Tick(60_000)).then("a2 Deleted")
    assert "filter keeping raised ValueError: the job's time is over" in str(one.reasons[0])


# --- the rule, by property ---

JOBS = st.builds(
    lambda state, attempt, deadline, start_by: in_state(
        state, attempt=attempt, extras=Extras(USES_TIMES, deadline_ms=deadline, start_by_ms=start_by)
    ),
    st.sampled_from(State),
    st.integers(0, 2),
    st.sampled_from([0, NOW - 1, NOW, NOW + 1]),
    st.sampled_from([0, NOW - 2, NOW, NOW + 2]),
)
AGREE = FilterChain([])


@given(JOBS, st.sampled_from([NOW - 3, NOW - 1, NOW, NOW + 3]))
def test_a_job_is_ended_when_its_time_is_over_and_not_before(job: Job, now_ms: int) -> None:
    decision = decide(job, EXPIRED, Election(now_ms, 0, AGREE.elect, AGREE.watched))
    if 0 < over_at(job) <= now_ms:
        assert isinstance(decision, tuple)
        (event,) = decision
        assert event.state is (State.FAILED if job.state is State.PROCESSING else State.DELETED)
        assert event.reason
    else:
        assert isinstance(decision, Rejection)


@given(JOBS)
def test_a_deadline_always_counts_and_a_start_only_until_the_first(job: Job) -> None:
    assert job.extras is not None
    at_ms, deadline_ms = over_at(job), job.extras.deadline_ms
    assert at_ms == 0 or job.state not in FINAL_STATES
    if job.state not in FINAL_STATES and deadline_ms:
        assert 0 < at_ms <= deadline_ms
    if job.attempt or job.state is State.PROCESSING:
        assert at_ms in (0, deadline_ms)
