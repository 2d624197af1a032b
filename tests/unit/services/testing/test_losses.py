"""Joblog in memory: runs that take time, and workers that are lost."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.services import CancellationToken, JobOptions, RetryPolicy, State, current_job, task
from joblog.services.testing import InMemoryJoblog
from joblog.streams.errors import JoblogError
from joblog.streams.lane.rules import LaneRules

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
LEASE = timedelta(milliseconds=LaneRules().lease_ms)


class Service:
    """What the tasks call; a test says what happens then."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.happens: Any = lambda: None

    def charge(self) -> None:
        self.calls.append(current_job().attempt)
        self.happens()


SERVICE = Service()


@task("pay", timeout=60, retry=RetryPolicy.fixed(300, attempts=2))
def pay() -> str:
    SERVICE.charge()
    return "paid"


@task("watch")
def watch(token: CancellationToken) -> str | None:
    SERVICE.charge()
    return token.reason


@task("wait", timeout=60, retry=RetryPolicy.none())
async def wait() -> None:
    SERVICE.charge()
    await asyncio.sleep(0)
    SERVICE.charge()


@pytest.fixture
def joblog() -> Iterator[InMemoryJoblog]:
    SERVICE.calls, SERVICE.happens = [], lambda: None
    with InMemoryJoblog(now=NOW) as made:
        yield made


def story(joblog: InMemoryJoblog, job: str) -> list[str]:
    return [f"{one.state} {one.reason or ''}".strip() for one in reversed(joblog.job(job).history)]


def test_a_run_that_takes_longer_than_its_time_out_fails_though_its_work_is_done(joblog: InMemoryJoblog) -> None:
    joblog.takes(pay, timedelta(seconds=90))
    job = joblog.enqueue(pay)
    ran = joblog.run_next()
    assert ran is not None
    assert story(joblog, job) == [
        "Enqueued",
        "Processing",
        "Failed joblog.streams.errors.JobTimeout: the job ran longer than 60 s",
        "Scheduled Retry attempt 1 of 2: the job ran longer than 60 s",
    ]
    failed = ran.history[1]
    assert failed.at - ran.history[2].at == timedelta(seconds=60), "it fails at its time-out, not when it has ended"
    assert failed.data["duration_ms"] == 60_000
    joblog.takes(pay, 59)
    [again] = joblog.drain()
    assert (again.state, again.result, again.duration_ms) == (State.SUCCEEDED, "paid", 59_000)
    assert SERVICE.calls == [1, 2]


def test_the_jobs_own_time_out_goes_first_and_one_that_is_met_to_the_second_is_over(joblog: InMemoryJoblog) -> None:
    joblog.takes(pay, 60)
    mine = joblog.enqueue(pay, options=JobOptions(timeout=60.001))
    theirs = joblog.enqueue(pay)
    joblog.run_all()
    joblog.assert_state(mine, State.SUCCEEDED)
    joblog.assert_state(theirs, State.SCHEDULED)


def test_time_that_passes_in_a_task_times_its_run_out_and_its_token_says_so(joblog: InMemoryJoblog) -> None:
    SERVICE.happens = lambda: joblog.advance(minutes=2)
    seen: list[str | None] = []

    @task("listen", timeout=60, retry=RetryPolicy.none())
    def listen(token: CancellationToken) -> None:
        SERVICE.charge()
        seen.append(token.reason)
        seen.append(joblog.job(current_job().job_id).state)

    job = joblog.enqueue(listen)
    joblog.run_all()
    assert seen == ["timeout", State.FAILED]
    exception = joblog.assert_state(job, State.FAILED).exception
    assert exception is not None
    assert "in charge" in exception.details, "the stack says where the time was spent"


def test_a_coroutine_that_times_out_is_cancelled_where_it_waits(joblog: InMemoryJoblog) -> None:
    SERVICE.happens = lambda: joblog.advance(minutes=2)
    job = joblog.enqueue(wait)
    joblog.run_all()
    joblog.assert_state(job, State.FAILED)
    assert SERVICE.calls == [1]


