"""Batches over several lanes: created as one, counted exactly, waited for, whatever comes in whatever order."""

from collections import Counter
from datetime import timedelta
from types import SimpleNamespace

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.relations import ParentKind
from joblog.streams.contract.states import AWAITING, DELETED, PROCESSING, SUCCEEDED, ContinueOn, State
from joblog.streams.contract.timestamps import EPOCH
from joblog.streams.elector import rebuild
from joblog.streams.lane.event_fold import EventFold
from joblog.streams.lane.features import batch_waits
from joblog.streams.lane.features.batch_records import BATCH_KEY, WAITS, Batch
from msgspec import json, structs

from tests.support.batch_world import BatchWorld
from tests.support.lane_world import LANES, QUEUES, RULES, done
from tests.support.scene import NOW


def kinds(world: BatchWorld, batch_id: str) -> list[str]:
    return [kind for kind, _ in world.told[batch_id] if kind != "batch.progressed"]


def test_a_batch_ends_when_all_its_jobs_have_and_then_its_continuation_runs() -> None:
    world = BatchWorld()
    first, *rest = world.create([0, 1, 2, 2], lane=1)
    waiter = world.waiter(first.batch_id, lane=2)
    world.send_all([first, *rest, waiter])
    for lane in range(LANES):
        world.turn(lane, 100, 100)
    assert world.folds[waiter.job_id].state is AWAITING
    world.until_quiet()
    assert kinds(world, first.batch_id) == ["batch.created", "batch.succeeded"]
    last = world.told[first.batch_id][-1][1]
    assert (last.total, last.created, last.succeeded, last.state) == (4, 4, 4, SUCCEEDED)
    assert world.folds[waiter.job_id].state is SUCCEEDED
    assert world.started_from_waiting == {waiter.job_id: 1}


def test_a_batch_without_jobs_has_succeeded() -> None:
    world = BatchWorld()
    (first,) = world.create([])
    world.send_all([first])
    world.until_quiet()
    assert kinds(world, first.batch_id) == ["batch.created", "batch.succeeded"]


def test_a_batch_that_waits_holds_its_jobs_back_until_its_parent_has_ended() -> None:
    world = BatchWorld()
    one, *rest = world.create([0, 1])
    two, *more = world.create([0, 1, 2], lane=2, parent=world.waiter(one.batch_id, 0).parent)
    world.send_all([two, *more])
    for _ in range(3):
        for lane in range(LANES):
            world.turn(lane, 100, 100)
    assert {world.folds[job].state for job in world.members[two.batch_id]} == {AWAITING}
    world.send_all([one, *rest])
    world.until_quiet()
    assert kinds(world, two.batch_id) == ["batch.created", "batch.started", "batch.succeeded"]
    assert world.told[two.batch_id][0][1].state is State.AWAITING
    assert all(world.started_from_waiting[job] == 1 for job in world.members[two.batch_id])
    assert PROCESSING not in {fold.state for fold in world.folds.values()}


def all_turns(world: BatchWorld, times: int = 4) -> None:
    for _ in range(times):
        for lane in range(LANES):
            world.turn(lane, 100, 100)


def test_a_cancelled_batch_runs_nothing_more_and_ends() -> None:
    world = BatchWorld()
    first, *rest = world.create([0, 1, 2])
    world.announce(1)
    world.send_all([first, *rest])
    all_turns(world)
    running = {run.job_id for _, run in world.runs}
    attached = world.attach(first.batch_id, [0, 1])
    waiter = world.waiter(first.batch_id, lane=0)
    world.send_all([wire.CancelBatch(batch_id=first.batch_id, reason="wrong file"), *attached, waiter])
    world.take_over(1)
    world.until_quiet()
    states = {job: world.folds[job].state for job in world.members[first.batch_id]}
    assert {job for job, state in states.items() if state is SUCCEEDED} == running
    assert {state for job, state in states.items() if job not in running} == {DELETED}
    last = world.told[first.batch_id][-1][1]
    assert (last.state, last.cancelled, last.total) == (DELETED, True, 5)
    assert world.folds[waiter.job_id].state is DELETED


