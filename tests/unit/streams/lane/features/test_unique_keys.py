"""Unique keys in one lane: who is refused, who has to give way, and how long a job has its key."""

from typing import Any

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_shard, new_job_id
from joblog.streams.contract.relations import UniquePolicy, UniqueUntil
from joblog.streams.contract.shards import shards_of
from joblog.streams.contract.states import State
from joblog.streams.contract.wire import DeleteJob, RequeueJob, Snapshot, Unique
from joblog.streams.lane.features import unique_keys
from joblog.streams.lane.features.unique_keys import UNIQUE_KEY, UniqueKeys
from joblog.streams.lane.job import Job, enqueued
from joblog.streams.lane.rules import LaneRules
from msgspec import Raw, json, structs

from tests.support.scene import (
    IN_A_MINUTE,
    NEVER,
    NOW,
    STARTED_AT,
    Pause,
    Scene,
    Tick,
    create,
    id_of,
    queue_in,
    released,
    run_failed,
    succeeded,
    worker,
)

A, B, C = map(id_of, "abc")


def unique(name: str, key: str = "k", **fields: Any) -> wire.CreateJob:
    said = {one: fields.pop(one) for one in ("policy", "until", "period_s", "wait_s") if one in fields}
    return create(name, unique=Unique(key, **said), **fields)


def keys(scene: Scene) -> UniqueKeys:
    return next(one for one in scene.lane.features if isinstance(one, UniqueKeys))


def snapshot(create: wire.CreateJob, version: int, state: State) -> Snapshot:
    spec = wire.JobSpec(create.args, unique=create.unique)
    return Snapshot(version, state, 0, create.task, create.queue, STARTED_AT, spec)


# --- who is refused ---


@pytest.mark.parametrize(("policy", "code"), [("reject", "not_unique"), ("existing", "existing")])
def test_another_job_of_the_key_is_not_created_and_names_the_one_that_is_there(policy: str, code: str) -> None:
    scene = Scene().given(unique("a")).when(unique("b", policy=UniquePolicy(policy)))
    scene.then(f"rejected {code}")
    rejected = scene.out.events[0][3]
    assert isinstance(rejected, wire.CommandRejected)
    assert (rejected.job_id, rejected.existing) == (B, A)
    assert "'k'" in rejected.reason
    assert list(scene.lane.jobs) == [A]


def test_other_keys_other_queues_and_jobs_without_a_key_do_not_count() -> None:
    scene = Scene().given(unique("a"))
    scene.when(unique("b", "other"), unique("c", queue="q9"), create("d")).then(
        "b1 Enqueued", "c1 Enqueued", "d1 Enqueued"
    )


def test_a_job_has_its_key_until_it_ends_retries_included() -> None:
    scene = Scene().given(worker(), unique("a", retry=IN_A_MINUTE))
    scene.when(unique("b")).then("rejected not_unique")
    scene.given(run_failed("a", 2)).reloaded()
    scene.when(unique("b")).then("rejected not_unique")
    scene.given(wire.JobDue(job_id=A, version=4)).given(succeeded("a", 6))
    scene.when(unique("b")).then("b1 Enqueued", "b2 Processing #1 by w")


@pytest.mark.parametrize("end", ["delete", "fail"])
def test_deletion_and_final_failure_are_ends(end: str) -> None:
    scene = Scene().given(worker(), unique("a", retry=NEVER))
    scene.given(DeleteJob(job_id=A) if end == "delete" else run_failed("a", 2))
    scene.when(unique("b", priority=1)).then("b1 Enqueued", "b2 Processing #1 by w")


def test_a_key_until_the_start_is_free_from_the_first_start_on() -> None:
    scene = Scene().given(unique("a", until=UniqueUntil.START))
    scene.when(unique("b", until=UniqueUntil.START)).then("rejected not_unique")
    scene.given(worker()).reloaded()
    scene.when(unique("b", until=UniqueUntil.START)).then("b1 Enqueued")
    scene.when(unique("c", until=UniqueUntil.START)).then("rejected not_unique")


