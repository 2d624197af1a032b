import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.wire import ContinuationAdded, DeleteJob, ParentEnded, RequeueJob
from joblog.streams.elector.lane_records import write_state
from joblog.streams.lane import wait_fold
from joblog.streams.lane.features import continuations, more_continuations
from joblog.streams.lane.job import deleted, evolve
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.wait_fold import wait_records
from msgspec import Raw

from tests.support.scene import (
    NEVER,
    NOW,
    STARTED_AT,
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

A, B = id_of("a"), id_of("b")
GO = ParentEnded(job_id=B, parent=A, state=State.SUCCEEDED, run=True, reason="go")
GONE = ParentEnded(job_id=B, parent=A, state=State.DELETED, run=False, reason="no")


def link(child: str = "b", parent: str = "a", on: ContinueOn = ContinueOn.SUCCEEDED) -> ContinuationAdded:
    return ContinuationAdded(job_id=id_of(parent), child=id_of(child), on=on)


def delivered(scene: Scene) -> Scene:
    """What the lane told itself, read back."""
    return scene.when(*(report for _, _, report in scene.out.reports))


# --- the child's side ---


def test_a_continuation_waits_and_tells_the_lane_of_its_parent() -> None:
    scene = Scene().given(worker()).when(create("b", on="a")).then("b1 Awaiting")
    scene.and_told("lane 0: b waits for a succeeded").and_assigned()


def test_a_parent_in_another_lane_is_told_there() -> None:
    parent = wire.Parent(id_of("a", 2), ContinueOn.ENDED)
    scene = Scene(1, 4).when(create("b", lane=1, lanes=4, parent=parent)).then("b1 Awaiting")
    scene.and_told("lane 2: b waits for a ended")


def test_a_continuation_runs_when_its_parent_ended_as_it_should() -> None:
    scene = Scene().given(worker(), create("b", on="a"))
    assert scene.when(GO).then("b2 Enqueued", "b3 Processing #1 by w").reasons[0] == "go"


def test_a_continuation_is_deleted_when_its_parent_ended_otherwise() -> None:
    scene = Scene().given(create("b", on="a")).when(GONE).then("b2 Deleted")
    assert scene.reasons == ["no"]


def test_a_continuation_for_later_waits_for_both() -> None:
    later = STARTED_AT.replace(hour=12)
    scene = Scene().when(create("b", on="a", run_at=later)).then("b1 Awaiting")
    scene.when(GO).then("b2 Scheduled")
    assert [timer.version for timer in scene.out.timers] == [2]


def test_a_continuation_that_was_deleted_or_requeued_does_not_care_any_more() -> None:
    scene = Scene().given(create("b", on="a"), DeleteJob(job_id=B)).when(GO).then()
    scene = Scene().given(create("b", on="a")).when(RequeueJob(job_id=B)).then("b2 Enqueued")
    scene.when(GONE).then()
    assert scene.out.counts["joblog_stale_reports_total", "parent.ended"] == 1


# --- the parent's side ---


@pytest.mark.parametrize(
    ("on", "told"),
    [
        (ContinueOn.SUCCEEDED, "b runs, a is Succeeded"),
        (ContinueOn.DELETED, "b does not run, a is Succeeded"),
        (ContinueOn.FAILED, "b does not run, a is Succeeded"),
        (ContinueOn.FINISHED, "b runs, a is Succeeded"),
        (ContinueOn.ENDED, "b runs, a is Succeeded"),
    ],
)
def test_a_parent_that_ends_tells_those_who_wait(on: ContinueOn, told: str) -> None:
    scene = Scene().given(worker(), create("a")).given(link(on=on))
    scene.when(succeeded("a", 2)).and_told(f"lane 0: {told}")


def test_a_failed_parent_keeps_waiting_those_who_want_its_success() -> None:
    scene = Scene().given(worker(), create("a", retry=NEVER)).given(link("b"), link("c", on=ContinueOn.FAILED))
    scene.when(run_failed("a", 2)).then("a3 Failed").and_told("lane 0: c runs, a is Failed")
    scene.when(RequeueJob(job_id=A)).and_told()
    scene.when(succeeded("a", 5)).then("a6 Succeeded").and_told("lane 0: b runs, a is Succeeded")


def test_a_failed_parent_that_is_deleted_tells_those_who_still_wait() -> None:
    scene = Scene().given(worker(), create("a", retry=NEVER)).given(link()).given(run_failed("a", 2))
    scene.when(DeleteJob(job_id=A)).and_told("lane 0: b does not run, a is Deleted")


def test_a_failure_that_is_retried_is_no_end() -> None:
    scene = Scene().given(worker(), create("a")).given(link(on=ContinueOn.ENDED))
    scene.when(run_failed("a", 2)).then("a3 Failed traversed", "a4 Scheduled retry 1").and_told()


def test_a_continuation_of_an_ended_job_is_told_at_once() -> None:
    scene = Scene().given(worker(), create("a")).given(succeeded("a", 2))
    scene.when(link()).and_told("lane 0: b runs, a is Succeeded")


def test_a_continuation_said_twice_is_told_once() -> None:
    scene = Scene().given(worker(), create("a")).given(link(), link())
    scene.when(succeeded("a", 2)).and_told("lane 0: b runs, a is Succeeded")


def test_what_waits_for_a_job_is_taken_over_with_it() -> None:
    scene = Scene().given(worker(), create("a")).given(link()).reloaded()
    scene.when(succeeded("a", 2)).and_told("lane 0: b runs, a is Succeeded")


# --- many that wait for one parent ---


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent's record names two jobs; two are told at once, and two in each tick."""
    for name, most in (("LISTED_MAX", 2), ("AT_ONCE_MAX", 2)):
        monkeypatch.setattr(continuations, name, most)
    monkeypatch.setattr(more_continuations, "TOLD_MAX", 2)


def told(scene: Scene) -> list[str]:
    return [name_of(report.job_id) for _, _, report in scene.out.reports]


def own_records(scene: Scene) -> list[str]:
    return sorted(key for key in scene.kept if key.startswith("pending:"))


@pytest.mark.usefixtures("crowded")
def test_any_number_waits_for_a_job_and_is_told_over_several_turns_also_after_a_take_over() -> None:
    scene = Scene().given(worker(), create("a")).given(*map(link, "bcdefgh"), link("h"))
    assert len(scene.job("a").continuations) == 2
    assert len(own_records(scene)) == 5
    scene.reloaded()
    scene.when(succeeded("a", 2, result=Raw(b'{"n":7}')))
    seen = told(scene)
    assert seen == ["b", "c"]
    scene.when(Tick(100))
    seen += told(scene)
    scene.reloaded()
    for _ in range(3):
        scene.when(Tick(100))
        seen += told(scene)
        assert len(scene.out.reports) <= 2
        for _, _, report in scene.out.reports:
            assert (report.run, bytes(report.result)) == (True, b'{"n":7}')
    assert sorted(seen) == list("bcdefgh")
    assert own_records(scene) == []


@pytest.mark.usefixtures("crowded")
def test_those_that_wait_for_success_wait_on_after_a_failure_and_are_told_when_that_is_forgotten() -> None:
    ends = [ContinueOn.SUCCEEDED, ContinueOn.FAILED] * 4
    scene = Scene(rules=LaneRules(failed_ms=1_000)).given(worker(), create("a", retry=NEVER))
    scene.given(*(link(name, on=on) for name, on in zip("bcdefghi", ends, strict=True)))
    scene.when(run_failed("a", 2))
    seen = told(scene)
    for _ in range(3):
        scene.when(Tick(100))
        seen += told(scene)
    assert sorted(seen) == ["c", "e", "g", "i"]
    scene.reloaded().when(Tick(100)).and_told()
    seen = []
    for _ in range(4):
        scene.when(Tick(1_000))
        seen += told(scene)
        assert not any(report.run for _, _, report in scene.out.reports)
    assert sorted(seen) == ["b", "d", "f", "h"]
    assert own_records(scene) == []


@pytest.mark.usefixtures("crowded")
def test_those_that_were_not_told_wait_for_the_next_end_when_the_parent_is_requeued() -> None:
    scene = Scene().given(create("a", retry=NEVER), worker())
    scene.given(*(link(name, on=ContinueOn.ENDED) for name in "bcdefgh"))
    scene.when(run_failed("a", 2))
    first = told(scene)
    scene.when(RequeueJob(job_id=A)).when(Tick(100)).and_told()
    scene.reloaded()
    scene.given(worker()).when(succeeded("a", scene.job("a").lease))
    second = told(scene)
    for _ in range(4):
        scene.when(Tick(100))
        second += told(scene)
    assert (len(first), sorted(first + second)) == (2, list("bcdefgh"))
    assert own_records(scene) == []


@pytest.mark.usefixtures("crowded")
def test_many_may_wait_for_a_parent_that_is_created_later_or_never() -> None:
    scene = Scene().given(*map(link, "bcde")).reloaded().given(worker(), create("a"))
    scene.when(succeeded("a", 2))
    assert told(scene) == ["b", "c"]
    scene.when(Tick(100))
    assert sorted(told(scene)) == ["d", "e"]
    never = Scene(rules=LaneRules(pending_ms=60_000)).given(*map(link, "bcdef"))
    never.given(Tick(59_000)).given(link("g")).when(Tick(59_000)).and_told()  # the last one has its time, too
    seen = []
    for _ in range(4):
        never.when(Tick(2_000))
        seen += told(never)
        assert all(report.state is None and "is unknown" in report.reason for _, _, report in never.out.reports)
    assert sorted(seen) == list("bcdefg")
    assert own_records(never) == []


@pytest.mark.usefixtures("crowded")
def test_a_lane_that_is_rebuilt_knows_all_that_wait_and_tells_those_that_were_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wait_fold, "LISTED_MAX", 2)
    scene = Scene().given(create("a"), create("z"))
    jobs = dict(scene.lane.jobs)
    over = evolve(jobs[id_of("z")], deleted(jobs[id_of("z")], None), NOW)
    waits = [(id_of(name), A, ContinueOn.SUCCEEDED) for name in "bcde"]
    waits += [(id_of(name), over.id, ContinueOn.ENDED) for name in "fg"]
    waits += [(id_of(name), id_of("y"), ContinueOn.ENDED) for name in "hij"]
    records = wait_records(waits, {A: jobs[A]}, {over.id: over}, scene.now_ms)
    for key, value in {A: jobs[A], **records}.items():
        record = write_state(value)
        assert record is not None
        scene.kept[key] = record
    del scene.kept[over.id]
    scene.reloaded().when(Tick(100))
    assert sorted(told(scene)) == ["f", "g"]
    scene.given(worker()).when(succeeded("a", 2))
    seen = told(scene)
    scene.when(Tick(100))
    assert sorted(seen + told(scene)) == list("bcde")
    scene.when(Tick(61_000)).when(Tick(6_000)).when(Tick(100))
    assert own_records(scene) == []