def test_running_jobs_are_cancelled_if_that_is_asked_for() -> None:
    world = BatchWorld()
    first, *rest = world.create([0, 1])
    world.announce(1)
    world.send_all([first, *rest])
    all_turns(world)
    assert len(world.runs) == 2
    world.send_all([wire.CancelBatch(batch_id=first.batch_id, running=True)])
    all_turns(world)
    assert {world.folds[job].state for job in world.members[first.batch_id]} == {DELETED}


def test_a_cancel_is_one_report_to_each_lane_however_many_jobs_there_are() -> None:
    world = BatchWorld()
    first, *rest = world.create([n % LANES for n in range(300)])
    world.send_all([first, *rest])
    all_turns(world, 2)
    before = sum(len(one.reports) for one in world.partitions)
    world.send_all([wire.CancelBatch(batch_id=first.batch_id)])
    world.turn(0, 100, 100)
    assert sum(len(one.reports) for one in world.partitions) == before + LANES


def test_an_outer_batch_ends_when_its_jobs_and_inner_batches_have() -> None:
    world = BatchWorld()
    outer = world.an_id(2)
    inner = world.create([0, 1], lane=1, batch=outer)
    made = world.create([0], batch_id=outer, inner=(inner[0],))
    marks = made[-2:]
    world.send_all([*made[:-2], *inner, *marks])
    world.until_quiet()
    assert kinds(world, outer) == ["batch.created", "batch.succeeded"]
    assert (world.told[outer][-1][1].total, world.told[outer][-1][1].succeeded) == (2, 2)
    ends = [next(data for kind, data in world.told[one] if kind == "batch.succeeded") for one in (inner[0].batch_id,)]
    assert ends[0].batch == outer


def test_a_cancel_reaches_the_batches_within() -> None:
    world = BatchWorld()
    outer = world.an_id(2)
    inner = world.create([0, 1], lane=1, batch=outer)
    made = world.create([0], batch_id=outer, inner=(inner[0],))
    world.send_all([*made[:-2], *inner, *made[-2:]])
    all_turns(world)
    world.send_all([wire.CancelBatch(batch_id=outer)])
    all_turns(world)
    world.until_quiet()
    assert world.told[inner[0].batch_id][-1][1].cancelled
    assert {world.folds[job].state for job in world.members[inner[0].batch_id]} == {DELETED}
    assert world.told[outer][-1][1].state is DELETED


def test_an_ended_batch_goes_on_when_jobs_are_attached() -> None:
    world = BatchWorld()
    first, *rest = world.create([0])
    world.send_all([first, *rest])
    world.until_quiet()
    world.send_all(world.attach(first.batch_id, [1, 2]))
    world.until_quiet()
    assert kinds(world, first.batch_id) == ["batch.created", "batch.succeeded", "batch.started", "batch.succeeded"]
    assert world.told[first.batch_id][-1][1].total == 3


def test_a_job_may_attach_others_to_its_own_batch_which_then_ends_after_them() -> None:
    """The end of the job may be reported before the lanes have read what it attached."""
    world = BatchWorld()
    world.announce(1)
    first, *rest = world.create([1])
    world.send_all([first, *rest])
    all_turns(world)
    _, run = world.runs[-1]
    world.send_all(world.attach(first.batch_id, [2]))
    world.report(1, done(run.job_id, run.lease, "w"))
    for _ in range(3):
        world.turn(1, 100, 100)
        world.turn(0, 0, 100)  # it reads reports, and has not come to the command
    assert kinds(world, first.batch_id) == ["batch.created"]
    world.until_quiet()
    assert kinds(world, first.batch_id) == ["batch.created", "batch.succeeded"]


