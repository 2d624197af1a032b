"""What a run reads of the jobs that it waited for."""

import pytest
from joblog.services.client.options import JobOptions, continuing
from joblog.services.tasks.context import JobContext
from joblog.services.tasks.parents import ParentEnd
from joblog.streams.contract.commands import Parents
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.relations import PARENT_PARAMETER, PARENTS_MAX, Need
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.wire import JobException, RunJob
from joblog.streams.errors import InvalidData, TaskError
from msgspec import Raw, json

A, B, C = (new_job_id(0, 1, number) for number in range(3))


def context(**parents: object) -> JobContext:
    parameters = {f"{PARENT_PARAMETER}{name}": value for name, value in parents.items()} | {"other": 1}
    return JobContext(
        RunJob(
            job_id=C, lease=2, attempt=1, lane=0, task="t", queue="q", spec=Raw(b"{}"),
            parameters=Raw(json.encode(parameters)), ready_ms=0,
        ),
        "w",
    )  # fmt: skip


def test_a_run_reads_the_result_of_its_parent() -> None:
    one = context(**{A: {"state": "Succeeded", "result": {"n": [1]}}})
    assert one.parent == ParentEnd(A, State.SUCCEEDED, {"n": [1]})
    assert one.parents == {A: one.parent}
    assert context().parent is None


def test_a_run_reads_why_its_parent_failed_and_what_was_left_out() -> None:
    failed = {"state": "Failed", "exception": {"type": "shop.Boom", "message": "no"}}
    two = context(**{A: failed, B: {"state": None, "omitted": "why"}}).parents
    assert two[A].exception == JobException("shop.Boom", "no")
    assert (two[B].state, two[B].omitted) == (None, "why")


def test_a_parent_that_was_requeued_has_not_ended() -> None:
    assert context(**{A: {"state": "Enqueued"}, B: {"state": "Succeeded"}}).parents.keys() == {B}


def test_of_several_parents_none_is_the_parent() -> None:
    with pytest.raises(TaskError, match=r"waited for 2 jobs: read context\.parents"):
        _ = context(**{A: {"state": "Succeeded"}, B: {"state": "Succeeded"}}).parent


def test_a_list_of_parents_makes_a_job_that_waits_for_several() -> None:
    options = continuing(JobOptions(), [A, B], ContinueOn.ENDED, Need.ANY)
    assert options.parents == Parents(job_ids=(A, B), on=ContinueOn.ENDED, need=Need.ANY)
    assert continuing(JobOptions(), A, ContinueOn.ENDED, Need.ALL).parent == A


@pytest.mark.parametrize(
    ("parent", "need", "options", "says"),
    [
        (A, Need.ANY, {}, "need=any has no effect on one parent"),
        ([], Need.ALL, {}, "job_ids: Tuple should have"),
        ([A] * (PARENTS_MAX + 1), Need.ALL, {}, "job_ids: Tuple should have"),
        ([A], Need.ALL, {"parent": B}, r"options\.parent has no effect"),
        (A, Need.ALL, {"parents": Parents(job_ids=(B,))}, r"options\.parents has no effect"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    parent: object, need: Need, options: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidData, match=says):
        continuing(JobOptions(**options), parent, ContinueOn.SUCCEEDED, need)


def test_parents_and_other_waits_exclude_each_other() -> None:
    several = Parents(job_ids=(A,))
    for other in ({"parent": B}, {"after_batch": B}):
        with pytest.raises(InvalidData):
            JobOptions(parents=several, **other)  # type: ignore[arg-type]
    with pytest.raises(InvalidData, match="tell how parents ended"):
        JobOptions(parameters={PARENT_PARAMETER + A: 1})
