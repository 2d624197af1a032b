from datetime import UTC, datetime
from typing import Any

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.ids import LANES_MAX, hashed_job_id, lane_of_job, new_job_id
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.wire import (
    CreateJob,
    DeleteJob,
    MoveJob,
    Received,
    RequeueJob,
    RescheduleJob,
    SetParameter,
    SetPriority,
)
from joblog.streams.lane.job import deleted, enqueued, failed, scheduled
from joblog.streams.lane.rules import LaneRules
from msgspec import Raw, json, structs

from tests.support.scene import (
    BOOM,
    NEVER,
    NOW,
    Scene,
    Tick,
    create,
    id_of,
    name_of,
    queue_in,
    run_failed,
    succeeded,
    worker,
)

A = id_of("a")
CREATED = datetime(2027, 1, 15, 8, tzinfo=UTC)
LATER = datetime(2027, 1, 16, tzinfo=UTC)
DELETE_A, REQUEUE_A = DeleteJob(job_id=A), RequeueJob(job_id=A)


def snapshot(version: int = 3, state: State = State.SUCCEEDED, **fields: Any) -> wire.Snapshot:
    """Of the job a, as it was created by `create("a")` and ended after one run."""
    return wire.Snapshot(
        **{"version": version, "state": state, "attempt": 1, "task": "t", "queue": "q0", "created_at": CREATED}
        | {"spec": wire.JobSpec(), **fields}
    )


def ended() -> Scene:
    """A scene in which the job a has succeeded at version 3, and the worker is idle."""
    return Scene().given(worker(), create("a")).given(succeeded("a", 2))


# --- which job, and which lane ---


def test_the_same_event_sent_twice_is_the_same_job() -> None:
    said = Received("order-7", "/shop", CreateJob("t", queue="q0"))
    scene = Scene().when(said)
    job_id = hashed_job_id(0, "/shop", "order-7")
    assert scene.lane.jobs.keys() == {job_id}
    assert scene.when(said).events == ["rejected duplicate"]


def test_the_same_key_in_the_same_queue_is_the_same_job_whoever_sends_it() -> None:
    scene = Scene().given(Received("1", "/a", CreateJob("t", queue="q0", idempotency_key="k")))
    assert scene.when(Received("2", "/b", CreateJob("u", queue="q0", idempotency_key="k"))).events == [
        "rejected duplicate"
    ]
    scene.when(Received("3", "/a", CreateJob("t", queue="q1", idempotency_key="k")))
    assert scene.lane.jobs.keys() == {hashed_job_id(0, "q0", "k"), hashed_job_id(0, "q1", "k")}


def test_a_job_that_ended_is_a_duplicate_as_long_as_it_is_remembered() -> None:
    ended().when(create("a")).then("rejected duplicate")


def test_a_rejection_says_which_command_was_rejected_and_why() -> None:
    scene = Scene().when(Received("c-9", "/shop", DELETE_A, "00-trace"))
    ((key, kind, event_id, data, cause, trace),) = scene.out.events
    why = (
        "no such live job; one that ended needs its snapshot to be revived, which `joblog job requeue` takes from "
        "Postgres; if its row has expired there, create the job anew (the log has it: `joblog replay history ID`)"
    )
    assert data == wire.CommandRejected("unknown_job", why, "job.delete", "c-9", A, "commands/0@1")
    assert (key, kind, event_id, cause, trace) == (A, "command.rejected", "commands/0@1/rejected", "c-9", "00-trace")
    assert scene.out.counts["joblog_commands_rejected_total", "unknown_job"] == 1


def test_a_command_belongs_to_the_lane_of_its_job_or_else_of_its_queue() -> None:
    lane = Scene(1, 4).lane
    assert lane.lane_of(CreateJob("t", job_id=id_of("a", 3))) == 3
    assert lane.lane_of(DeleteJob(job_id=id_of("a", 1))) == 1
    assert lane.lane_of(CreateJob("t", queue=queue_in(2, 4))) == 2
    assert lane.lane_of(CreateJob("t", queue=queue_in(1, 4))) == 1
    assert lane.lane_of(DeleteJob(job_id=id_of("a", LANES_MAX - 1))) == LANES_MAX - 1


