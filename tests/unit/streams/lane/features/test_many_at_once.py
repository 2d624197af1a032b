"""What a lane has very many of: no turn takes long for them, or writes more than a transaction takes."""

from collections.abc import Callable
from time import process_time
from typing import Final

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import BYTES_MAX, Budget, LaneOutput
from joblog.streams.lane.rules import LaneRules
from msgspec import Raw

from tests.support.scene import NOW, Scene, create, id_of, succeeded, worker

MINUTE_MS: Final = 60_000


def job_ids(first: int, last: int) -> list[str]:
    return [new_job_id(0, NOW, number) for number in range(first, last)]


def ticked(one: Scene, ms: int = 100, records: int = 1_000_000) -> LaneOutput:
    """What one turn writes in which nothing comes in, and so many records are left to its transaction."""
    one._pass(ms)
    out = LaneOutput(budget=Budget(records=records))
    one.lane.tick(True, one._election(), out)
    one.lane.assign(one._election(), out)
    return out


def awaited(parent: str, child: str) -> wire.ContinuationAdded:
    return wire.ContinuationAdded(job_id=parent, child=child, on=ContinueOn.SUCCEEDED)


def with_unknown_parents(count: int) -> Scene:
    parents, children = job_ids(0, count), job_ids(count, 2 * count)
    return Scene().given(*map(awaited, parents, children))


def with_failed_jobs(count: int) -> Scene:
    one = Scene(rules=LaneRules(failed_kept=10))
    for job_id in job_ids(0, count):
        one.lane.load(job_id, Job(job_id, "q0", "t", State.FAILED, 3, 1, 0, NOW, b"{}", due_ms=NOW), 0)
    one.lane.loaded(0)
    return one


def test_parents_that_are_unknown_cost_nothing_until_there_is_something_to_do() -> None:
    one = with_unknown_parents(30_000)
    assert len(ticked(one, 1_000).events) == 30_000
    began = process_time()
    for _ in range(15):
        assert ticked(one).empty
    assert process_time() - began < 0.2


@pytest.mark.parametrize(
    ("made", "key", "ms"),
    [(with_unknown_parents, "pending:", 2 * MINUTE_MS), (with_failed_jobs, "", 100)],
    ids=["parents that are given up", "failed jobs that are forgotten"],
)
def test_what_is_dropped_is_dropped_over_several_turns(made: Callable[[int], Scene], key: str, ms: int) -> None:
    one = made(1_000)
    dropped = [ticked(one, ms, records=200).state for _ in range(30)]
    assert all(len([name for name, value in turn.items() if value is None]) <= 200 for turn in dropped)
    left = set(job_ids(0, 1_000)).difference(name.removeprefix(key) for turn in dropped for name in turn)
    assert len(left) in {0, 10}


def test_results_for_many_continuations_are_told_over_as_many_turns_as_they_need() -> None:
    large, names = Raw(b'"' + 60_000 * b"x" + b'"'), "abc"
    one = Scene().given(worker(slots=3), *map(create, names))
    for number, name in enumerate(names):
        waiting = job_ids(1_000 * number, 1_000 * number + 400)
        one.given(*(awaited(id_of(name), child) for child in waiting))
    told = [one.when(*(succeeded(name, 2, result=large) for name in names)).out]
    told += [ticked(one) for _ in range(3)]
    for out in told:
        assert len(out.reports) * 60_000 < BYTES_MAX + 2 * 60_000
    assert len({report.job_id for out in told for _, _, report in out.reports}) == 1_200
