"""Limits of queues: how many of their jobs run at a time, or start in an interval."""

from typing import Any

from joblog.streams.contract.codec import encode
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.relations import LimitKind, LimitScope
from joblog.streams.contract.states import State
from joblog.streams.contract.wire import JobEvent, Limit, LimitChanged, QueueLimitGiven, QueueLimitTold, SetLimit
from joblog.streams.lane.event_fold import EventFold
from joblog.streams.lane.features.queue_shares import QUEUE_LIMIT_KEY
from joblog.streams.lane.limits.gate import Gate, QueueLimit

from tests.support.scene import NOW, Scene, Tick, create, queue_in, succeeded, worker


def limit(kind: LimitKind, capacity: int | None = 1, **fields: Any) -> SetLimit:
    return SetLimit(kind=kind, key="q0", scope=LimitScope.QUEUE, capacity=capacity, **fields)


def test_so_many_jobs_of_a_queue_run_at_a_time_in_their_order() -> None:
    one = Scene().given(worker(slots=5), limit(LimitKind.SEMAPHORE, 2))
    one.when(create("a"), create("b"), create("c"), create("d", priority=1))
    one.and_assigned("w: run d, lease 2", "w: run a, lease 2")
    one.reloaded().when(Tick(1)).and_assigned()
    one.when(succeeded("d", 2)).and_assigned("w: run b, lease 2")
    one.when(limit(LimitKind.SEMAPHORE, 3)).and_assigned("w: run c, lease 2")


def test_jobs_with_limits_of_their_own_have_both() -> None:
    mutex = (Limit(LimitKind.MUTEX, "m"),)
    one = Scene().given(worker(slots=5), limit(LimitKind.SEMAPHORE, 2))
    one.when(create("a", limits=mutex), create("b", limits=mutex), create("c"), create("d"))
    one.and_assigned("w: run a, lease 2", "w: run c, lease 2")
    one.when(succeeded("c", 2)).and_assigned("w: run d, lease 2")
    one.when(succeeded("a", 2)).and_assigned("w: run b, lease 3")


def test_a_queue_without_its_limit_goes_on_at_once() -> None:
    one = Scene().given(worker(slots=5), limit(LimitKind.MUTEX), create("a"), create("b"))
    one.when(limit(LimitKind.MUTEX, None)).and_assigned("w: run b, lease 2")
    assert [key for key in one.kept if key.startswith(QUEUE_LIMIT_KEY)] == []


def test_starts_of_a_queue_are_held_apart_over_a_takeover() -> None:
    one = Scene().given(worker(slots=5), limit(LimitKind.SLIDING_WINDOW, 2, interval_s=1.0))
    one.when(create("a"), create("b"), create("c")).and_assigned("w: run a, lease 2", "w: run b, lease 2")
    assert one.lane.wakes_ms == NOW + 1_000
    one.reloaded().when(Tick(999)).and_assigned()
    one.when(Tick(1)).and_assigned("w: run c, lease 2")


def test_a_limit_is_set_in_the_first_lane_of_its_queue_and_holds_in_this_one_as_that_lane_tells() -> None:
    queue = queue_in(1, 2)
    elsewhere = SetLimit(kind=LimitKind.MUTEX, key=queue, scope=LimitScope.QUEUE, capacity=1)
    scene = Scene(lanes=2).when(elsewhere).then("rejected wrong_lane")
    here = {"queue": queue, "number": NOW}
    scene.given(QueueLimitTold(**here, kind=LimitKind.MUTEX, capacity=1, changed=True))
    scene.given(worker(queues=(queue,), slots=5))
    scene.when(create("a", queue=queue), create("b", queue=queue)).and_assigned()
    scene.when(QueueLimitGiven(**here, times=(0,))).and_assigned("w: run a, lease 2")


def test_after_a_rebuild_a_rate_begins_as_if_all_had_started() -> None:
    fold = EventFold(0, 10, 1)
    changed = LimitChanged(LimitKind.TOKEN_BUCKET, "q0", 2, 1.0, LimitScope.QUEUE)
    fold.controls.apply("limit.changed", encode(changed))
    kept = fold.state(NOW)[f"{QUEUE_LIMIT_KEY}q0"]
    assert isinstance(kept, QueueLimit)
    gate = Gate(kept)
    assert not gate.is_open(NOW)
    assert gate.wake_ms == NOW + 500
    started = JobEvent(1, State.PROCESSING, 1, "q0", "t")
    fold.apply(new_job_id(0, NOW), started, NOW + 3_000, None)  # by a clock that was ahead
    later = Gate(fold.state(NOW)[f"{QUEUE_LIMIT_KEY}q0"])
    assert not later.is_open(NOW + 3_000)
    assert later.wake_ms == NOW + 3_500
    fold.controls.apply("limit.changed", encode(LimitChanged(LimitKind.MUTEX, "q0", scope=LimitScope.QUEUE)))
    assert fold.state(NOW) == {}
