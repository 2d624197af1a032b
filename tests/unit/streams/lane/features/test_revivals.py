"""Continuations that were deleted because of how their parent ended wait again when it is requeued."""

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.relations import Need
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.wire import DeleteJob, RequeueJob, Snapshot
from joblog.streams.lane.features.former_continuations import FORMER_KEY
from joblog.streams.lane.features.unmet_continuations import UNMET_KEY, UnmetContinuations
from joblog.streams.lane.rules import LaneRules

from tests.support.scene import STARTED_AT, Scene, Tick, create, id_of, succeeded, worker

A, B, C = map(id_of, "abc")


def back(name: str, version: int, state: State = State.DELETED, **spec: object) -> RequeueJob:
    """A requeue of an ended job, as the monitor makes it."""
    known = Snapshot(version, state, 0, "t", "q0", STARTED_AT, wire.JobSpec(**spec))  # type: ignore[arg-type]
    return RequeueJob(job_id=id_of(name), snapshot=known)


def delivered(scene: Scene) -> Scene:
    """What the lane told itself, read back, until there is nothing more."""
    while scene.out.reports:
        scene.when(*(report for _, _, report in scene.out.reports))
    return scene


def deleted_with_its_parent(rules: LaneRules | None = None) -> Scene:
    scene = delivered(Scene(rules=rules).given(create("a"), create("c", on="a")))
    delivered(scene.given(DeleteJob(job_id=A)))
    assert scene.lane.ended.get(C) == (State.DELETED, 2)
    return scene


@pytest.mark.parametrize("is_reloaded", [False, True])
def test_a_continuation_waits_again_and_runs_when_its_parent_ends_well_then(is_reloaded: bool) -> None:
    scene = deleted_with_its_parent()
    if is_reloaded:
        scene.reloaded()
    scene.when(back("a", 2)).then("a3 Enqueued")
    scene.when(*(report for _, _, report in scene.out.reports)).then("c3 Awaiting")
    assert scene.reasons == [f"Job {A} was requeued"]
    delivered(scene)
    assert not [key for key in scene.kept if key.startswith((UNMET_KEY, FORMER_KEY))]
    delivered(scene.given(worker()).given(succeeded("a", 4)))
    assert scene.job("c").state is State.PROCESSING


def test_it_is_deleted_again_if_its_parent_is_and_may_come_back_again() -> None:
    scene = delivered(deleted_with_its_parent().given(back("a", 2)))
    delivered(scene.given(DeleteJob(job_id=A)))
    assert scene.lane.ended.get(C) == (State.DELETED, 4)
    delivered(scene.given(back("a", 4)))
    assert scene.job("c").state is State.AWAITING


def test_one_that_somebody_has_moved_meanwhile_stays_where_it_is() -> None:
    scene = delivered(deleted_with_its_parent().given(back("c", 2), DeleteJob(job_id=C)))
    delivered(scene.given(back("a", 2)))
    assert scene.lane.ended.get(C) == (State.DELETED, 4)
    assert C not in scene.lane.jobs


def test_one_that_was_deleted_by_hand_is_not_called_back() -> None:
    scene = delivered(Scene().given(create("a"), create("c", on="a")).given(DeleteJob(job_id=C)))
    delivered(scene.given(DeleteJob(job_id=A)))
    delivered(scene.given(back("a", 2)))
    assert C not in scene.lane.jobs


def test_one_that_is_no_longer_kept_is_counted() -> None:
    scene = deleted_with_its_parent(LaneRules(failed_kept=1))
    next(one for one in scene.lane.features if isinstance(one, UnmetContinuations)).jobs.clear()
    scene.when(wire.ParentRequeued(job_id=C, parent=A)).then()
    assert scene.out.counts["joblog_stale_reports_total", "parent.requeued"] == 1


def test_only_so_many_are_kept() -> None:
    scene = deleted_with_its_parent(LaneRules(failed_kept=1))
    delivered(scene.given(create("b"), create("d", on="b")))
    delivered(scene.given(DeleteJob(job_id=B)))
    scene.given(Tick(0))
    assert [key for key in scene.kept if key.startswith(UNMET_KEY)] == [UNMET_KEY + id_of("d")]
    assert [key for key in scene.kept if key.startswith(FORMER_KEY)] == [FORMER_KEY + B]
    scene.when(back("a", 2)).and_told()


def test_a_parent_that_was_requeued_before_it_heard_of_the_deletion_calls_it_back_at_once() -> None:
    scene = delivered(Scene().given(create("a"), create("c", on="a")))
    scene.given(DeleteJob(job_id=A))
    scene.when(*(report for _, _, report in scene.out.reports), back("a", 2))
    scene.then("c2 Deleted", "a3 Enqueued")
    delivered(scene)
    assert scene.job("c").state is State.AWAITING


def test_one_whose_unique_key_another_job_has_by_now_stays_deleted() -> None:
    key = wire.Unique("k")
    scene = delivered(Scene().given(create("a"), create("c", on="a", unique=key)))
    delivered(scene.given(DeleteJob(job_id=A)))
    delivered(scene.given(create("d", unique=key), back("a", 2)))
    assert C not in scene.lane.jobs


@pytest.mark.parametrize("need", Need)
def test_of_several_parents_only_the_requeued_one_is_waited_for_again(need: Need) -> None:
    scene = Scene().given(worker(slots=3), create("a"), create("b"))
    scene = delivered(scene.given(create("c", parents=wire.Parents((A, B), ContinueOn.SUCCEEDED, need))))
    if need is Need.ALL:
        delivered(scene.given(succeeded("b", 2)))
    delivered(scene.given(DeleteJob(job_id=A)))
    state = State.AWAITING if need is Need.ANY else None
    assert (scene.lane.jobs[C].state if C in scene.lane.jobs else None) is state
    if need is Need.ANY:
        delivered(scene.given(DeleteJob(job_id=B)))
        assert C not in scene.lane.jobs
    delivered(scene.given(back("a", 3)))
    assert scene.job("c").state is State.AWAITING
    delivered(scene.given(succeeded("a", 5)))
    assert scene.job("c").state is State.PROCESSING


def test_while_others_are_waited_for_the_end_of_a_requeued_parent_does_not_count_any_more() -> None:
    scene = Scene().given(create("a"), create("b"))
    scene = delivered(scene.given(create("c", parents=wire.Parents((A, B), ContinueOn.SUCCEEDED, Need.ANY))))
    delivered(scene.given(DeleteJob(job_id=A)))
    delivered(scene.given(back("a", 2)))
    delivered(scene.given(DeleteJob(job_id=B)))
    assert scene.job("c").state is State.AWAITING
    delivered(scene.given(worker()).given(succeeded("a", 4)))
    assert scene.job("c").state is State.PROCESSING