def test_a_worker_that_is_lost_in_the_middle_has_its_job_run_again_by_another(joblog: InMemoryJoblog) -> None:
    def crash_once() -> None:
        if SERVICE.calls == [1]:
            joblog.lose_worker()

    SERVICE.happens = crash_once
    job = joblog.enqueue(pay)
    taken_back, ended = joblog.run_all()
    assert (taken_back.state, taken_back.attempt, taken_back.retry) == (State.ENQUEUED, 1, 0)
    assert (ended.state, ended.attempt, ended.retry) == (State.SUCCEEDED, 2, 0)
    assert story(joblog, job) == [
        "Enqueued",
        "Processing",
        "Enqueued Worker in-memory was lost",
        "Processing",
        "Succeeded",
    ]
    workers = [one.data["worker"] for one in ended.history if one.type == "job.processing"]
    assert workers == ["in-memory-2", "in-memory"]
    assert LEASE < joblog.now - NOW < LEASE + timedelta(seconds=1)


def test_a_worker_is_lost_when_all_is_done_but_the_report(joblog: InMemoryJoblog) -> None:
    joblog.lose_worker()
    job = joblog.enqueue(pay)
    joblog.run_all()
    assert SERVICE.calls == [1, 2], "what must not be done twice was"
    joblog.assert_state(job, State.SUCCEEDED)


def test_a_lost_worker_does_not_report_the_time_out_of_its_run_either(joblog: InMemoryJoblog) -> None:
    joblog.lose_worker()
    job = joblog.enqueue(pay, options=JobOptions(timeout=5))
    joblog.run_all()
    assert story(joblog, job)[2] == "Enqueued Worker in-memory was lost"


def test_a_job_that_loses_its_workers_fails_as_its_policy_says(joblog: InMemoryJoblog) -> None:
    joblog.lose_worker(runs=100)
    patient = joblog.enqueue(pay)
    counting = joblog.enqueue(pay, options=JobOptions(retry=RetryPolicy(attempts=0, count_lost=True)))
    joblog.run_all()
    assert joblog.assert_state(counting, State.FAILED).attempt == 1
    failed = joblog.assert_state(patient, State.SCHEDULED)
    assert (failed.attempt, failed.retry) == (RetryPolicy().lost_max + 1, 1)
    assert failed.exception is not None
    assert failed.exception.type == "joblog.WorkerLost"


def test_a_lost_lease_lets_the_run_go_on_and_count_for_nothing(joblog: InMemoryJoblog) -> None:
    def cut_off() -> None:
        if len(SERVICE.calls) == 1:
            joblog.lose_lease()

    SERVICE.happens = cut_off
    job = joblog.enqueue(watch)
    first, second = joblog.run_all()
    assert first.state is State.ENQUEUED
    assert (second.state, second.result, second.attempt) == (State.SUCCEEDED, None, 2)
    with pytest.raises(JoblogError, match="call it in a task"):
        joblog.lose_lease()
    assert "in-memory was lost" in " ".join(story(joblog, job))


def test_a_token_says_that_the_lease_is_lost(joblog: InMemoryJoblog) -> None:
    reasons: list[str | None] = []

    @task("cut_off")
    def cut_off(token: CancellationToken) -> None:
        if not reasons:
            joblog.lose_lease()
        reasons.append(token.reason)

    joblog.enqueue(cut_off)
    joblog.run_all()
    assert reasons == ["lease lost", None]


def test_what_waits_goes_on_while_a_lease_is_over(joblog: InMemoryJoblog) -> None:
    soon = joblog.schedule(pay, delay=5)
    joblog.lose_worker()
    lost = joblog.enqueue(pay)
    assert [one.id for one in joblog.run_all()] == [lost, soon, lost]


def test_a_worker_is_lost_in_a_coroutine_too_and_when_its_job_was_deleted(joblog: InMemoryJoblog) -> None:
    def deleted_and_lost() -> None:
        joblog.delete(current_job().job_id)
        joblog.lose_worker()

    SERVICE.happens = deleted_and_lost
    job = joblog.enqueue(wait)
    [ran] = joblog.run_all()
    assert (ran.id, ran.state) == (job, State.DELETED)
    assert SERVICE.calls == [1]


def test_a_call_that_would_have_no_effect_is_refused(joblog: InMemoryJoblog) -> None:
    SERVICE.happens = lambda: joblog.lose_worker(runs=2)
    job = joblog.enqueue(pay)
    joblog.run_next()
    assert "runs= has no effect in a task" in str(joblog.job(job).reason)
    with pytest.raises(JoblogError, match="does not go back"):
        joblog.takes(pay, -1)