def test_a_queue_with_shards_lives_in_as_many_lanes_one_after_the_other() -> None:
    queue = queue_in(3, 4)
    sharded = LaneRules(shards={queue: 2})
    found = [Scene(number, 4, rules=sharded).lane.lane_of(CreateJob("t", queue=queue)) for number in range(4)]
    assert found == [0, 3, 3, 3]


def test_a_job_is_created_in_the_lane_of_its_id_where_its_queue_does_not_live_but_not_with_a_key() -> None:
    scene = Scene(1, 4).when(create("a", lane=1, lanes=4, queue=queue_in(2, 4)))
    scene.then("a1 Enqueued")
    scene.when(create("b", lane=1, lanes=4, queue=queue_in(2, 4), idempotency_key="k")).then("rejected wrong_lane")


def test_a_job_without_an_id_gets_one_of_its_lane() -> None:
    scene = Scene(2, 4).when(CreateJob("t", queue=queue_in(2, 4), idempotency_key="k"))
    assert [lane_of_job(job_id) for job_id in scene.lane.jobs] == [2]


# --- delete ---


def test_a_waiting_job_is_deleted() -> None:
    scene = Scene().given(create("a")).when(DELETE_A).then("a2 Deleted").and_assigned()
    assert (A in scene.out.state, scene.out.state[A]) == (True, None)
    scene.when(worker()).then()


def test_a_running_job_is_deleted_at_once_and_its_worker_told() -> None:
    scene = Scene().given(worker(), create("a"), create("b"))
    scene.when(DELETE_A).then("a3 Deleted", "b2 Processing #1 by w")
    scene.and_assigned("w: cancel a, lease 2", "w: run b, lease 2")
    scene.when(succeeded("a", 2)).then()
    assert scene.out.counts["joblog_stale_reports_total", "run.succeeded"] == 1


def test_a_failed_job_is_deleted_but_not_twice() -> None:
    scene = Scene().given(worker(), create("a", retry=NEVER)).given(run_failed("a", 2))
    scene.when(DELETE_A).then("a4 Deleted")
    scene.when(DELETE_A).then("rejected ended")


# --- requeue and reschedule ---


def test_a_failed_job_is_requeued_with_all_its_retries() -> None:
    scene = Scene().given(worker(), create("a", retry=NEVER)).given(run_failed("a", 2))
    scene.when(REQUEUE_A).then("a4 Enqueued", "a5 Processing #2 by w")


def test_a_running_job_is_requeued_and_the_old_run_cancelled() -> None:
    scene = Scene().given(worker(slots=2), create("a"))
    scene.when(REQUEUE_A).then("a3 Enqueued", "a4 Processing #2 by w")
    scene.and_assigned("w: cancel a, lease 2", "w: run a, lease 4")
    scene.when(succeeded("a", 2)).then()
    scene.when(succeeded("a", 4)).then("a5 Succeeded")


def test_a_waiting_job_moves_to_another_queue_of_its_lane() -> None:
    scene = Scene().given(worker(queues=("q0",)), worker("v", queues=("q1",), slots=0), create("a", queue="q1"))
    scene.when(RequeueJob(job_id=A, queue="q0")).then("a2 Enqueued", "a3 Processing #1 by w")
    assert scene.job("a").queue == "q0"


def test_a_job_is_requeued_into_a_queue_of_another_lane() -> None:
    scene = Scene(0, 4).given(create("a", lanes=4))
    scene.when(RequeueJob(job_id=A, queue=queue_in(1, 4))).then("a2 Enqueued")
    assert scene.job("a").queue == queue_in(1, 4)


def test_a_running_job_is_put_off_and_cancelled() -> None:
    scene = Scene().given(worker(), create("a"))
    scene.when(RescheduleJob(job_id=A, run_at=LATER)).then("a3 Scheduled").and_assigned("w: cancel a, lease 2")