def test_jobs_of_a_batch_that_was_never_created_run_and_a_rejection_says_so() -> None:
    world = BatchWorld()
    batch_id = world.an_id(2)
    lost, held = world.an_id(0), world.an_id(1)
    own = wire.Parent(batch_id, kind=ParentKind.BATCH)
    world.send_all([
        wire.CreateJob("t", queue=QUEUES[0][0], job_id=lost, batch=batch_id),
        wire.CreateJob("t", queue=QUEUES[1][0], job_id=held, batch=batch_id, parent=own),
        waiter := world.waiter(batch_id, lane=0),
    ])  # fmt: skip
    world.until_quiet(ms=20_000)
    assert world.folds[lost].state is SUCCEEDED
    assert world.folds[held].state is DELETED
    assert world.folds[waiter.job_id].state is DELETED
    assert [code for code, job in world.rejections if job == batch_id] == ["unknown_batch"]


def test_a_job_that_was_refused_keeps_its_batch_from_succeeding() -> None:
    world = BatchWorld()
    first, job, mark = world.create([0])
    world.unsteady.add(first.batch_id)
    world.send_all([first, structs.replace(job, queue=QUEUES[1][0], idempotency_key="k"), mark])
    world.until_quiet()
    kind, last = world.told[first.batch_id][-1]
    assert (kind, last.reason) == ("batch.deleted", "1 of 1 jobs were not created: see the rejected commands")


def test_what_is_heard_of_a_forgotten_batch_is_harmless() -> None:
    world = BatchWorld()
    first, job, mark = world.create([1], lane=0)
    world.send_all([first, job, mark])
    world.until_quiet()
    for number in range(LANES):
        world.now_ms += RULES.batches_ms + 1 if not number else 0
        world.turn(number, 10, 10)
    all_turns(world)
    assert world.batch(first.batch_id) is None
    assert first.batch_id not in world.parts(world.lanes[1]).parts
    fold = world.folds[job.job_id]
    created_at = EPOCH + timedelta(milliseconds=fold.created_ms)
    spec = json.decode(fold.spec, type=wire.JobSpec)
    snapshot = wire.Snapshot(fold.version, fold.state, fold.attempt, "t", QUEUES[1][0], created_at, spec)
    world.send_all([wire.RequeueJob(job_id=job.job_id, snapshot=snapshot)])
    world.until_quiet(ms=20_000)
    assert world.batch(first.batch_id) is None
    assert world.rejections == []


def test_jobs_of_a_batch_share_what_they_have_of_it_also_after_a_takeover() -> None:
    world = BatchWorld()
    world.send_all(world.create([0, 0, 0], is_waiting=False))
    world.turn(0, 100, 100)
    world.take_over(0)
    assert len({id(job.extras) for job in world.lanes[0].jobs.values()}) == 1


def test_an_older_report_that_comes_again_changes_nothing() -> None:
    world = BatchWorld()
    first, *rest = world.create([1, 1])
    world.send_all([first, *rest])
    all_turns(world, 2)
    older = next(one for one in world.partitions[0].reports if b'"batch.counted"' in one[0])
    world.until_quiet()
    world.partitions[0].reports.append(older)
    world.until_quiet()
    assert kinds(world, first.batch_id) == ["batch.created", "batch.succeeded"]


def test_jobs_of_a_cancelled_batch_do_not_start_before_they_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblog.streams.lane.features.batch_parts.LOOKED_AT_MAX", 0)
    world = BatchWorld()
    first, *rest = world.create([0, 1, 2])
    world.send_all([first, *rest, wire.CancelBatch(batch_id=first.batch_id)])
    all_turns(world)
    world.until_quiet()
    assert world.runs == []
    assert world.told[first.batch_id][-1][1].deleted == 3


