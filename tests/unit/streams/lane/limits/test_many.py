"""Very many jobs for one limit: no turn takes long or writes too much, and nothing is kept of those that got it."""

from time import process_time
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.relations import LimitKind
from joblog.streams.lane.features.limits import Limits
from joblog.streams.lane.limits.claims import owner_of
from joblog.streams.lane.output import Budget, LaneOutput

from tests.support.scene import NOW, Scene, Tick, queue_in, worker

LANES: Final = 3
SHARED: Final = wire.Limit(LimitKind.SEMAPHORE, "s", 10)
OWNER: Final = owner_of((SHARED.kind, SHARED.key), LANES)
OTHER: Final = (OWNER + 1) % LANES


def scene(lane: int) -> Scene:
    return Scene(number=lane, lanes=LANES).given(worker(slots=1_000, queues=(queue_in(lane, LANES),)))


def jobs(lane: int, first: int, last: int) -> list[wire.CreateJob]:
    queue = queue_in(lane, LANES)
    ids = [new_job_id(lane, NOW, number) for number in range(first, last)]
    return [wire.CreateJob("t", queue=queue, job_id=job_id, limits=(SHARED,)) for job_id in ids]


def asked(one: Scene) -> list[wire.LimitAsked]:
    return [said for _, _, said in one.out.reports if isinstance(said, wire.LimitAsked)]


def answered(question: wire.LimitAsked) -> dict[str, Any]:
    return {
        "job_id": question.job_id,
        "kind": SHARED.kind,
        "key": SHARED.key,
        "epoch": question.epoch,
        "ask": question.ask,
    }


def feature(one: Scene) -> Limits:
    return next(found for found in one.lane.features if isinstance(found, Limits))


def test_a_turn_in_which_many_begin_to_wait_takes_a_time_that_grows_as_they_do() -> None:
    one, commands, began = scene(OWNER), jobs(OWNER, 0, 20_000), process_time()
    one.when(*commands)
    assert process_time() - began < 3
    assert len([kind for _, kind, *_ in one.out.events if kind == "job.held"]) == 20_000 - SHARED.capacity


def test_a_limit_that_has_room_keeps_nothing_of_the_jobs_that_got_it() -> None:
    one = scene(OTHER).when(*jobs(OTHER, 0, 2))
    open_questions = asked(one)
    for number in range(2, 100):
        first = open_questions.pop(0)
        one.when(*jobs(OTHER, number, number + 1), wire.LimitGranted(**answered(first), from_ms=0))
        open_questions += asked(one)
    (other,) = feature(one).elsewhere.values()
    assert len(other.untold) == len(other.asked) == 2


def test_those_that_wait_are_told_so_over_several_turns_and_each_once() -> None:
    one = scene(OTHER).when(*jobs(OTHER, 0, 100))
    first, lane, told = asked(one)[0], one.lane, []
    out = LaneOutput(budget=Budget(records=60))
    lane.report(wire.LimitWaits(**answered(first), waits_for="x"), "reports/0@1", one._election(), out)
    assert len(out.events) == 30
    told += out.events
    one.when(wire.DeleteJob(job_id=new_job_id(OTHER, NOW, 99)))
    for _ in range(3):
        out = LaneOutput(budget=Budget(records=60))
        lane.tick(True, one._election(), out)
        told += out.events
    assert [key for key, *_ in told] == [new_job_id(OTHER, NOW, number) for number in range(99)]
    assert not one.when(Tick(100)).out.events