def test_an_ended_job_is_revived_by_its_snapshot() -> None:
    scene = ended().when(RequeueJob(job_id=A, snapshot=snapshot())).then("a4 Enqueued", "a5 Processing #2 by w")
    assert scene.lane.ended.get(A) is None
    scene.when(succeeded("a", 5)).then("a6 Succeeded")
    assert scene.lane.ended.get(A) == (State.SUCCEEDED, 6)


def test_an_ended_job_is_revived_for_later() -> None:
    scene = ended().when(RescheduleJob(job_id=A, run_at=LATER, snapshot=snapshot())).then("a4 Scheduled")
    assert scene.out.timers == [wire.Timer(A, 4, NOW + 57_600_000)]


def test_a_revived_job_is_what_its_snapshot_says() -> None:
    spec = wire.JobSpec(Raw(b"[1]"), priority=5, retry=NEVER)
    said = snapshot(7, spec=spec, parameters={"p": Raw(b'"v"')}, attempt=3)
    scene = Scene().when(RequeueJob(job_id=A, snapshot=said)).then("a8 Enqueued")
    job = scene.job("a")
    assert (job.priority, job.spec, job.parameters) == (5, json.encode(spec), b'{"p":"v"}')
    assert (job.created_ms, job.attempt, job.retries) == (NOW, 3, 0)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (REQUEUE_A, "ended"),
        (DELETE_A, "ended"),
        (SetParameter(job_id=A, name="p", value=1), "ended"),
        (RequeueJob(job_id=A, snapshot=snapshot(2)), "wrong_version"),
        (RequeueJob(job_id=A, snapshot=snapshot(state=State.PROCESSING)), "unknown_job"),
        (RequeueJob(job_id=A, snapshot=snapshot(), expected_version=2), "wrong_version"),
        (RequeueJob(job_id=A, snapshot=snapshot(), expected_state=State.DELETED), "wrong_state"),
    ],
)
def test_an_ended_job_stays_ended_without_the_right_snapshot(command: wire.Command, code: str) -> None:
    scene = ended().when(command).then(f"rejected {code}")
    assert scene.lane.ended.get(A) == (State.SUCCEEDED, 3)
    assert not scene.lane.jobs


def test_a_job_that_was_moved_to_a_queue_elsewhere_is_revived_there() -> None:
    scene = Scene(0, 4).when(RequeueJob(job_id=A, snapshot=snapshot(queue=queue_in(1, 4))))
    scene.then("a4 Enqueued")
    assert scene.job("a").queue == queue_in(1, 4)


def test_the_snapshot_of_a_live_job_does_not_count() -> None:
    scene = Scene().given(create("a", run_at=LATER))
    scene.when(RequeueJob(job_id=A, snapshot=snapshot(9, task="other"))).then("a2 Enqueued")
    assert scene.job("a").task == "t"


# --- expectations and parameters ---


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (DeleteJob(job_id=A, expected_state=State.FAILED), "wrong_state"),
        (RequeueJob(job_id=A, expected_version=2), "wrong_version"),
        (RescheduleJob(job_id=A, run_at=LATER, expected_version=2), "wrong_version"),
        (SetParameter(job_id=A, name="p", value=1, expected_state=State.FAILED), "wrong_state"),
    ],
)
def test_a_job_that_is_elsewhere_than_expected_stays_there(command: wire.Command, code: str) -> None:
    scene = Scene().given(create("a")).when(command).then(f"rejected {code}")
    assert (scene.job("a").state, scene.job("a").version) == (State.ENQUEUED, 1)


def test_a_job_where_it_is_expected_is_changed() -> None:
    command = DeleteJob(job_id=A, expected_state=State.ENQUEUED, expected_version=1, reason="unwanted")
    assert Scene().given(create("a")).when(command).then("a2 Deleted").reasons == ["unwanted"]


def test_a_parameter_is_kept_and_given_to_the_next_run() -> None:
    scene = Scene().given(create("a")).given(SetParameter(job_id=A, name="p", value={"x": None}))
    scene.when(SetParameter(job_id=A, name="q", value=2), worker()).then("a3 parameter q=2", "a4 Processing #1 by w")
    assert [bytes(run.parameters) for _, _, run in scene.out.assignments] == [b'{"p":{"x":null},"q":2}']


