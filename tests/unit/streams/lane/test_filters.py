from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from joblog.streams.contract.retry import Curve, OnExceeded, Retry
from joblog.streams.contract.states import State
from joblog.streams.contract.wire import DeleteJob, JobEvent, JobException, JobSpec, RunFailed
from joblog.streams.errors import SettingsError
from joblog.streams.lane import filters
from joblog.streams.lane.filters import FilterChain, RetryFilter, installed_filters, policy_of
from joblog.streams.lane.job import Job, deleted, enqueued, failed, scheduled
from joblog.streams.lane.transitions import Assigned, Lost
from msgspec import json, structs

NOW = 1_800_000_000_000
ID = "01a31bcf-c400-8000-8000-00000000002a"
BOOM = JobException("shop.Boom", "b" * 60, "", ("shop.Boom", "builtins.Exception"))
IN_A_MINUTE = Retry(curve=Curve.FIXED, delays_s=(60.0,), attempts=2)
DELETE = DeleteJob(job_id=ID)


def running(retry: Retry | None = None, *, retries: int = 0, lost: int = 0) -> Job:
    job = Job(ID, "q", "t", State.PROCESSING, 2, 1, 0, NOW, json.encode(JobSpec(retry=retry)))
    job.worker, job.lease, job.retries, job.lost = "w", 2, retries, lost
    return job


def run_failed(retry: Retry | None = None) -> RunFailed:
    return RunFailed(job_id=ID, lease=2, worker="w", exception=BOOM, duration_ms=1.0, started_ms=NOW, retry=retry)


def retried(job: Job, what: Any) -> tuple[JobEvent, ...]:
    return FilterChain([RetryFilter(lambda: 0.5)]).elect(job, failed(job, BOOM, "it failed"), what, NOW)


class Filter:
    """A custom filter that does what its test says."""

    order = 50

    def __init__(self, answer: Callable[[Job, JobEvent], Any], *states: State, name: str = "mine") -> None:
        self._answer = answer
        self.states = frozenset(states or State)
        self.name = name

    def elect(self, job: Job, candidate: JobEvent, *_: Any) -> Any:
        return self._answer(job, candidate)


def elected(answer: Callable[[Job, JobEvent], Any], candidate: Callable[[Job], JobEvent]) -> tuple[JobEvent, ...]:
    job = running()
    return FilterChain([Filter(answer)]).elect(job, candidate(job), DELETE, NOW)


def deletion(job: Job) -> JobEvent:
    return deleted(job, "unwanted")


def start(job: Job) -> JobEvent:
    return JobEvent(3, State.PROCESSING, 2, "q", "t", worker="w2", lease=3)


# --- retries ---


def test_a_failure_becomes_a_retry_and_both_are_written() -> None:
    job = running(IN_A_MINUTE)
    assert retried(job, run_failed()) == (
        structs.replace(failed(job, BOOM, "it failed"), traversed=True),
        structs.replace(
            scheduled(job, NOW + 60_000, f"Retry attempt 1 of 2: {'b' * 49}…", retries=1),
            version=4,
        ),
    )


def test_a_job_whose_retries_are_spent_stays_failed() -> None:
    job = running(IN_A_MINUTE, retries=2)
    assert retried(job, run_failed()) == (failed(job, BOOM, "it failed"),)


def test_a_job_whose_retries_are_spent_is_deleted_if_its_policy_says_so() -> None:
    job = running(structs.replace(IN_A_MINUTE, on_exceeded=OnExceeded.DELETE), retries=2)
    failure, end = retried(job, run_failed())
    assert failure.traversed
    assert (end.state, end.version) == (State.DELETED, 4)
    assert end.reason == f"All 2 retries were spent: {'b' * 49}…"


def test_a_retry_without_delay_is_enqueued_at_once() -> None:
    job = running(structs.replace(IN_A_MINUTE, delays_s=(0.0,)), lost=3)
    _, again = retried(job, run_failed())
    assert (again.state, again.retry, again.lost, again.attempt) == (State.ENQUEUED, 1, 3, 1)