def test_a_run_that_was_given_back_unstarted_claims_its_key_again_beside_the_one_that_came_meanwhile() -> None:
    scene = Scene().given(worker(), unique("a", until=UniqueUntil.START)).given(unique("b", until=UniqueUntil.START))
    scene.given(released("a", 2), wire.WorkerStopping(worker="w"))
    assert keys(scene).claims == {"q0/k": (A, B)}
    scene.given(DeleteJob(job_id=B)).reloaded()
    assert keys(scene).claims == {"q0/k": (A,)}
    scene.when(unique("c")).then("rejected not_unique")


def test_a_key_for_a_period_outlasts_its_job_and_a_takeover_and_is_dropped_when_it_is_over() -> None:
    once = {"until": UniqueUntil.PERIOD, "period_s": 60.0}
    scene = Scene().given(worker(), unique("a", **once)).given(succeeded("a", 2)).reloaded()
    scene.when(Pause(59_000), unique("b", **once)).then("rejected not_unique")
    assert UNIQUE_KEY + "q0/k" in scene.kept
    scene.when(Tick(1_000)).then()
    assert UNIQUE_KEY + "q0/k" not in scene.kept
    assert keys(scene).periods == {}
    scene.when(unique("b", **once)).then("b1 Enqueued")


def test_the_period_of_a_later_job_is_not_dropped_with_that_of_the_one_it_replaced() -> None:
    once = {"until": UniqueUntil.PERIOD, "policy": UniquePolicy.REPLACE}
    scene = Scene().given(unique("a", period_s=10.0, **once)).given(unique("b", period_s=60.0, **once))
    scene.given(Tick(11_000)).when(unique("c", until=UniqueUntil.PERIOD, period_s=1.0)).then("rejected not_unique")


def test_periods_that_were_taken_over_take_no_memory() -> None:
    scene = Scene()
    for n in range(1_000):
        create_again = wire.CreateJob(
            "t",
            queue="q0",
            job_id=new_job_id(0, NOW, n),
            unique=Unique("k", UniquePolicy.REPLACE, UniqueUntil.PERIOD, 3_600.0),
        )
        scene.given(create_again)
    assert len(keys(scene)._ends) < 200


def test_a_lane_holds_so_many_periods_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unique_keys, "PERIODS_MAX", 1)
    once = {"until": UniqueUntil.PERIOD, "period_s": 60.0}
    scene = Scene().given(unique("a", **once))
    scene.when(unique("b", "other", **once), unique("c", "third")).then("rejected too_many", "c1 Enqueued")
    scene.when(Tick(60_000), unique("b", "other", **once)).then("b1 Enqueued")


# --- who has to give way ---


def test_replace_deletes_the_other_one_and_cancels_its_run() -> None:
    scene = Scene().given(worker(), unique("a"))
    scene.when(unique("b", policy=UniquePolicy.REPLACE))
    scene.then("a3 Deleted", "b1 Enqueued", "b2 Processing #1 by w").and_assigned(
        "w: cancel a, lease 2", "w: run b, lease 2"
    )
    assert B in str(scene.reasons[0])


class KeepsAll:
    name, order, states = "keeps", 50, frozenset({State.DELETED})

    def elect(self, job: Job, *_: Any) -> wire.JobEvent | None:
        return enqueued(job, "not to be deleted")


def test_a_job_whose_deletion_a_filter_refuses_keeps_its_key() -> None:
    scene = Scene(filters=[KeepsAll()]).given(unique("a"))
    scene.when(unique("b", policy=UniquePolicy.REPLACE)).then("a2 Enqueued", "rejected not_unique")
    scene.when(unique("b", policy=UniquePolicy.DEBOUNCE, wait_s=1.0)).then("a3 Enqueued", "rejected not_unique")


