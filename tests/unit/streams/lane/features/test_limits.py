"""What one lane does with jobs that have limits, in lines that read aloud."""

from typing import Any

from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.relations import LimitKind
from joblog.streams.contract.wire import DeleteJob, Limit, RequeueJob, SetLimit
from joblog.streams.lane.event_fold import EventFold
from joblog.streams.lane.features.limit_claims import LIMIT_KEY
from joblog.streams.lane.features.limits import Limits
from joblog.streams.lane.limits.claims import owner_of
from joblog.streams.lane.limits.patience import KEPT_MS

from tests.support.scene import Pause, Scene, Tick, create, id_of, name_of, queue_in, released, succeeded, worker

MUTEX = Limit(LimitKind.MUTEX, "m")
TWO = Limit(LimitKind.SEMAPHORE, "s", 2)


def limited(name: str, *limits: Limit, **fields: Any) -> wire.CreateJob:
    return create(name, limits=limits or (MUTEX,), **fields)


def scene(slots: int = 5) -> Scene:
    return Scene().given(worker(slots=slots))


def feature(one: Scene) -> Limits:
    return next(found for found in one.lane.features if isinstance(found, Limits))


def told(one: Scene) -> list[tuple[str, str | None]]:
    """What was written of jobs that are held back."""
    events = [(key, data) for key, kind, _, data, *_ in one.out.events if kind == "job.held"]
    return [(name_of(key), data.waits_for) for key, data in events if isinstance(data, wire.JobEvent)]


def test_one_job_of_a_mutex_runs_at_a_time_and_the_others_are_told_once_what_they_wait_for() -> None:
    one = scene().when(limited("a"), limited("b"), limited("c", priority=1), create("d"))
    one.and_assigned("w: run c, lease 2", "w: run d, lease 2")
    assert told(one) == [(name, f"mutex m, held by job {id_of('c')}") for name in "ab"]
    one.when(succeeded("c", 2)).and_assigned("w: run a, lease 3")
    assert told(one) == []
    one.when(succeeded("a", 3)).and_assigned("w: run b, lease 3")
    one.when(succeeded("b", 3))
    assert not feature(one).owner.get((LimitKind.MUTEX, "m"))


def test_a_job_takes_its_limits_one_after_another_and_keeps_what_it_has() -> None:
    one = scene().given(limited("a"), limited("b", TWO, MUTEX), limited("c", TWO), limited("d", TWO))
    one.when(succeeded("a", 2)).and_assigned()
    one.when(limited("e")).and_assigned()
    assert told(one) == [("e", f"mutex m, held by job {id_of('b')}")]
    one.when(succeeded("c", 2)).and_assigned("w: run b, lease 3")
    one.when(succeeded("b", 3)).and_assigned("w: run e, lease 3")


def test_whatever_ends_a_run_releases_its_limits() -> None:
    for ending in (DeleteJob(job_id=id_of("a")), RequeueJob(job_id=id_of("a")), released("a", 2)):
        one = scene().given(limited("a"), limited("b", priority=-1))
        one.when(ending)
        shared = feature(one).owner.get((LimitKind.MUTEX, "m"))
        assert shared is not None
        assert shared.holders == 1


def test_a_lost_worker_releases_the_limits_of_its_jobs() -> None:
    one = scene().given(limited("a"), limited("b")).given(Pause(15_001), worker("v", slots=5))
    one.when(Tick(0)).and_assigned("v: run b, lease 3")


def test_a_job_that_waits_may_be_deleted() -> None:
    one = scene().given(limited("a"), limited("b"), limited("c"), DeleteJob(job_id=id_of("b")))
    one.when(succeeded("a", 2)).and_assigned("w: run c, lease 3")
    assert not feature(one).claims


def test_after_a_takeover_those_that_run_hold_their_limits_and_the_others_ask_again() -> None:
    one = scene().given(limited("a"), limited("b")).reloaded()
    one.when(Tick(100)).and_assigned()
    assert told(one) == []
    one.when(succeeded("a", 2)).and_assigned("w: run b, lease 3")


def test_a_permit_that_no_worker_uses_is_given_back_and_asked_for_again() -> None:
    one = scene(slots=2).given(limited("a"), limited("b"))
    one.given(create("c"), create("d"))  # c has the other slot
    one.given(worker(slots=1), succeeded("a", 2))
    assert feature(one).owner.get((LimitKind.MUTEX, "m"))
    one.when(Tick(KEPT_MS)).and_assigned()
    assert not feature(one).owner.get((LimitKind.MUTEX, "m"))
    assert not feature(one).claims
    one.when(succeeded("c", 2)).and_assigned("w: run b, lease 3")


def test_a_rate_holds_its_starts_apart_over_a_takeover_and_is_forgotten_when_it_is_over() -> None:
    rate = Limit(LimitKind.SLIDING_WINDOW, "r", 1, 1.0)
    one = scene().when(limited("a", rate), limited("b", rate)).and_assigned("w: run a, lease 2")
    assert told(one) == [("b", "sliding window r")]
    one.reloaded().when(Tick(999)).and_assigned()
    one.when(Tick(1)).and_assigned("w: run b, lease 3")
    assert [key for key in one.kept if key.startswith(LIMIT_KEY)]
    one.given(succeeded("a", 2), succeeded("b", 3), Tick(61_001))
    assert not [key for key in one.kept if key.startswith(LIMIT_KEY)]