# --- a parent that is not there ---


def test_a_parent_may_be_created_after_its_continuation() -> None:
    scene = Scene().when(link()).then()
    scene.when(create("a"), worker()).then("a1 Enqueued", "a2 Processing #1 by w")
    scene.when(succeeded("a", 2)).and_told("lane 0: b runs, a is Succeeded")


def test_a_parent_that_is_not_there_yet_is_waited_for_across_a_take_over() -> None:
    scene = Scene().given(link(), link("c")).reloaded().given(worker(), create("a"))
    assert "pending:" + A not in scene.kept
    scene.when(succeeded("a", 2)).and_told("lane 0: b runs, a is Succeeded", "lane 0: c runs, a is Succeeded")


def test_a_parent_that_never_comes_is_given_up() -> None:
    scene = Scene(rules=LaneRules(pending_ms=60_000)).given(link())
    scene.when(Tick(60_000)).and_told()
    scene.when(Tick(60_001, caught_up=False)).and_told()
    scene.when(Tick(0)).and_told("lane 0: b does not run, a is unknown")
    assert scene.out.state == {"pending:" + A: None}
    scene.when(Tick(60_001)).and_told()


def test_a_parent_that_is_revived_meanwhile_adopts_those_who_wait() -> None:
    said = wire.Snapshot(3, State.SUCCEEDED, 1, "t", "q0", STARTED_AT, wire.JobSpec())
    scene = Scene().given(link()).given(RequeueJob(job_id=A, snapshot=said))
    scene.when(Tick(60_001)).and_told()
    scene.when(worker()).then("a5 Processing #2 by w")
    scene.when(succeeded("a", 5)).and_told("lane 0: b runs, a is Succeeded")


# --- all of it ---


def test_a_chain_of_jobs_runs_one_after_the_other() -> None:
    scene = Scene().given(worker()).when(create("a"), create("b", on="a"), create("c", on="b"))
    delivered(scene).then()
    scene.when(succeeded("a", 2)).then("a3 Succeeded")
    delivered(scene).then("b2 Enqueued", "b3 Processing #1 by w")
    scene.when(succeeded("b", 3)).then("b4 Succeeded")
    delivered(scene).then("c2 Enqueued", "c3 Processing #1 by w")


def test_two_lanes_pass_the_word_to_each_other() -> None:
    first, second = Scene(0, 2), Scene(1, 2)
    first.given(worker(queues=(queue_in(0, 2),)), create("a", lanes=2))
    second.when(create("b", lane=1, lanes=2, parent=wire.Parent(A))).and_told("lane 0: b waits for a succeeded")
    first.given(*(report for _, _, report in second.out.reports))
    first.when(succeeded("a", 2)).and_told("lane 1: b runs, a is Succeeded")
    second.when(*(report for _, _, report in first.out.reports)).then("b2 Enqueued")
