"""What a continuation is told of its parents: their results, several of them, and what is left out."""

from typing import Any

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.relations import OUTCOME_BYTES_MAX, PARENT_PARAMETER, Need
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.wire import DeleteJob, ParentEnded, RequeueJob, SetParameter
from joblog.streams.lane import parents
from joblog.streams.lane.features import recent_ends
from msgspec import Raw, json, structs

from tests.support.scene import BOOM, IN_A_MINUTE, NEVER, Scene, create, id_of, run_failed, succeeded, worker

A, B, C, D = map(id_of, "abcd")


def waiting(name: str, *ids: str, need: Need = Need.ALL, on: ContinueOn = ContinueOn.SUCCEEDED) -> wire.CreateJob:
    return create(name, parents=wire.Parents(tuple(map(id_of, ids)), on, need))


def delivered(scene: Scene) -> Scene:
    """What the lane told itself, read back, until there is nothing more."""
    while scene.out.reports:
        scene.when(*(report for _, _, report in scene.out.reports))
    return scene


def with_result(name: str, lease: int, result: Any) -> wire.RunSucceeded:
    return structs.replace(succeeded(name, lease), result=Raw(json.encode(result)))


def told(scene: Scene, name: str) -> dict[str, Any]:
    """What the run of this job reads of its parents."""
    parameters = json.decode(scene.job(name).parameters)
    return {one.removeprefix(PARENT_PARAMETER): value for one, value in parameters.items()}


# --- one parent ---


def test_a_result_is_handed_to_the_continuation_and_goes_with_the_assignment() -> None:
    scene = Scene().given(worker(), create("a"), create("c", on="a"))
    delivered(scene)
    scene.given(with_result("a", 2, {"n": [1]})).when(*(report for _, _, report in scene.out.reports))
    scene.then("c2 Enqueued", "c3 Processing #1 by w")
    event = scene.out.events[0][3]
    assert isinstance(event, wire.JobEvent)
    assert event.parent == A
    assert told(scene.reloaded(), "c") == {A: {"state": "Succeeded", "result": {"n": [1]}}}
    run = scene.out.assignments[0][2]
    assert isinstance(run, wire.RunJob)
    assert bytes(run.parameters) == scene.job("c").parameters


def test_an_exception_is_handed_to_what_runs_after_a_failure() -> None:
    parent = wire.Parent(A, ContinueOn.ENDED)
    scene = delivered(Scene().given(worker(), create("a", retry=NEVER), create("c", parent=parent)))
    delivered(scene.given(run_failed("a", 2)))
    assert told(scene, "c")[A]["exception"] == json.decode(json.encode(BOOM))
    assert told(scene, "c")[A]["state"] == "Failed"


def test_only_the_last_failure_counts() -> None:
    parent = wire.Parent(A, ContinueOn.ENDED)
    scene = delivered(Scene().given(worker(), create("a", retry=IN_A_MINUTE), create("c", parent=parent)))
    scene.when(run_failed("a", 2)).and_told()
    scene.given(wire.JobDue(job_id=A, version=4))
    delivered(scene.given(with_result("a", 6, 7)))
    assert told(scene, "c") == {A: {"state": "Succeeded", "result": 7}}


def test_a_result_is_at_hand_for_a_continuation_that_comes_after_the_end() -> None:
    scene = Scene().given(worker(), create("a")).given(with_result("a", 2, "x"))
    delivered(scene.given(create("c", on="a")))
    assert told(scene, "c") == {A: {"state": "Succeeded", "result": "x"}}
    scene = Scene().given(worker(), create("a", retry=NEVER)).given(run_failed("a", 2))
    delivered(scene.given(create("c", parent=wire.Parent(A, ContinueOn.FAILED))))
    assert told(scene, "c")[A]["exception"]["message"] == "no"


def test_a_result_is_at_hand_for_a_continuation_that_is_heard_of_in_the_same_turn() -> None:
    scene = Scene().given(worker(), create("a"), create("c", on="a"))
    links = [report for _, _, report in scene.out.reports]
    scene.when(with_result("a", 2, "x"), *links)
    delivered(scene)
    assert told(scene, "c") == {A: {"state": "Succeeded", "result": "x"}}