def test_debounce_runs_once_a_wait_after_the_last_creation() -> None:
    last = {"policy": UniquePolicy.DEBOUNCE, "wait_s": 5.0}
    scene = Scene().given(worker()).when(unique("a", **last)).then("a1 Scheduled")
    scene.when(Pause(4_000), unique("b", **last)).then("a2 Deleted", "b1 Scheduled")
    assert scene.job("b").due_ms == NOW + 9_000
    scene.when(wire.JobDue(job_id=B, version=1)).then("b2 Enqueued", "b3 Processing #1 by w")


def test_a_debounced_job_waits_for_the_one_that_runs_also_after_a_takeover() -> None:
    last = {"policy": UniquePolicy.DEBOUNCE, "wait_s": 5.0}
    scene = Scene().given(worker(slots=3), unique("a")).when(unique("b", **last)).then("b1 Scheduled")
    scene.when(wire.JobDue(job_id=B, version=1)).then("b2 Enqueued")
    scene.reloaded().when(Tick(100)).then()
    scene.when(unique("c", **last)).then("b3 Deleted", "c1 Scheduled")
    scene.given(wire.JobDue(job_id=C, version=1))
    scene.when(succeeded("a", 2)).then("a3 Succeeded", "c3 Processing #1 by w")


def test_two_jobs_of_a_key_take_turns_when_the_first_one_is_retried() -> None:
    scene = Scene().given(worker(slots=3), unique("a", retry=IN_A_MINUTE))
    scene.given(unique("b", policy=UniquePolicy.DEBOUNCE, wait_s=5.0))
    scene.given(run_failed("a", 2))
    scene.when(wire.JobDue(job_id=B, version=1)).then("b2 Enqueued", "b3 Processing #1 by w")
    scene.when(wire.JobDue(job_id=A, version=4)).then("a5 Enqueued retry 1")
    scene.when(succeeded("b", 3)).then("b4 Succeeded", "a6 Processing #2 by w")
    assert keys(scene).claims == {"q0/k": (A,)}


def test_a_run_that_is_given_back_lets_the_waiting_one_start() -> None:
    scene = Scene().given(worker(slots=3), unique("a"))
    scene.given(unique("b", policy=UniquePolicy.DEBOUNCE, wait_s=5.0))
    scene.given(wire.JobDue(job_id=B, version=1))
    scene.when(released("a", 2))
    assert scene.events[0] == "a3 Enqueued"
    assert len(scene.events) == 2
    assert [job.state for job in scene.lane.jobs.values()].count(State.PROCESSING) == 1


# --- who may come back ---


def test_a_requeue_is_refused_while_another_job_has_the_key() -> None:
    failed = unique("a", retry=NEVER)
    scene = Scene().given(worker(), failed).given(run_failed("a", 2)).given(unique("b"))
    scene.when(RequeueJob(job_id=A)).then("rejected not_unique")
    scene.given(succeeded("b", 2)).when(RequeueJob(job_id=A)).then("a4 Enqueued", "a5 Processing #2 by w")
    scene.when(unique("c")).then("rejected not_unique")


def test_a_job_that_ended_long_ago_comes_back_only_if_its_key_is_free() -> None:
    old = unique("a")
    back = RequeueJob(job_id=A, snapshot=snapshot(old, 3, State.SUCCEEDED))
    scene = Scene().given(unique("b")).when(back).then("rejected not_unique")
    scene.given(DeleteJob(job_id=B)).when(back).then("a4 Enqueued")
    scene.when(unique("c")).then("rejected not_unique")


def test_a_job_with_a_unique_key_stays_in_its_queue() -> None:
    scene = Scene().given(unique("a")).when(RequeueJob(job_id=A, queue="q9")).then("rejected invalid")
    scene.when(RequeueJob(job_id=A, queue="q0")).then("a2 Enqueued")


# --- which lane ---

SHARDED = LaneRules(shards={queue_in(0, 4): 4})


