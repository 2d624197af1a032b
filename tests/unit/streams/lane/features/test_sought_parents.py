"""A parent that its lane has forgotten: when it is sought, and which answer counts, by example and in any order."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from joblog.streams.contract import wire
from joblog.streams.contract.relations import Need
from joblog.streams.contract.states import FINAL_STATES, ContinueOn, State
from joblog.streams.elector.lane_records import read_state, write_state
from joblog.streams.lane.features.sought_parents import Link
from joblog.streams.lane.rules import LaneRules
from msgspec import Raw, json

from tests.support.scene import (
    BOOM,
    NEVER,
    STARTED_AT,
    Scene,
    Tick,
    create,
    id_of,
    name_of,
    run_failed,
    succeeded,
    worker,
)

A = id_of("a")
FORGETFUL = LaneRules(remembered=0, failed_kept=0, pending_ms=60_000)
LATE = FORGETFUL.pending_ms + 1
STALE = ("joblog_stale_reports_total", "parent.found")


def link(child: str = "b", on: ContinueOn = ContinueOn.SUCCEEDED) -> wire.ContinuationAdded:
    return wire.ContinuationAdded(job_id=A, child=id_of(child), on=on)


def question(scene: Scene) -> str:
    """What the last turn asked."""
    (sought,) = (data for _, kind, _, data, _, _ in scene.out.events if kind == "parent.sought")
    return str(sought.question)


def found(asked: str, state: State | None = State.SUCCEEDED, **has: Any) -> wire.ParentFound:
    return wire.ParentFound(job_id=A, question=asked, state=state, **has)


def snapshot(version: int, state: State) -> wire.Snapshot:
    return wire.Snapshot(version, state, 1, "t", "q0", STARTED_AT, wire.JobSpec(retry=NEVER))


def waiting(*links: wire.ContinuationAdded) -> Scene:
    return Scene(rules=FORGETFUL).given(*(links or (link(),)))


def asked(*links: wire.ContinuationAdded) -> tuple[Scene, str]:
    scene = waiting(*links).when(Tick(1_000)).then("a is sought")
    return scene, question(scene)


# --- the question ---


def test_a_parent_is_sought_when_it_is_unknown_though_everything_was_read() -> None:
    scene = waiting().when(Tick(999)).then()
    scene.when(Tick(1, caught_up=False)).then()
    scene.when(Tick(0)).then("a is sought").and_told()
    ((key, _, event_id, sought, cause, _),) = scene.out.events
    assert (key, event_id) == (A, f"{A}/sought/{scene.now_ms}")
    assert sought.parent == A
    assert sought.question == cause == "reports/0@1"
    assert sought.until.timestamp() * 1_000 == scene.now_ms - 1_000 + FORGETFUL.pending_ms


def test_a_parent_that_is_there_or_comes_within_a_second_is_not_sought() -> None:
    waiting().given(Tick(500), create("a")).when(Tick(600)).then()
    Scene(rules=FORGETFUL).given(create("a"), link()).when(Tick(5_000)).then()
    Scene().given(worker(), create("a")).given(succeeded("a", 2), link()).when(Tick(5_000)).then()


def test_the_question_is_repeated_ever_more_seldom_until_the_parent_is_given_up() -> None:
    scene = waiting()
    times = [at_ms for at_ms in range(500, 70_000, 500) if scene.when(Tick(500)).events == ["a is sought"]]
    assert times == [1_000, 3_000, 7_000, 15_000, 31_000]


def test_whoever_takes_the_lane_over_asks_the_same_question() -> None:
    scene, first = asked()
    scene.reloaded().when(Tick(0)).then("a is sought")
    assert question(scene) == first
    scene.when(found(first)).and_told("lane 0: b runs, a is Succeeded")


def test_waits_of_a_state_that_was_made_anew_are_asked_for_too() -> None:
    scene = Scene(rules=FORGETFUL)
    scene.kept[f"pending:{A}"] = write_state((Link(id_of("b"), "succeeded", scene.now_ms),)) or b""
    scene.reloaded().when(Tick(1_000)).then("a is sought")
    scene.when(found(question(scene))).and_told("lane 0: b runs, a is Succeeded")


# --- the answer ---


def test_those_who_wait_are_told_how_the_parent_ended_with_its_result_each_once() -> None:
    scene, q = asked(link(), link(), link("c", ContinueOn.ENDED), link("d", ContinueOn.FAILED))
    scene.when(found(q, result=Raw(b"[1]"), omitted="why")).and_told(
        "lane 0: b runs, a is Succeeded", "lane 0: c runs, a is Succeeded", "lane 0: d does not run, a is Succeeded"
    )
    assert [(bytes(one.result), one.omitted) for _, _, one in scene.out.reports] == [(b"[1]", "why")] * 3  # type: ignore[union-attr]
    assert scene.out.state == {"pending:" + A: None}
    scene.when(Tick(LATE)).then().and_told()


def test_one_that_comes_to_wait_before_the_answer_is_told_with_the_others() -> None:
    scene, q = asked()
    scene.given(link("c")).when(found(q)).and_told("lane 0: b runs, a is Succeeded", "lane 0: c runs, a is Succeeded")


def test_a_failed_parent_that_was_forgotten_is_not_waited_for_any_more() -> None:
    scene, q = asked(link(), link("c", ContinueOn.FAILED))
    scene.when(found(q, State.FAILED, exception=BOOM)).and_told(
        "lane 0: b does not run, a is Failed", "lane 0: c runs, a is Failed"
    )
    assert scene.out.reports[1][2].exception == BOOM  # type: ignore[union-attr]


def test_an_answer_that_comes_twice_changes_nothing() -> None:
    scene, q = asked()
    scene.given(found(q)).when(found(q)).then().and_told()
    assert scene.out.counts[STALE] == 1


def test_a_parent_that_was_created_or_revived_meanwhile_tells_its_own_end() -> None:
    for back in (create("a"), wire.RequeueJob(job_id=A, snapshot=snapshot(3, State.SUCCEEDED))):
        scene, q = asked()
        scene.given(back).when(found(q)).then().and_told()
        assert scene.out.counts[STALE] == 1
        scene.when(wire.DeleteJob(job_id=A)).and_told("lane 0: b does not run, a is Deleted")


def test_an_answer_to_a_question_of_before_the_parent_was_revived_is_not_believed() -> None:
    scene, q = asked()
    scene.given(wire.RequeueJob(job_id=A, snapshot=snapshot(3, State.SUCCEEDED)), wire.DeleteJob(job_id=A))
    scene.given(link("c")).when(found(q)).and_told()
    assert scene.out.counts[STALE] == 1
    scene.given(Tick(1_000)).when(found(question(scene), State.DELETED))
    scene.and_told("lane 0: c does not run, a is Deleted")


@pytest.mark.parametrize("state", [state for state in State if state not in FINAL_STATES])
def test_that_a_parent_lives_is_no_answer(state: State) -> None:
    scene, q = asked()
    scene.when(found(q, state)).and_told()
    assert scene.out.counts[STALE] == 1
    scene.when(found(q)).and_told("lane 0: b runs, a is Succeeded")


def test_an_answer_that_nobody_asked_for_changes_nothing() -> None:
    scene = Scene(rules=FORGETFUL).when(found("reports/0@1")).then().and_told()
    assert scene.out.counts[STALE] == 1
    assert scene.out.state == {}


# --- a parent that is not in the read model ---


def test_a_parent_that_is_not_there_may_still_be_created() -> None:
    scene, q = asked()
    scene.when(found(q, None)).then().and_told()
    assert scene.out.counts[STALE] == 0
    scene.when(Tick(30_000)).then()
    scene.given(create("a"), worker()).when(succeeded("a", 2)).and_told("lane 0: b runs, a is Succeeded")


def test_a_parent_that_is_not_there_is_given_up_in_its_time_and_the_reason_says_so() -> None:
    scene, q = asked()
    scene.given(found(q, None)).when(Tick(FORGETFUL.pending_ms - 1_000)).then().and_told()
    scene.when(Tick(1)).then().and_told("lane 0: b does not run, a is unknown")
    assert scene.out.reports[0][2].reason == (  # type: ignore[union-attr]
        f"Job {A} is unknown: Postgres does not have it, and it was not created within 60 s. "
        "It was never created, or its row has expired"
    )


def test_without_an_answer_the_reason_says_that_none_came() -> None:
    scene = asked()[0].when(Tick(LATE - 1_000)).and_told("lane 0: b does not run, a is unknown")
    assert scene.out.reports[0][2].reason == (  # type: ignore[union-attr]
        f"Job {A} is unknown: it was never created, or ended too long ago, and no projector said how"
    )
    scene.when(found("reports/0@1")).and_told()
    assert scene.out.counts[STALE] == 1


def test_nobody_is_given_up_unasked_after_an_outage() -> None:
    scene = waiting().reloaded().when(Tick(1_000_000)).then("a is sought").and_told()
    q, (*_, sought, _, _) = question(scene), scene.out.events[0]
    assert sought.until.timestamp() * 1_000 == scene.now_ms + 5_000
    scene.when(Tick(5_000)).and_told()
    scene.when(Tick(1)).and_told("lane 0: b does not run, a is unknown")
    scene = waiting().reloaded().given(Tick(1_000_000)).when(found(q, None)).and_told()
    scene.when(Tick(0)).and_told("lane 0: b does not run, a is unknown")


def test_what_was_said_of_a_parent_is_forgotten_when_it_appears() -> None:
    scene, q = asked()
    scene.given(found(q, None)).given(create("a")).given(wire.DeleteJob(job_id=A)).given(link("c"))
    scene.when(Tick(1_000)).then("a is sought")


# --- the continuation ---


def delivered(scene: Scene) -> Scene:
    """What the lane told itself, read back."""
    return scene.when(*(report for _, _, report in scene.out.reports))


def test_a_continuation_of_a_forgotten_job_runs_with_its_result() -> None:
    scene = Scene(rules=FORGETFUL).given(create("b", on="a"))
    delivered(scene).when(Tick(1_000)).then("a is sought")
    scene.when(found(question(scene), result=Raw(b"[1]")))
    delivered(scene).then("b2 Enqueued")
    assert json.decode(scene.job("b").parameters) == {f"Parent:{A}": {"state": "Succeeded", "result": [1]}}


def test_a_continuation_that_was_deleted_meanwhile_stays_deleted() -> None:
    scene = Scene(rules=FORGETFUL).given(create("b", on="a"))
    delivered(scene).when(Tick(1_000))
    q = question(scene)
    delivered(scene.given(wire.DeleteJob(job_id=id_of("b"))).when(found(q))).then()
    assert scene.out.counts["joblog_stale_reports_total", "parent.ended"] == 1


@pytest.mark.parametrize(("need", "lines"), [(Need.ALL, []), (Need.ANY, ["c3 Enqueued"])])
def test_one_of_several_parents_may_be_a_forgotten_one(need: Need, lines: list[str]) -> None:
    parents = wire.Parents((A, id_of("b")), ContinueOn.SUCCEEDED, need)
    scene = Scene(rules=FORGETFUL).given(create("b")).given(create("c", parents=parents))
    delivered(scene).when(Tick(1_000)).then("a is sought")
    scene.when(found(question(scene)))
    delivered(scene).then("c2 Awaiting", *lines)
    if need is Need.ALL:
        scene.given(worker()).when(succeeded("b", 2))
        assert delivered(scene).events[:2] == ["c3 Awaiting", "c4 Enqueued"]


def test_a_continuation_that_a_forgotten_end_deleted_waits_again_when_the_parent_is_requeued() -> None:
    scene = Scene(rules=LaneRules(remembered=0, failed_kept=1)).given(create("b", on="a"))
    delivered(scene).when(Tick(1_000))
    scene.when(found(question(scene), State.FAILED, exception=BOOM))
    delivered(scene).then("b2 Deleted")
    delivered(scene).then()
    scene.when(wire.RequeueJob(job_id=A, snapshot=snapshot(3, State.FAILED))).then("a4 Enqueued")
    delivered(scene).then("b3 Awaiting")


# --- any order of all of it ---


class Interleavings(RuleBasedStateMachine):
    """A lane that remembers nothing, a read model whose rows expire, and answers that come when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(rules=FORGETFUL)
        self.waits: dict[str, ContinueOn] = {}
        self.questions: list[str] = []
        self.answers: list[wire.ParentFound] = []
        self.parent: wire.JobEvent | None = None
        self.has_row = False
        self.children = 0

    def when(self, *inputs: Any) -> None:
        """Let the lane decide, and check whom it tells what."""
        before = self.parent
        self.scene.when(worker(), *inputs)
        for _, kind, _, data, _, _ in self.scene.out.events:
            if kind == "parent.sought":
                self.questions.append(data.question)  # type: ignore[union-attr]
            elif isinstance(data, wire.JobEvent):
                self.parent, self.has_row = data, True
        for _, _, told in self.scene.out.reports:
            assert isinstance(told, wire.ParentEnded)
            self._check(told, before)

    def _check(self, told: wire.ParentEnded, before: wire.JobEvent | None) -> None:
        """One that waits is told once, and how the parent has ended by then."""
        on = self.waits.pop(name_of(told.job_id))
        if told.state is None:
            assert A not in self.scene.lane.jobs
            return
        ends = {one.state for one in (before, self.parent) if one is not None}
        assert told.state in ends & FINAL_STATES
        assert told.run is ((on is ContinueOn.ENDED) or told.state is State.SUCCEEDED)

    @property
    def lives(self) -> bool:
        return A in self.scene.lane.jobs

    @rule(on=st.sampled_from((ContinueOn.SUCCEEDED, ContinueOn.ENDED)), again=st.booleans())
    def wait(self, on: ContinueOn, again: bool) -> None:
        self.children += 1
        name = chr(ord("A") + self.children)
        self.waits[name] = on
        said = wire.ContinuationAdded(job_id=A, child=id_of(name), on=on)
        self.when(*[said] * (1 + again * (not self.lives)))

    @precondition(lambda self: not self.lives)
    @rule()
    def come_alive(self) -> None:
        if self.parent is None:
            self.when(create("a", retry=NEVER))
        else:
            said = snapshot(self.parent.version, self.parent.state)
            self.when(wire.RequeueJob(job_id=A, snapshot=said))

    @precondition(lambda self: self.lives)
    @rule(end=st.sampled_from(("succeeds", "fails", "is deleted")))
    def end(self, end: str) -> None:
        job = self.scene.lane.jobs[A]
        if end == "is deleted" or job.state is not State.PROCESSING:
            self.when(wire.DeleteJob(job_id=A))
        else:
            self.when((succeeded if end == "succeeds" else run_failed)("a", job.lease))

    @precondition(lambda self: not self.lives)
    @rule(end=st.sampled_from(("succeeds", "fails", "is deleted")))
    def live(self, end: str) -> None:
        self.come_alive()
        self.end(end)

    @rule(ms=st.sampled_from((0, 1_000, 1_000, 5_000, LATE)))
    def tick(self, ms: int) -> None:
        self.when(Tick(ms))

    @rule()
    def take_over(self) -> None:
        self.scene.reloaded()

    @precondition(lambda self: not self.lives)
    @rule()
    def expire(self) -> None:
        self.has_row = False

    @precondition(lambda self: self.questions)
    @rule(which=st.integers(0, 5))
    def look(self, which: int) -> None:
        """A projector answers a question, late or again."""
        q = self.questions[-1 - which % len(self.questions)]
        row = self.parent if self.has_row else None
        if row is None or row.state in FINAL_STATES:
            self.answers.append(found(q, None if row is None else row.state))

    @precondition(lambda self: self.answers)
    @rule(which=st.integers(0, 5))
    def hear(self, which: int) -> None:
        self.when(self.answers[-1 - which % len(self.answers)])

    @invariant()
    def nobody_is_forgotten(self) -> None:
        kept = {child for child, *_ in self._pending()}
        if A in self.scene.lane.jobs:
            kept |= {child for child, _ in self.scene.lane.jobs[A].continuations}
        assert kept == {id_of(name) for name in self.waits}

    def _pending(self) -> Any:
        key = f"pending:{A}"
        return read_state(key, self.scene.kept[key]) if key in self.scene.kept else ()

    def teardown(self) -> None:
        if not self.lives:
            self.when(Tick(LATE))
            self.when(Tick(LATE))
            assert not self.waits


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
