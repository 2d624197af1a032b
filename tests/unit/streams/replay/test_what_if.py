from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.retry import Curve, OnExceeded, Retry
from joblog.streams.contract.states import State
from joblog.streams.contract.timestamps import format_time
from joblog.streams.lane.filters import ElectFilter, FilterChain, RetryFilter
from joblog.streams.lane.job import deleted
from joblog.streams.replay.history import Histories, History
from joblog.streams.replay.outcomes import INTERVALS_MAX, MINUTE_MS, Load, Outcomes
from joblog.streams.replay.stored import stored_event
from joblog.streams.replay.what_if import Beyond, Otherwise, WhatIf
from msgspec import structs

from tests.support.scene import NEVER, NOW, Pause, Scene, Tick, create, id_of, released, run_failed, succeeded, worker

TWICE = Retry(attempts=2, curve=Curve.FIXED, delays_s=(60.0,))
ONCE, THRICE = structs.replace(TWICE, attempts=1), structs.replace(TWICE, attempts=3)
DUE = Tick(66_000)  # electors wait 5 s for the timer


def recorded(*turns: Sequence[Any], retry: Retry = TWICE, **fields: Any) -> History:
    """The history of job a, created and assigned in the first turn; workers announce themselves in each."""
    scene, found = Scene(), Histories()
    for turn in ((create("a", retry=retry, **fields),), *turns):
        scene.when(worker(), *turn, worker())
        for key, kind, event_id, data, cause, _ in scene.out.events:
            time = format_time(scene.now_ms)
            value = encode(wire.CloudEvent("1.0", event_id, "/l", kind, key, time, None, cause, None, data))
            stored = stored_event(value)
            assert stored is None or list(found.take(stored)) == []
    (history,) = found
    return history


def simulated(
    history: History, retry: Retry | None, beyond: Beyond = Beyond.AS_RECORDED, filters: Sequence[ElectFilter] = ()
) -> tuple[State, int, int, int]:
    end = otherwise(history, retry, beyond, filters)
    return end.job.state, end.job.attempt, end.retries, end.assumed


def otherwise(
    history: History, retry: Retry | None, beyond: Beyond = Beyond.AS_RECORDED, filters: Sequence[ElectFilter] = ()
) -> Otherwise:
    return WhatIf(FilterChain([RetryFilter(lambda: 0.0), *filters]), retry, beyond).of(history)


def recovered() -> History:
    """Succeeded with the second retry, runs of two seconds."""
    return recorded((Pause(2_000), run_failed("a", 2)), (DUE,), (Pause(2_000), run_failed("a", 6)), (DUE,),
                    (Pause(2_000), succeeded("a", 10)))  # fmt: skip


def test_the_same_policy_gives_the_same_course() -> None:
    history = recovered()
    same = otherwise(history, None)
    assert (same.job.state, same.job.attempt, same.assumed) == (State.SUCCEEDED, 3, 0)
    assert (same.retries, same.waited_ms, same.starts) == (history.retries, history.waited_ms, history.starts)
    assert (history.retries, history.waited_ms, len(history.starts)) == (2, 120_000, 3)


def test_with_fewer_retries_the_job_ends_earlier() -> None:
    assert simulated(recovered(), ONCE) == (State.FAILED, 2, 1, 0)
    assert simulated(recovered(), NEVER) == (State.FAILED, 1, 0, 0)


def test_more_retries_than_were_needed_change_nothing() -> None:
    assert simulated(recovered(), THRICE) == (State.SUCCEEDED, 3, 2, 0)


def test_a_job_that_failed_is_assumed_to_fail_again_or_as_is_asked() -> None:
    history = recorded((run_failed("a", 2),), (DUE,), (run_failed("a", 6),), retry=ONCE)
    assert simulated(history, THRICE) == (State.FAILED, 4, 3, 2)
    assert simulated(history, THRICE, Beyond.SUCCEED) == (State.SUCCEEDED, 3, 2, 1)
    assert simulated(history, NEVER) == (State.FAILED, 1, 0, 0)


def test_the_policys_other_rules_apply() -> None:
    history = recovered()
    assert simulated(history, structs.replace(TWICE, except_on=("Boom",))) == (State.FAILED, 1, 0, 0)
    dropping = structs.replace(ONCE, on_exceeded=OnExceeded.DELETE)
    assert simulated(history, dropping) == (State.DELETED, 2, 1, 0)


def test_a_command_comes_at_its_time_or_not_at_all_if_the_job_has_ended() -> None:
    gone = wire.DeleteJob(job_id=id_of("a"))
    history = recorded((run_failed("a", 2),), (Pause(30_000), gone))
    assert simulated(history, None) == (State.DELETED, 1, 1, 0)
    sooner = structs.replace(TWICE, delays_s=(20.0,))
    assert simulated(history, sooner) == (State.DELETED, 2, 2, 1)
    soonest = structs.replace(TWICE, delays_s=(1.0,))
    assert simulated(history, soonest) == (State.FAILED, 3, 2, 2)