def test_the_definition_of_the_job_that_asked_last_holds() -> None:
    one = scene().given(limited("a", TWO), limited("b", TWO), limited("c", TWO))
    one.when(limited("d", Limit(LimitKind.SEMAPHORE, "s", 4))).and_assigned("w: run d, lease 2", "w: run c, lease 3")


def test_many_jobs_under_one_mutex_write_few_records_for_each_start() -> None:
    one = scene().given(*(create(chr(0x4E00 + n), limits=(MUTEX,)) for n in range(300)))
    one.when(succeeded(chr(0x4E00), 2))
    assert len(one.out.events) == 2
    assert len(one.out.state) <= 4
    assert not one.out.reports


def test_a_limit_that_was_set_holds_over_what_jobs_say_until_it_is_cleared() -> None:
    three = SetLimit(kind=LimitKind.SEMAPHORE, key="s", capacity=3, by="ann")
    one = scene().given(limited("a", TWO), three, limited("b", TWO), limited("c", TWO), limited("d", TWO))
    assert [job.id for job in one.lane.jobs.values() if job.worker] == [id_of(name) for name in "abc"]
    one.reloaded().when(Tick(1), succeeded("a", 2)).and_assigned("w: run d, lease 3")
    clear = SetLimit(kind=LimitKind.SEMAPHORE, key="s")
    one.when(clear, limited("e", TWO), succeeded("b", 2)).and_assigned()
    assert [(kind, data.capacity) for _, kind, _, data, *_ in one.out.events if kind == "limit.changed"] == [
        ("limit.changed", None)
    ]
    one.when(succeeded("c", 2)).and_assigned("w: run e, lease 3")


def test_a_limit_is_set_in_the_lane_that_owns_it() -> None:
    limit = (LimitKind.MUTEX, "m")
    other = (owner_of(limit, 3) + 1) % 3
    one = Scene(number=other, lanes=3).when(SetLimit(kind=limit[0], key=limit[1], capacity=1))
    assert [data.code for _, kind, _, data, *_ in one.out.events if kind == "command.rejected"] == ["wrong_lane"]


def test_a_limit_that_was_set_is_folded_from_events() -> None:
    fold = EventFold(0, 10, 1)
    changed = wire.LimitChanged(LimitKind.SLIDING_WINDOW, "r", 5, 1.0)
    fold.controls.apply("limit.changed", encode(changed))
    known = fold.state(0)[f"{LIMIT_KEY}k:sliding_window:r"]
    assert (known.set_capacity, known.set_interval_ms) == (5, 1000)
    fold.controls.apply("limit.changed", encode(wire.LimitChanged(LimitKind.SLIDING_WINDOW, "r")))
    assert fold.state(0) == {}


def test_reports_that_no_lane_writes_are_counted_and_change_nothing() -> None:
    one = scene().given(limited("a"), limited("b"))
    here = {"job_id": id_of("b"), "kind": LimitKind.MUTEX, "key": "m"}
    asked = {"epoch": 0, "ask": 1}
    reports = [
        wire.LimitAsked(job_id=id_of("b"), limit=MUTEX, priority=0, created_ms=0, **asked),
        wire.LimitStarted(job_id=id_of("b"), limit=MUTEX, at_ms=0),
        wire.LimitReleased(**here),
        wire.LimitGranted(**here, **asked, from_ms=0),
        wire.LimitWaits(**here, **asked, waits_for="?"),
        wire.LimitsForgotten(lane=0),
        wire.LimitsRebuilt(lane=0, rebuild=1),
    ]
    one.when(*reports).and_assigned()
    assert sum(one.out.counts.values()) == len(reports)
    one.when(succeeded("a", 2)).and_assigned("w: run b, lease 3")


def test_a_lane_that_does_not_own_a_limit_does_not_grant_it() -> None:
    other = (owner_of((LimitKind.MUTEX, "m"), 3) + 1) % 3
    asking = wire.LimitAsked(
        job_id=id_of("a", (other + 1) % 3), limit=MUTEX, epoch=0, ask=1, priority=0, created_ms=0
    )
    one = Scene(number=other, lanes=3).when(asking)
    assert not one.out.reports
    assert not one.out.state


def test_those_behind_the_ones_that_ask_another_lane_are_told_what_its_owner_says() -> None:
    lane = (owner_of((LimitKind.MUTEX, "m"), 3) + 1) % 3
    queue = queue_in(lane, 3)
    names = "abcdefgh"
    one = Scene(number=lane, lanes=3).given(worker(slots=9, queues=(queue,)))
    one.when(*(create(name, lane=lane, lanes=3, queue=queue, limits=(MUTEX,)) for name in names))
    asked = [said for _, _, said in one.out.reports if isinstance(said, wire.LimitAsked)]
    assert 0 < len(asked) < len(names)
    assert told(one) == []
    here = {"kind": LimitKind.MUTEX, "key": "m", "epoch": asked[0].epoch, "ask": asked[0].ask}
    one.when(wire.LimitWaits(job_id=asked[0].job_id, **here, waits_for="mutex m, held by job x"))
    waiting = dict.fromkeys(names, "mutex m, held by job x")
    assert dict(told(one)) == waiting