def test_the_events_of_batches_are_read_by_a_rebuild() -> None:
    batch_id = BatchWorld().an_id(2)
    fold = EventFold(2, 10, LANES)
    data = wire.BatchEvent(1, AWAITING, EPOCH, 3, 0, 0, 0, 0, description="import", parent=batch_id, on=None)
    event = wire.CloudEvent("1.0", "e", "/l", "batch.created", batch_id, "2027-01-15T08:00:00.000Z", data=data)
    message = SimpleNamespace(value=lambda: encode(event), partition=lambda: 2)
    rebuild._apply(fold, message)  # type: ignore[arg-type]
    record = fold.state(NOW)[BATCH_KEY + batch_id]
    assert isinstance(record, Batch)
    assert (record.description, record.state, record.total, record.waits) == ("import", AWAITING, 3, True)


def test_batches_that_are_cancelled_one_after_the_other_are_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblog.streams.lane.features.batch_parts.LOOKED_AT_MAX", 3)
    world = BatchWorld()
    batches = [world.create([1] * 5) for _ in range(4)]
    for one in batches:
        world.send_all(one)
    all_turns(world, 2)
    for one in batches:
        world.send_all([wire.CancelBatch(batch_id=one[0].batch_id)])
        world.turn(0, 100, 100)
        world.turn(1, 100, 100)
    all_turns(world, 30)
    assert {fold.state for fold in world.folds.values()} == {DELETED}
    assert len(world.folds) == 20


def test_any_number_may_wait_for_a_batch_and_all_are_told_also_after_a_takeover(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_waits, "TOLD_MAX", 2)
    world = BatchWorld()
    first, *rest = world.create([0], lane=0)
    waiters = [world.waiter(first.batch_id, lane=1) for _ in range(7)]
    unmet = [world.waiter(first.batch_id, lane=1, on=ContinueOn.DELETED) for _ in range(3)]
    world.send_all([first, *rest, *waiters, *unmet])
    all_turns(world)
    assert [world.owner(world.lanes[0]).waits.of(first.batch_id)] == [10]
    record = world.partitions[0].state[BATCH_KEY + first.batch_id]
    assert waiters[0].job_id.encode() not in record  # which is written in each turn that changes it
    world.announce(1)
    while world.owner(world.lanes[0]).waits.of(first.batch_id) > 6:
        world.report_successes(0)
        world.turn(0, 100, 100)
        world.now_ms += 100
    world.take_over(0)
    assert 0 < world.owner(world.lanes[0]).waits.of(first.batch_id) <= 6
    world.until_quiet()
    assert {world.folds[one.job_id].state for one in waiters} == {SUCCEEDED}
    assert {world.folds[one.job_id].state for one in unmet} == {DELETED}
    assert set(world.started_from_waiting.values()) == {1}
    assert not [key for key in world.partitions[0].state if WAITS in key]


def test_what_waits_for_a_batch_that_is_forgotten_is_told_before_its_record_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_waits, "TOLD_MAX", 2)
    world = BatchWorld()
    unborn = world.an_id(0)
    waiters = [world.waiter(unborn, lane=2) for _ in range(5)]
    world.send_all(waiters)
    all_turns(world)
    world.now_ms += RULES.pending_ms + 1
    all_turns(world, times=1)
    assert world.batch(unborn) is not None
    assert world.owner(world.lanes[0]).waits.of(unborn) == 3
    world.until_quiet()
    assert world.batch(unborn) is None
    assert {world.folds[one.job_id].state for one in waiters} == {DELETED}
    assert not [key for key in world.partitions[0].state if key.startswith(BATCH_KEY)]


def test_batches_are_counted_when_they_are_created_cancelled_and_ended() -> None:
    world, counted = BatchWorld(), Counter[tuple[str, ...]]()
    world.on_counts = counted.update
    one, *rest = world.create([0])
    two, *more = world.create([1])
    world.send_all([one, *rest, two, *more, wire.CancelBatch(batch_id=two.batch_id)])
    all_turns(world)
    world.until_quiet()
    ended = {labels: n for labels, n in counted.items() if "batches" in labels[0]}
    assert ended == {
        ("joblog_batches_created_total",): 2,
        ("joblog_batches_cancelled_total",): 1,
        ("joblog_batches_ended_total", "Succeeded"): 1,
        ("joblog_batches_ended_total", "Deleted"): 1,
    }
