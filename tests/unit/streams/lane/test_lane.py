from datetime import UTC, datetime
from typing import Any

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.wire import JobDue, RequeueJob, RescheduleJob, SetParameter, Timer
from joblog.streams.lane.job import Job, scheduled
from joblog.streams.lane.lane import OVERDUE_MAX
from joblog.streams.lane.output import BYTES_MAX
from joblog.streams.lane.rules import LaneRules
from msgspec import Raw, json

from tests.support.scene import (
    IN_A_MINUTE,
    NEVER,
    NOW,
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

A, B = id_of("a"), id_of("b")
AT_TEN = datetime(2027, 1, 15, 10, tzinfo=UTC)
AT_TEN_MS = NOW + 2 * 3_600_000
DELETE_A, REQUEUE_A = wire.DeleteJob(job_id=A), RequeueJob(job_id=A)


def due(name: str, version: int) -> JobDue:
    return JobDue(job_id=id_of(name), version=version)


# --- from creation to success ---


def test_a_job_is_assigned_as_soon_as_a_worker_has_a_slot() -> None:
    scene = Scene().when(create("a")).then("a1 Enqueued").and_assigned()
    scene.when(worker()).then("a2 Processing #1 by w").and_assigned("w: run a, lease 2")


def test_a_free_slot_takes_a_new_job_in_the_same_turn() -> None:
    scene = Scene().given(worker()).when(create("a")).then("a1 Enqueued", "a2 Processing #1 by w")
    scene.and_assigned("w: run a, lease 2")


def test_what_the_worker_is_told_holds_all_that_a_run_needs() -> None:
    said = create("a", args=Raw(b'["x"]'), priority=3, parameters={"p": Raw(b"1")})
    scene = Scene().given(worker(partition=7)).when(wire.Received("c", "/shop", said, "00-trace"))
    spec = wire.JobSpec(Raw(b'["x"]'), priority=3, parameters=Raw(b'{"p":1}'))
    run = wire.RunJob(
        job_id=A,
        lease=2,
        attempt=1,
        lane=0,
        task="t",
        queue="q0",
        spec=Raw(json.encode(spec)),
        parameters=Raw(b"{}"),
        ready_ms=NOW,
        traceparent="00-trace",
    )
    assert [(p, w, json.encode(r)) for p, w, r in scene.out.assignments] == [(7, "w", json.encode(run))]


def test_a_run_that_succeeds_ends_the_job_and_frees_its_slot() -> None:
    scene = Scene().given(worker(), create("a"), create("b"))
    scene.when(succeeded("a", 2)).then("a3 Succeeded", "b2 Processing #1 by w")
    assert scene.lane.jobs.keys() == {B}
    assert scene.out.state[A] is None
    assert scene.lane.ended.get(A) == (State.SUCCEEDED, 3)


def test_every_event_names_its_cause_and_its_trace() -> None:
    said = wire.Received("order-7", "/shop", create("a"), "00-trace")
    scene = Scene().given(worker()).when(said)
    began = [(f"{A}/1", "order-7", "00-trace"), (f"{A}/2", f"{A}/1", "00-trace")]
    assert [(event_id, cause, trace) for _, _, event_id, _, cause, trace in scene.out.events] == began
    scene.when(succeeded("a", 2))
    ended = [(f"{A}/3", "reports/0@3", "00-trace")]
    assert [(event_id, cause, trace) for _, _, event_id, _, cause, trace in scene.out.events] == ended


# --- failure and retry ---


def test_a_failed_run_is_retried_after_its_delay() -> None:
    scene = Scene().given(worker(), create("a", retry=IN_A_MINUTE))
    scene.when(run_failed("a", 2)).then("a3 Failed traversed", "a4 Scheduled retry 1")
    assert scene.out.timers == [Timer(A, 4, NOW + 60_000)]
    scene.when(Pause(60_000), due("a", 4)).then("a5 Enqueued retry 1", "a6 Processing #2 by w")
    scene.when(succeeded("a", 6)).then("a7 Succeeded")


def test_a_job_whose_retries_are_spent_stays_failed_and_at_hand() -> None:
    scene = Scene().given(worker(), create("a", retry=NEVER))
    scene.when(run_failed("a", 2)).then("a3 Failed")
    assert scene.job("a").state is State.FAILED
    assert isinstance(scene.out.state[A], Job)


def test_a_retry_whose_timer_never_comes_is_elected_by_the_lane_itself() -> None:
    scene = Scene().given(worker(), create("a", retry=IN_A_MINUTE)).given(run_failed("a", 2))
    scene.when(Tick(64_999, caught_up=False)).then()
    scene.when(Tick(1, caught_up=False)).then("a5 Enqueued retry 1", "a6 Processing #2 by w")
    scene.when(due("a", 4)).then()
    assert scene.out.counts["joblog_stale_reports_total", "job.due"] == 1


def test_a_released_run_is_given_again_without_spending_an_attempt() -> None:
    scene = Scene().given(worker("w"), create("a")).given(worker("v"))
    scene.when(released("a", 2)).then("a3 Enqueued", "a4 Processing #1 by w")
    scene.when(released("a", 4, started=True)).then("a5 Enqueued", "a6 Processing #2 by v")


@pytest.mark.parametrize("late", [succeeded("a", 2), run_failed("a", 2), released("a", 2), succeeded("a", 4, "v")])
def test_the_report_of_an_old_lease_is_counted_and_dropped(late: wire.RunReport) -> None:
    scene = Scene().given(worker("w"), create("a")).given(released("a", 2))
    assert scene.job("a").lease == 4
    scene.when(late).then()
    assert sum(scene.out.counts.values()) == 1
    assert scene.job("a").state is State.PROCESSING


def test_a_report_said_twice_counts_once() -> None:
    scene = Scene().given(worker(), create("a")).when(succeeded("a", 2), succeeded("a", 2)).then("a3 Succeeded")
    assert scene.out.counts["joblog_stale_reports_total", "run.succeeded"] == 1


# --- later ---


def test_a_job_for_later_waits_for_its_timer() -> None:
    scene = Scene().given(worker()).when(create("a", run_at=AT_TEN)).then("a1 Scheduled")
    assert scene.out.timers == [Timer(A, 1, AT_TEN_MS)]
    scene.when(Pause(7_200_000), due("a", 1)).then("a2 Enqueued", "a3 Processing #1 by w")


def test_a_rescheduled_job_ignores_its_old_timer() -> None:
    scene = Scene().given(create("a", run_at=AT_TEN))
    scene.when(RescheduleJob(job_id=A, run_at=datetime(2027, 1, 16, tzinfo=UTC))).then("a2 Scheduled")
    assert scene.out.timers == [Timer(A, 2, NOW + 57_600_000)]
    scene.when(Tick(7_300_000), due("a", 1)).then()
    scene.when(Tick(60_000_000)).then("a3 Enqueued")


def test_a_parameter_set_while_a_job_waits_for_its_timer_renews_the_timer() -> None:
    scene = Scene().given(create("a", run_at=AT_TEN))
    scene.when(SetParameter(job_id=A, name="p", value=1)).then("a2 parameter p=1")
    assert scene.out.timers == [Timer(A, 2, AT_TEN_MS)]
    scene.when(Tick(7_200_000), due("a", 1), due("a", 2)).then("a3 Enqueued")


def test_many_overdue_jobs_are_elected_some_at_a_time() -> None:
    scene = Scene()
    for number in range(OVERDUE_MAX + 1):
        job_id = new_job_id(0, NOW, number)
        scene.given(wire.CreateJob("t", queue="q0", job_id=job_id, run_at=AT_TEN))
    scene.when(Tick(8_000_000))
    assert len(scene.events) == OVERDUE_MAX
    scene.when(Tick(0))
    assert len(scene.events) == 1


def test_overdue_jobs_are_elected_in_parts_that_fit_into_a_transaction() -> None:
    scene, large = Scene(), Raw(b'["' + b"x" * 500_000 + b'"]')
    for number in range(100):
        scene.given(create(chr(200 + number), args=large, run_at=AT_TEN))
    elected, turns = 0, 0
    scene.when(Tick(8_000_000))
    while scene.events:
        assert len(scene.events) * len(large) < BYTES_MAX + len(large)
        elected, turns = elected + len(scene.events), turns + 1
        scene.when(Tick(0))
    assert elected == 100
    assert turns > 1


def test_a_filter_that_elects_the_past_again_and_again_does_not_stop_the_lane() -> None:
    class Past:
        name, order, states = "past", 50, frozenset({State.ENQUEUED})

        def elect(self, job: Job, *_: Any) -> wire.JobEvent:
            return scheduled(job, NOW, "yesterday")

    scene = Scene(filters=[Past()]).given(create("a"))
    scene.when(Tick(5_000))
    assert scene.events[-1] == f"a{OVERDUE_MAX + 1} Scheduled"


# --- loading ---


def test_a_lane_that_was_taken_over_goes_on_as_if_nothing_had_happened() -> None:
    scene = Scene().given(worker("w", 2), create("a"), create("b"), create("c"), create("d", run_at=AT_TEN))
    scene.given(SetParameter(job_id=A, name="p", value=[1]))
    before = dict(scene.lane.jobs)
    scene.reloaded()
    assert scene.lane.jobs == before
    scene.when(succeeded("a", 2)).then("a4 Succeeded", "c2 Processing #1 by w")
    scene.when(Tick(7_300_000, caught_up=False)).then("d2 Enqueued")


def test_a_lane_that_was_taken_over_remembers_what_ended() -> None:
    scene = Scene().given(worker(), create("a")).given(succeeded("a", 2)).reloaded()
    scene.when(create("a")).then("rejected duplicate")


def test_a_worker_that_said_nothing_to_the_new_owner_is_lost_after_its_lease() -> None:
    scene = Scene().given(worker(), create("a"))
    del scene.kept["worker:w"]
    scene.reloaded().when(Tick(15_000)).then()
    scene.when(Tick(1)).then("a3 Enqueued lost 1")


def test_a_worker_that_speaks_to_the_new_owner_keeps_its_jobs() -> None:
    scene = Scene().given(worker(), create("a"))
    del scene.kept["worker:w"]
    scene.reloaded().when(Tick(10_000), worker()).then()
    scene.when(Tick(10_000)).then()
    scene.when(succeeded("a", 2)).then("a3 Succeeded")


# --- forgetting ---


def test_the_oldest_failed_jobs_are_forgotten_when_there_are_too_many() -> None:
    scene = Scene(rules=LaneRules(failed_kept=1))
    scene.given(worker("w", 2), create("a", retry=NEVER), create("b", retry=NEVER))
    scene.given(run_failed("a", 2)).given(Tick(5), run_failed("b", 2)).when(Tick(1)).then()
    assert scene.lane.jobs.keys() == {B}
    assert (A in scene.out.state, scene.out.state[A]) == (True, None)
    scene.when(REQUEUE_A).then("rejected ended")


def test_a_failed_job_is_forgotten_after_its_time() -> None:
    scene = Scene(rules=LaneRules(failed_ms=1000)).given(worker(), create("a", retry=NEVER)).given(run_failed("a", 2))
    assert scene.when(Tick(1000)).lane.jobs
    assert not scene.when(Tick(1)).lane.jobs
    assert scene.lane.ended.get(A) == (State.FAILED, 3)


def test_a_failed_job_that_was_requeued_is_not_forgotten() -> None:
    scene = Scene(rules=LaneRules(failed_ms=1000)).given(worker(), create("a", retry=NEVER)).given(run_failed("a", 2))
    scene.given(REQUEUE_A).when(Tick(2000)).then()
    assert scene.job("a").state is State.PROCESSING


def test_what_waited_for_a_failed_job_is_deleted_when_that_is_forgotten() -> None:
    scene = Scene(rules=LaneRules(failed_ms=1000)).given(worker(), create("a", retry=NEVER), create("b", on="a"))
    scene.given(wire.ContinuationAdded(job_id=A, child=B, on=ContinueOn.SUCCEEDED)).given(run_failed("a", 2))
    scene.when(Tick(1001)).and_told("lane 0: b does not run, a is Failed")


def test_only_so_many_ended_jobs_are_remembered() -> None:
    scene = Scene(rules=LaneRules(remembered=1)).given(create("a"), create("b"))
    scene.given(wire.DeleteJob(job_id=A)).given(wire.DeleteJob(job_id=B))
    assert len(scene.lane.ended) == 1
    scene.when(create("a"), create("b")).then("a1 Enqueued", "rejected duplicate")