def test_after_a_takeover_the_continuation_is_told_that_the_result_is_not_at_hand() -> None:
    scene = Scene().given(worker(), create("a")).given(with_result("a", 2, "x")).reloaded()
    delivered(scene.given(worker(), create("c", on="a")))
    (outcome,) = told(scene, "c").values()
    assert outcome["state"] == "Succeeded"
    assert "result is no longer at hand" in outcome["omitted"]


def test_recent_ends_are_bounded_by_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_ends, "ENDS_MAX", 3)
    monkeypatch.setattr(recent_ends, "BYTES_MAX", 1_000)
    ends = recent_ends.RecentEnds()
    ended = wire.JobEvent(2, State.SUCCEEDED, 1, "q", "t", result=Raw(b"1"))
    large = structs.replace(ended, result=Raw(b'"' + b"x" * 1_000 + b'"'))

    def take(name: str, event: wire.JobEvent) -> None:
        ends.take([(name, "job.succeeded", "", event, None, None)])

    for number in range(8):
        take(str(number), ended)
    assert [name for name in map(str, range(8)) if ends.get(name, 2)] == ["3", "4", "5", "6", "7"]
    assert ends.get("7", 3) is None
    take("8", large)
    take("9", large)
    assert [name for name in map(str, range(10)) if ends.get(name, 2)] == ["9"]


def test_what_is_too_large_is_left_out_with_a_word() -> None:
    scene = delivered(Scene().given(worker(), create("a"), create("c", on="a")))
    delivered(scene.given(with_result("a", 2, "x" * OUTCOME_BYTES_MAX)))
    assert told(scene, "c")[A] == {
        "state": "Succeeded",
        "omitted": f"the result has {OUTCOME_BYTES_MAX + 2} bytes as JSON, more than {OUTCOME_BYTES_MAX}",
    }
    failed = structs.replace(BOOM, details="x" * OUTCOME_BYTES_MAX, message="m" * 2_000)
    cut = parents.carried(wire.JobEvent(2, State.FAILED, 1, "q", "t", exception=failed), State.FAILED).exception
    assert cut is not None
    assert (cut.type, len(cut.message), cut.details) == (BOOM.type, 1_000, "")


def test_what_the_worker_left_out_stays_left_out() -> None:
    scene = delivered(Scene().given(worker(), create("a"), create("c", on="a")))
    delivered(scene.given(structs.replace(succeeded("a", 2), result_omitted="not JSON")))
    assert told(scene, "c") == {A: {"state": "Succeeded", "omitted": "not JSON"}}


def test_nobody_else_sets_what_tells_how_a_parent_ended() -> None:
    name = PARENT_PARAMETER + B
    scene = Scene().given(create("a"))
    scene.when(SetParameter(job_id=A, name=name, value={"state": "Succeeded"})).then("rejected invalid")
    scene.when(create("b", parameters={name: Raw(b"1")})).then("rejected invalid")


# --- several parents ---


def family(need: Need, on: ContinueOn = ContinueOn.SUCCEEDED) -> Scene:
    """Two jobs that run, and one that waits for them."""
    scene = Scene().given(worker(slots=3), create("a", retry=NEVER), create("b", retry=NEVER))
    scene.when(waiting("c", "a", "b", need=need, on=on)).then("c1 Awaiting")
    scene.and_told(f"lane 0: c waits for a {on}", f"lane 0: c waits for b {on}")
    return delivered(scene)


def test_all_parents_have_to_end_well_and_their_results_are_there() -> None:
    scene = family(Need.ALL)
    scene.when(with_result("a", 2, 1)).and_told("lane 0: c runs, a is Succeeded")
    scene.when(*(report for _, _, report in scene.out.reports)).then("c2 Awaiting")
    assert [kind for _, kind, *_ in scene.out.events] == ["job.parent_ended"]
    scene.reloaded().given(with_result("b", 2, 2))
    scene.when(*(report for _, _, report in scene.out.reports))
    scene.then("c3 Awaiting", "c4 Enqueued", "c5 Processing #1 by w")
    assert told(scene, "c") == {
        A: {"state": "Succeeded", "result": 1},
        B: {"state": "Succeeded", "result": 2},
    }