def test_a_parameter_set_while_a_job_runs_leaves_its_lease() -> None:
    scene = Scene().given(worker(), create("a"))
    scene.when(SetParameter(job_id=A, name="p", value=1)).then("a3 parameter p=1")
    scene.when(succeeded("a", 2)).then("a4 Succeeded")


def test_parameters_that_no_record_could_hold_are_rejected() -> None:
    scene = Scene().given(create("a")).given(SetParameter(job_id=A, name="p", value="x" * 200_000))
    scene.when(SetParameter(job_id=A, name="q", value="x" * 100_000)).then("rejected too_large")


# --- filters ---


class Elects:
    """A filter that says what its test wants, by default when a job is about to start."""

    name, order = "mine", 50

    def __init__(self, answer: Any, state: State = State.PROCESSING) -> None:
        self.states = frozenset({state})
        self.elect = lambda job, *_: answer(job)


def test_a_filter_may_delete_a_job_that_was_about_to_start() -> None:
    scene = Scene(filters=[Elects(lambda job: deleted(job, "too late"))]).given(create("a"), create("b"))
    scene.when(worker()).then("a2 Deleted", "b2 Deleted").and_assigned()
    assert not scene.lane.jobs


def test_a_filter_cannot_keep_a_lane_busy_with_one_job() -> None:
    scene = Scene(filters=[Elects(lambda job: enqueued(job, "again"))]).given(create("a"))
    scene.when(worker()).then("a2 Processing #1 by w")


def test_a_filter_may_delete_a_job_before_it_ever_waits_and_its_continuations_hear_of_it() -> None:
    scene = Scene(filters=[Elects(lambda job: deleted(job, "closed today"), State.ENQUEUED)])
    early, late = (
        wire.ContinuationAdded(job_id=A, child=id_of(name), on=ContinueOn.SUCCEEDED) for name in ("b", "c")
    )
    scene.given(worker(), early)
    scene.when(create("a")).then("a1 Deleted").and_assigned().and_told("lane 0: b does not run, a is Deleted")
    assert A not in scene.kept
    scene.when(late).and_told("lane 0: c does not run, a is Deleted")
    scene.when(create("a")).then("rejected duplicate")


def test_a_filter_may_put_a_new_job_off() -> None:
    later = Elects(lambda job: scheduled(job, NOW + 60_000, "not at night"), State.ENQUEUED)
    scene = Scene(filters=[later]).given(worker()).when(create("a", priority=3)).then("a1 Scheduled").and_assigned()
    assert scene.out.timers == [wire.Timer(A, 1, NOW + 60_000)]
    assert scene.job("a").priority == 3
    (event,) = (data for _, _, _, data, _, _ in scene.out.events)
    assert json.decode(event.spec)["priority"] == 3


def test_a_filter_may_let_a_new_job_start_without_its_parent() -> None:
    scene = Scene(filters=[Elects(lambda job: enqueued(job, "no time to lose"), State.AWAITING)])
    scene.when(create("b", on="a")).then("b1 Enqueued").and_told()
    scene.when(worker()).then("b2 Processing #1 by w")


def test_a_filter_may_fail_a_new_job_which_stays_as_failed_ones_do() -> None:
    refuse = Elects(lambda job: failed(job, BOOM, "forbidden"), State.ENQUEUED)
    scene = Scene(filters=[refuse]).when(create("a")).then("a1 Failed")
    scene.when(Tick(LaneRules().failed_ms - 1)).then()
    assert A in scene.kept
    scene.when(Tick(2)).then()
    assert A not in scene.kept


def test_what_a_filter_says_of_a_new_job_is_what_the_job_is() -> None:
    tired = Elects(lambda job: enqueued(job, "again", retries=3, attempt=2, lost=1), State.ENQUEUED)
    job = Scene(filters=[tired]).when(create("a")).then("a1 Enqueued retry 3 lost 1").job("a")
    assert (job.retries, job.attempt, job.lost) == (3, 2, 1)