def test_an_exception_that_the_policy_excludes_is_not_retried() -> None:
    job = running(structs.replace(IN_A_MINUTE, except_on=("Boom",)))
    assert [event.state for event in retried(job, run_failed())] == [State.FAILED]


def test_a_lost_run_is_retried_whatever_exceptions_the_policy_names() -> None:
    job = running(structs.replace(IN_A_MINUTE, only_on=("ValueError",)))
    assert [event.state for event in retried(job, Lost("w", count=True))] == [State.FAILED, State.SCHEDULED]


def test_a_jobs_own_policy_goes_before_its_tasks_and_that_before_the_default() -> None:
    never, once = Retry(attempts=0), Retry(attempts=1)
    assert policy_of(running(once), never) == once
    assert policy_of(running(), never) == never
    assert policy_of(running()) == Retry()
    assert [event.state for event in retried(running(), run_failed(never))] == [State.FAILED]


def test_retries_are_spread_by_chance() -> None:
    draws = iter([0.0, 0.999])
    chain = FilterChain([RetryFilter(lambda: next(draws))])
    dues = [chain.elect(running(), failed(running(), BOOM, None), run_failed(), NOW)[1].due for _ in range(2)]
    assert dues == ["2027-01-15T08:00:15.000Z", "2027-01-15T08:00:44.000Z"]


# --- custom filters ---


def test_a_filter_that_agrees_changes_nothing() -> None:
    assert elected(lambda _job, _candidate: None, deletion) == (deletion(running()),)


def test_a_filter_replaces_the_candidate_and_takes_its_version() -> None:
    answer = scheduled(running(), NOW + 5, "not now")
    assert elected(lambda _job, _candidate: structs.replace(answer, version=99), deletion) == (answer,)


def test_a_filter_sees_only_the_states_it_asked_for() -> None:
    job = running()
    chain = FilterChain([Filter(lambda _job, _candidate: pytest.fail("it was asked"), State.FAILED)])
    assert chain.elect(job, deletion(job), DELETE, NOW) == (deletion(job),)
    assert chain.watched == {State.FAILED}


def test_filters_are_asked_in_their_order_each_about_what_the_one_before_elected() -> None:
    job = running(IN_A_MINUTE)
    mine = Filter(lambda job, candidate: enqueued(job, f"not {candidate.state}"), State.SCHEDULED)
    chain = FilterChain([mine, RetryFilter(lambda: 0.5)])
    failure, end = chain.elect(job, failed(job, BOOM, None), run_failed(), NOW)
    assert (failure.version, failure.traversed) == (3, True)
    assert (end.version, end.state, end.reason) == (4, State.ENQUEUED, "not Scheduled")


def test_a_filter_may_concern_some_tasks_only() -> None:
    for tasks, state in (
        (frozenset({"t"}), State.ENQUEUED),
        (frozenset({"u"}), State.DELETED),
        (None, State.ENQUEUED),
    ):
        concerned: Any = Filter(lambda job, _: enqueued(job, None))
        concerned.tasks = tasks
        (event,) = FilterChain([concerned]).elect(running(), deletion(running()), DELETE, NOW)
        assert event.state is state


def test_a_filter_that_raises_leaves_the_candidate_and_its_error_in_the_reason() -> None:
    told: list[str] = []
    chain = FilterChain([Filter(lambda _job, _candidate: 1 / 0)], told.append)
    (event,) = chain.elect(running(), deletion(running()), DELETE, NOW)
    said = "unwanted (filter mine raised ZeroDivisionError: division by zero)"
    assert event == deleted(running(), said)
    assert told == ["mine"]


class UnspeakableError(Exception):
    """An error that cannot even be printed."""

    def __str__(self) -> str:
        raise ValueError("no words")


class HalfACharacterError(Exception):
    """An error whose text no UTF-8 can hold."""

    def __str__(self) -> str:
        return "\ud800 \x00"


@pytest.mark.parametrize("error", [UnspeakableError(), HalfACharacterError()])
def test_an_error_without_proper_text_does_not_stop_a_lane(error: Exception) -> None:
    def raise_it(_job: Job, _candidate: JobEvent) -> None:
        raise error

    (event,) = elected(raise_it, deletion)
    assert event.state is State.DELETED
    assert b"Error" in json.encode(event)
    assert "\x00" not in str(event.reason)