def test_a_job_without_an_id_goes_to_the_lane_of_its_key() -> None:
    queue = queue_in(0, 4)
    scene = Scene(0, 4, rules=SHARDED)
    for key in ("k", "l", "m", "n"):
        lane = lane_of_shard(queue, 4, shards_of(queue, SHARDED.shards, {}).of_key(key))
        for idempotency_key in (None, "other"):
            command = wire.CreateJob("t", queue=queue, unique=Unique(key), idempotency_key=idempotency_key)
            assert scene.lane.lane_of(command) == lane


def test_a_job_whose_id_names_another_lane_than_its_keys_is_refused() -> None:
    queue = queue_in(0, 4)
    home = lane_of_shard(queue, 4, shards_of(queue, SHARDED.shards, {}).of_key("k"))
    for number in range(4):
        scene = Scene(number, 4, rules=SHARDED)
        scene.when(unique("a", lane=number, lanes=4, queue=queue))
        scene.then("a1 Enqueued" if number == home else "rejected wrong_lane")


def test_a_key_does_not_move_while_the_number_of_shards_grows_and_the_former_one_is_known() -> None:
    queue = queue_in(0, 4)
    grown = LaneRules(shards={queue: 4}, shards_before={queue: 1})
    for number in range(4):
        scene = Scene(number, 4, rules=grown).when(unique("a", lane=number, lanes=4, queue=queue))
        scene.then("a1 Enqueued" if number == 0 else "rejected wrong_lane")


def test_an_ended_job_does_not_come_back_in_a_lane_that_its_key_has_left() -> None:
    queue = queue_in(0, 4)
    key = next(key for key in map(str, range(50)) if shards_of(queue, {queue: 2}, {}).of_key(key) == 1)
    scene = Scene(1, 4, rules=LaneRules(shards={queue: 2}))
    scene.given(unique("a", key, lane=1, lanes=4, queue=queue), worker(queues=(queue,)))
    scene.rules = LaneRules(shards={queue: 1}, shards_before={queue: 2})
    ended = scene.given(DeleteJob(job_id=id_of("a", 1))).reloaded()
    said = Snapshot(3, State.DELETED, 1, "t", queue, STARTED_AT, wire.JobSpec(unique=Unique(key)))
    ended.when(RequeueJob(job_id=id_of("a", 1), snapshot=said)).then("rejected wrong_lane")


def test_the_record_of_a_job_has_its_key() -> None:
    scene = Scene().given(unique("a"))
    assert json.decode(json.encode(scene.job("a").extras))[3] == {"key": "k"}


def test_a_job_that_had_its_key_until_its_start_and_was_given_back_runs_again_beside_the_next_one() -> None:
    scene = Scene().given(worker(slots=2), unique("a", until=UniqueUntil.START)).given(unique("b"))
    given_back = structs.replace(released("a", 2), started=True)
    scene.when(given_back).then("a3 Enqueued", "a4 Processing #2 by w")


def test_of_two_jobs_that_have_a_key_the_same_one_is_named_after_a_takeover() -> None:
    waits = {"policy": UniquePolicy.DEBOUNCE, "wait_s": 5.0}
    scene = Scene().given(worker()).given(unique("a", priority=1), create("d"))
    scene.given(unique("b", **waits), wire.SetParameter(job_id=A, name="p", value=Raw(b"1")))
    named = []
    for one in (scene, scene.reloaded()):
        one.when(unique("c", policy=UniquePolicy.EXISTING))
        rejected = one.out.events[-1][3]
        assert isinstance(rejected, wire.CommandRejected)
        named.append(rejected.existing)
    assert named == [A, A]


def test_no_job_gives_way_to_one_that_is_refused_since_the_lane_holds_too_many_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unique_keys, "PERIODS_MAX", 0)
    scene = Scene().given(unique("a"))
    scene.when(unique("b", policy=UniquePolicy.REPLACE, until=UniqueUntil.PERIOD, period_s=9.0))
    scene.then("rejected too_many")
    assert scene.job("a").state is State.ENQUEUED