def test_a_filter_may_elect_any_queue() -> None:
    elsewhere = queue_in(1, 4)
    moved = Scene(0, 4, filters=[Elects(lambda job: enqueued(job, None, queue=elsewhere), State.ENQUEUED)])
    moved.when(create("a", lanes=4)).then("a1 Enqueued")
    assert moved.job("a").queue == elsewhere


def test_a_filter_may_turn_down_the_revival_of_a_job_which_is_forgotten_again() -> None:
    refuse = Elects(lambda job: deleted(job, "not now"), State.ENQUEUED)
    scene = Scene(filters=[refuse]).when(RequeueJob(job_id=A, snapshot=snapshot(state=State.DELETED)))
    scene.then("a4 Deleted")
    assert not scene.lane.jobs
    assert scene.lane.ended.get(A) == (State.DELETED, 4)
    assert set(scene.kept) == {"ended:0"}


# --- what is forgotten, and counted ---


def test_failed_jobs_that_were_forgotten_come_back_and_fail_again() -> None:
    scene = Scene(rules=LaneRules(failed_kept=2)).given(worker(slots=3))
    for name in "abc":
        gone = snapshot(state=State.FAILED, spec=wire.JobSpec(retry=NEVER))
        scene.given(RequeueJob(job_id=id_of(name), snapshot=gone))
    scene.when(*(run_failed(name, 5) for name in "abc"), Tick(200))
    assert [name_of(job_id) for job_id in scene.lane.jobs] == ["b", "c"]


def test_a_failed_job_that_was_forgotten_is_deleted_by_its_snapshot() -> None:
    failure = snapshot(state=State.FAILED)
    scene = Scene().when(DeleteJob(job_id=A, snapshot=failure)).then("a4 Deleted")
    assert not scene.lane.jobs
    scene.when(DELETE_A).then("rejected ended")
    Scene().when(DeleteJob(job_id=A, snapshot=snapshot())).then("rejected wrong_state")


def test_a_snapshot_that_knows_another_end_revives_nothing() -> None:
    scene = ended().when(DeleteJob(job_id=A, snapshot=snapshot(state=State.FAILED))).then("rejected wrong_version")
    assert scene.reasons == ["the snapshot says Failed at version 3, the job ended as Succeeded at version 3"]


@pytest.mark.parametrize(("on", "told"), [(ContinueOn.DELETED, "runs"), (ContinueOn.SUCCEEDED, "does not run")])
def test_what_waits_for_a_forgotten_job_hears_of_its_deletion(on: ContinueOn, told: str) -> None:
    scene = Scene().given(wire.ContinuationAdded(job_id=A, child=id_of("b"), on=on))
    scene.when(DeleteJob(job_id=A, snapshot=snapshot())).then("rejected wrong_state").and_told()
    scene.when(DeleteJob(job_id=A, snapshot=snapshot(state=State.FAILED))).then("a4 Deleted")
    scene.and_told(f"lane 0: b {told}, a is Deleted")
    assert set(scene.kept) == {"ended:0"}


# --- what no lane could do ---


def test_a_parent_whose_lane_does_not_exist_is_unknown() -> None:
    parent = wire.Parent(new_job_id(4, NOW, 1))
    scene = Scene(0, 4).when(create("a", lanes=4, parent=parent)).then("rejected unknown_job").and_told()
    scene.when(Tick(1)).then()


def test_a_job_cannot_wait_for_itself() -> None:
    Scene().when(create("a", on="a")).then("rejected invalid")


# --- where a job waits, and for how long ---


def test_the_order_of_a_queue_follows_a_priority_at_once() -> None:
    scene = Scene().given(create("a"), create("b"), create("c"))
    scene.when(SetPriority(job_id=id_of("c"), priority=5, reason="vip"), SetPriority(job_id=A, priority=-5))
    scene.then("c2 priority 5", "a2 priority -5")
    assert scene.reasons == ["vip", None]
    scene.reloaded().when(worker(slots=3)).and_assigned("w: run c, lease 3", "w: run b, lease 2", "w: run a, lease 3")