def test_a_long_reason_stays_within_its_bounds_when_a_filter_raises() -> None:
    (event,) = elected(lambda _job, _candidate: 1 / 0, lambda job: deleted(job, "r" * 10_000))
    assert json.decode(json.encode(event), type=JobEvent) == event


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _, __: True, "a filter elects a JobEvent or None, not bool"),
        (lambda _, __: JobEvent(3, State.PROCESSING, 1, "q", "t", worker="x", lease=3), "Processing is not for"),
        (lambda _, __: JobEvent(3, State.SUCCEEDED, 1, "q", "t"), "Succeeded is not for a filter to elect"),
        (lambda _, __: JobEvent(3, State.AWAITING, 1, "q", "t", parent=ID), "Awaiting is not for a filter to elect"),
        (lambda _, __: JobEvent(3, State.SCHEDULED, 1, "q", "t"), "ValueError"),
        (lambda _, __: JobEvent(3, State.SCHEDULED, 1, "q", "t", due="tomorrow"), "ValueError"),
        (lambda _, __: JobEvent(3, State.FAILED, 1, "q", "t"), "a Failed job has an exception"),
        (lambda job, _: deleted(job, "r" * 10_001), "ValidationError"),
        (lambda job, _: deleted(job, "\ud800"), "UnicodeEncodeError"),
        (lambda _, __: JobEvent(3, State.DELETED, -1, "q", "t"), "ValidationError"),
        (lambda _, __: JobEvent(3, State.DELETED, 1, "q", "another"), "a filter does not change a job's task"),
    ],
)
def test_what_no_job_could_take_is_not_elected(answer: Callable[[Job, JobEvent], Any], said: str) -> None:
    (event,) = elected(answer, deletion)
    assert event.state is State.DELETED
    assert str(event.reason).startswith("unwanted (filter mine raised ")
    assert said in str(event.reason)


def test_a_job_about_to_start_may_be_put_off_but_not_enqueued_again() -> None:
    (event,) = elected(lambda job, _: enqueued(job, "not this worker"), start)
    assert event.state is State.PROCESSING
    (event,) = elected(lambda job, _: scheduled(job, NOW + 1000, "too many"), start)
    assert event.state is State.SCHEDULED
    job = running()
    back = [Filter(lambda job, _: deleted(job, None), State.PROCESSING), Filter(lambda job, _: enqueued(job, None))]
    (event,) = FilterChain(back).elect(job, start(job), Assigned("w2"), NOW)
    assert event.state is State.DELETED


def test_a_filter_may_annotate_a_start_but_not_move_it_to_another_worker() -> None:
    (event,) = elected(lambda _, candidate: structs.replace(candidate, reason="lucky"), start)
    assert event == structs.replace(start(running()), reason="lucky")
    (event,) = elected(lambda _, candidate: structs.replace(candidate, worker="w9"), start)
    assert event.worker == "w2"


# --- those that are installed ---


class Installed(Filter):
    """A filter as a package offers it."""

    def __init__(self) -> None:
        super().__init__(lambda _job, _candidate: None, State.FAILED)


class Incomplete:
    name, order = "incomplete", 1


def offer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    offered = EntryPoint("offered", f"{__name__}:{name}", filters.ENTRY_POINTS)
    monkeypatch.setattr(EntryPoint, "load", lambda _: globals()[name])
    monkeypatch.setattr(filters, "entry_points", lambda group: [offered] if group == filters.ENTRY_POINTS else [])


def test_installed_filters_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "Installed")
    (made,) = installed_filters()
    assert made.name == "mine"


@pytest.mark.parametrize(
    ("name", "said"),
    [("Filter", "TypeError: "), ("Incomplete", "AttributeError: "), ("absent", "KeyError: ")],
)
def test_an_installed_filter_that_cannot_be_made_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    offer(monkeypatch, name)
    with pytest.raises(SettingsError, match=rf"filter offered \(.*{name}, .*cannot be used: {said}"):
        installed_filters()