def test_one_parent_that_ends_otherwise_is_enough_when_all_are_needed() -> None:
    scene = family(Need.ALL).given(DeleteJob(job_id=A))
    scene.when(*(report for _, _, report in scene.out.reports)).then("c2 Awaiting", "c3 Deleted")
    assert scene.reasons[-1] == f"Continuation condition was not met: job {A} ended as Deleted"
    scene.given(succeeded("b", 2)).when(*(report for _, _, report in scene.out.reports)).then()
    assert scene.out.counts["joblog_stale_reports_total", "parent.ended"] == 1


def test_any_parent_that_ends_well_is_enough_when_one_is_needed() -> None:
    scene = family(Need.ANY).given(DeleteJob(job_id=A))
    scene.when(*(report for _, _, report in scene.out.reports)).then("c2 Awaiting")
    scene.given(with_result("b", 2, 2)).when(*(report for _, _, report in scene.out.reports))
    scene.then("c3 Awaiting", "c4 Enqueued", "c5 Processing #1 by w")
    assert told(scene, "c")[A] == {"state": "Deleted"}


def test_when_none_of_the_parents_ended_well_the_job_is_deleted() -> None:
    scene = delivered(family(Need.ANY).given(DeleteJob(job_id=A), DeleteJob(job_id=B)))
    assert C not in scene.lane.jobs
    assert scene.lane.ended.get(C) == (State.DELETED, 4)


def test_a_failed_parent_is_waited_for_as_by_a_single_continuation() -> None:
    scene = delivered(family(Need.ALL).given(run_failed("a", 2), succeeded("b", 2)))
    assert scene.job("c").state is State.AWAITING
    delivered(scene.given(RequeueJob(job_id=A)))
    delivered(scene.given(succeeded("a", 5)))
    assert scene.job("c").state is State.PROCESSING


def test_a_report_that_comes_again_changes_nothing() -> None:
    scene = family(Need.ALL).given(succeeded("a", 2))
    (again,) = [report for _, _, report in scene.out.reports]
    scene.given(again)
    scene.when(again).then()
    assert scene.out.counts["joblog_stale_reports_total", "parent.ended"] == 1
    scene.when(structs.replace(again, parent=D)).then()
    scene.when(ParentEnded(job_id=D, parent=A, state=None, run=False, reason="")).then()


def test_parents_that_are_named_twice_count_once() -> None:
    scene = Scene().given(worker(slots=3), create("a"))
    scene.when(waiting("c", "a", "a")).and_told("lane 0: c waits for a succeeded")
    delivered(delivered(scene).given(succeeded("a", 2)))
    assert scene.job("c").state is State.PROCESSING


def test_a_job_can_neither_wait_for_itself_nor_for_what_cannot_be() -> None:
    Scene().when(waiting("c", "a", "c")).then("rejected invalid")
    beyond = create("c", parents=wire.Parents((A, id_of("b", 3))))
    Scene().when(beyond).then("rejected unknown_job")


def test_all_results_together_have_a_bound() -> None:
    names = "abdefg"
    scene = Scene().given(worker(slots=9), *map(create, names)).given(waiting("c", *names))
    delivered(scene)
    for name in names:
        delivered(scene.given(with_result(name, 2, "x" * 60_000)))
    found = told(scene, "c")
    assert [bool(found[id_of(name)].get("omitted")) for name in names] == [False] * 4 + [True] * 2
    assert scene.job("c").state is State.PROCESSING


@pytest.mark.parametrize(
    ("need", "ended", "found"),
    [
        (Need.ALL, {}, "wait"),
        (Need.ALL, {A: State.SUCCEEDED}, "wait"),
        (Need.ALL, {A: State.SUCCEEDED, B: State.SUCCEEDED}, "run"),
        (Need.ALL, {A: State.SUCCEEDED, B: None}, "delete"),
        (Need.ALL, {B: State.FAILED}, "delete"),
        (Need.ANY, {}, "wait"),
        (Need.ANY, {A: None}, "wait"),
        (Need.ANY, {B: State.SUCCEEDED}, "run"),
        (Need.ANY, {A: State.DELETED, B: None}, "delete"),
        (Need.ANY, {A: State.DELETED, D: State.SUCCEEDED}, "wait"),
    ],
)
def test_the_condition_of_several_parents(need: Need, ended: dict[str, State | None], found: str) -> None:
    assert parents.condition(wire.Parents((A, B), ContinueOn.SUCCEEDED, need), ended) == found