@pytest.mark.parametrize("on", [{}, {"run_at": LATER}, {"on": "b"}])
def test_a_job_keeps_its_state_when_its_priority_or_its_queue_changes(on: dict[str, Any]) -> None:
    scene = Scene().given(create("a", **on))
    state = scene.job("a").state
    scene.when(SetPriority(job_id=A, priority=5), MoveJob(job_id=A, queue="q1"))
    assert scene.events == ["a2 priority 5", "a3 moved to q1"]
    job = scene.reloaded().job("a")
    assert (job.state, job.priority, job.queue, job.version) == (state, 5, "q1", 3)


def test_a_job_that_was_moved_is_run_by_the_workers_of_its_new_queue() -> None:
    scene = Scene().given(create("a"), create("b"))
    scene.when(MoveJob(job_id=A, queue="q1"), worker(slots=3)).and_assigned("w: run b, lease 2")
    scene.when(worker("v", queues=("q1",))).and_assigned("v: run a, lease 3")


def test_a_failed_job_that_was_moved_is_requeued_where_it_was_moved_to() -> None:
    scene = Scene().given(worker(), create("a", retry=NEVER)).given(run_failed("a", 2))
    scene.when(MoveJob(job_id=A, queue="q1"), SetPriority(job_id=A, priority=3), REQUEUE_A)
    assert (scene.job("a").queue, scene.job("a").priority) == ("q1", 3)


def test_a_job_that_runs_or_has_ended_is_not_moved() -> None:
    scene = Scene().given(worker(), create("a"))
    scene.when(MoveJob(job_id=A, queue="q1")).then("rejected wrong_state")
    scene.when(SetPriority(job_id=A, priority=5)).then("a3 priority 5")
    scene.when(succeeded("a", 2)).then("a4 Succeeded")
    scene.when(MoveJob(job_id=A, queue="q1"), SetPriority(job_id=A, priority=5)).then(
        "rejected ended", "rejected ended"
    )


def test_a_job_is_moved_to_any_queue_but_not_with_a_unique_key() -> None:
    scene = Scene(0, 2).given(create("a", lanes=2))
    scene.when(MoveJob(job_id=A, queue=queue_in(1, 2))).then(f"a2 moved to {queue_in(1, 2)}")
    unique = create("u", unique=wire.Unique("k"))
    Scene().given(unique).when(MoveJob(job_id=id_of("u"), queue="q1")).then("rejected unique")


def test_what_a_job_is_expected_to_be_holds_for_its_priority_and_its_queue_too() -> None:
    scene = Scene().given(create("a"))
    scene.when(
        SetPriority(job_id=A, priority=5, expected_version=2),
        MoveJob(job_id=A, queue="q1", expected_state=State.FAILED),
    ).then("rejected wrong_version", "rejected wrong_state")


def test_a_job_is_revived_with_the_priority_that_it_had() -> None:
    scene = ended().when(RequeueJob(job_id=A, snapshot=snapshot(priority=7)))
    assert scene.job("a").priority == 7


@pytest.mark.parametrize("where", ["spec", "set since"])
def test_a_job_that_completes_once_is_not_run_again_when_it_has_succeeded(where: str) -> None:
    once = {"Completion": "once"}
    spec = wire.JobSpec(parameters=Raw(json.encode(once))) if where == "spec" else wire.JobSpec()
    snapshot = wire.Snapshot(
        3, State.SUCCEEDED, 1, "t", "q0", LATER, spec, {} if where == "spec" else {"Completion": Raw(b'"once"')}
    )
    one = Scene().when(
        wire.RequeueJob(job_id=id_of("a"), snapshot=snapshot),
        wire.RescheduleJob(job_id=id_of("a"), snapshot=snapshot, run_at=LATER),
    )
    one.then("rejected completed", "rejected completed")
    other = structs.replace(snapshot, state=State.DELETED)
    one.when(wire.RequeueJob(job_id=id_of("a"), snapshot=other)).then("a4 Enqueued")
    plain = structs.replace(snapshot, spec=wire.JobSpec(), parameters={})
    one.when(wire.RequeueJob(job_id=id_of("b"), snapshot=plain)).then("b4 Enqueued")
