import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.wire import ContinuationAdded, DeleteJob, ParentEnded, RequeueJob
from joblog.streams.lane.features import continuations
from joblog.streams.lane.rules import LaneRules

from tests.support.scene import NEVER, STARTED_AT, Scene, Tick, create, id_of, queue_in, run_failed, succeeded, worker

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


def test_a_job_has_only_so_many_continuations(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (continuations,):
        monkeypatch.setattr(module, "CONTINUATIONS_MAX", 1)
    scene = Scene().given(create("a")).given(link("b"))
    scene.when(link("c")).and_told("lane 0: c does not run, a is unknown")
    scene = Scene().given(link("b")).when(link("c")).and_told("lane 0: c does not run, a is unknown")
    assert scene.out.reports[0][2].reason == "Job " + A + " has 1 continuations already"


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