def test_a_command_on_a_job_that_is_due_comes_before_its_run() -> None:
    history = recorded((run_failed("a", 2),), (Pause(61_000), wire.DeleteJob(job_id=id_of("a"))))
    assert simulated(history, None) == (State.DELETED, 1, 1, 0)
    assert simulated(history, structs.replace(TWICE, delays_s=(1.0,))) == (State.FAILED, 3, 2, 2)


def test_a_command_of_the_millisecond_of_a_run_comes_after_it() -> None:
    again = wire.RequeueJob(job_id=id_of("a"))
    history = recorded((run_failed("a", 2), again), (succeeded("a", 5),), retry=NEVER)
    assert [state for _, state in history.ends] == [State.FAILED, State.ENQUEUED, State.SUCCEEDED]
    assert otherwise(history, None).ends == history.ends


def test_a_requeue_is_left_out_when_the_job_would_have_succeeded() -> None:
    again = wire.RequeueJob(job_id=id_of("a"))
    history = recorded((run_failed("a", 2),), (Pause(300_000), again), (succeeded("a", 5),), retry=NEVER)
    assert simulated(history, None) == (State.SUCCEEDED, 2, 0, 0)
    assert simulated(history, ONCE, Beyond.SUCCEED) == (State.SUCCEEDED, 2, 1, 1)


def test_nothing_is_assumed_of_a_job_that_has_not_ended() -> None:
    assert simulated(recorded((run_failed("a", 2),)), None) == (State.SCHEDULED, 1, 1, 0)
    assert simulated(recorded(), None) == (State.PROCESSING, 1, 0, 0)


def dated(*turns: Sequence[Any], retry: Retry = TWICE) -> History:
    """As `recorded`, of a job with a deadline two minutes after its creation."""
    return recorded(*turns, retry=retry, deadline=datetime.fromtimestamp(NOW / 1000 + 120, UTC))


def test_a_deadline_ends_the_other_course_too() -> None:
    failing = dated((run_failed("a", 2),), (Tick(120_000),), retry=NEVER)
    assert simulated(failing, None) == (State.FAILED, 1, 0, 0)
    assert simulated(failing, structs.replace(TWICE, delays_s=(50.0,))) == (State.FAILED, 3, 2, 2)
    assert simulated(failing, structs.replace(TWICE, delays_s=(70.0,))) == (State.FAILED, 2, 1, 1)
    slow = dated((Pause(70_000), run_failed("a", 2)), retry=NEVER)
    assert simulated(slow, structs.replace(TWICE, delays_s=(10.0,))) == (State.FAILED, 2, 1, 1)


def test_a_job_that_expired_expires_in_the_other_course_unless_it_ended_before() -> None:
    waiting = dated((run_failed("a", 2),), (Tick(60_000), released("a", 6, started=True)), (Tick(60_000),))
    assert waiting.job.state is State.DELETED
    assert simulated(waiting, None)[0] is State.DELETED
    assert simulated(waiting, NEVER) == (State.FAILED, 1, 0, 0)
    cut = dated((Tick(120_000, caught_up=False),))
    assert (cut.job.state, simulated(cut, None)) == (State.FAILED, (State.FAILED, 1, 0, 0))


def test_another_filter_is_asked() -> None:
    class Dropping:
        name, order, states = "dropping", 50, frozenset({State.FAILED})

        def elect(self, job: Any, *_: Any) -> Any:
            return deleted(job, "dropped")

    assert simulated(recovered(), NEVER, filters=[Dropping()]) == (State.DELETED, 1, 0, 0)


def test_sums_count_saved_and_added_job_by_job() -> None:
    outcomes = Outcomes()
    outcomes.add(recovered(), otherwise(recovered(), NEVER))
    failing = recorded((run_failed("a", 2),), retry=NEVER)
    outcomes.add(failing, otherwise(failing, ONCE))
    report = outcomes.report()
    assert (report["jobs"], report["changed"], report["assumed_runs"]) == (2, 1, 1)
    assert report["retries"] == {"recorded": 2, "simulated": 1, "saved": 2, "added": 1}
    assert report["waiting_s"] == {"recorded": 120.0, "simulated": 60.0, "saved": 120.0, "added": 60.0}
    assert [row["recorded"] for row in report["ends"]] == ["Succeeded", "Failed"]
    assert sum(row["recorded"] for row in report["load"]) == 4


def test_the_load_of_a_long_time_has_longer_intervals() -> None:
    load = Load()
    load.add([n * MINUTE_MS for n in range(INTERVALS_MAX + 2)], [])
    assert load.minutes == 2
    assert len(load.rows()) == INTERVALS_MAX // 2 + 1
    assert {row["recorded"] for row in load.rows()} == {1.0}
