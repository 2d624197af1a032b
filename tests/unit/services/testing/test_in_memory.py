"""Joblog in memory: what a user's test can do with it."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from joblog.projections.monitor.models import Matched
from joblog.services import (
    Call,
    CancellationToken,
    ContinueOn,
    JobContext,
    JobOptions,
    RetryPolicy,
    State,
    Unique,
    current_job,
    task,
)
from joblog.services.tasks.context import CURRENT
from joblog.services.tasks.limits import Limit
from joblog.services.testing import InMemoryJoblog, RunRaised, TooManyRuns
from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job, lane_of_queue
from joblog.streams.contract.relations import LimitKind
from joblog.streams.errors import InvalidData, JoblogError, UnknownTask
from joblog.streams.lane.job import Job, deleted

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@dataclass
class Size:
    width: int
    until: date


@task("shrink", queue="images")
def shrink(path: str, *, size: Size) -> dict[str, int]:
    assert isinstance(size.until, date)
    return {"width": size.width}


@task("flaky", retry=RetryPolicy.fixed(60, attempts=2))
def flaky(context: JobContext) -> int:
    if context.attempt < 3:
        raise ValueError(f"attempt {context.attempt}")
    return context.attempt


@task("broken", retry=RetryPolicy.none())
def broken() -> None:
    raise RuntimeError("no good")


@task("echo")
def echo(value: Any = None) -> Any:
    return value


@task("patient", queue="slow")
async def patient(value: int) -> int:
    await asyncio.sleep(0)
    return value + 1


@task("killable", isolation="process")
def killable() -> str:
    return current_job().job_id


@pytest.fixture
def joblog() -> Iterator[InMemoryJoblog]:
    with InMemoryJoblog(now=NOW) as made:
        yield made


def types(joblog: InMemoryJoblog, job: str) -> list[str]:
    return [one.type.removeprefix("job.") for one in reversed(joblog.job(job).history)]


def test_a_job_waits_until_it_is_run_and_shows_what_monitoring_would(joblog: InMemoryJoblog) -> None:
    job = joblog.enqueue(shrink, "a.png", size=Size(640, date(2026, 1, 2)), options=JobOptions(parameters={"a": 1}))
    waiting = joblog.job(job)
    assert (waiting.state, waiting.queue, waiting.args) == (State.ENQUEUED, "images", ("a.png",))
    [ran] = joblog.run_all()
    assert (ran.id, ran.state, ran.result, ran.attempt) == (job, State.SUCCEEDED, {"width": 640}, 1)
    assert ran.parameters == {"a": 1}
    assert types(joblog, job) == ["enqueued", "processing", "succeeded"]
    assert joblog.run_next() is None


def test_a_retry_is_scheduled_and_fires_when_its_time_has_come(joblog: InMemoryJoblog) -> None:
    job = joblog.enqueue(flaky)
    assert [one.state for one in joblog.run_all()] == [State.SCHEDULED]
    first = joblog.job(job)
    assert first.due is not None
    assert first.due - joblog.now == timedelta(seconds=60)
    assert first.exception is not None
    joblog.advance(59)
    assert joblog.run_all() == []
    joblog.advance(timedelta(seconds=1))
    assert joblog.job(job).state is State.ENQUEUED
    [last] = joblog.drain()[-1:]
    assert (last.state, last.result, last.retry) == (State.SUCCEEDED, 3, 2)


def test_a_failure_has_its_exception_and_may_be_raised(joblog: InMemoryJoblog) -> None:
    job = joblog.enqueue(broken)
    with pytest.raises(RunRaised, match=r"broken .* raised RuntimeError: no good") as raised:
        joblog.run_all(raises=True)
    assert "test_in_memory.py" in str(raised.value)
    exception = joblog.assert_state(job, State.FAILED).exception
    assert exception is not None
    assert (exception.type, exception.message) == ("RuntimeError", "no good")
    with pytest.raises(AssertionError, match=r"is Failed, not Succeeded: RuntimeError: no good\nTraceback"):
        joblog.assert_state(job, State.SUCCEEDED)


def test_schedules_fire_in_the_order_of_their_times_by_the_clock_of_the_test(joblog: InMemoryJoblog) -> None:
    late = joblog.schedule(echo, "late", delay=timedelta(days=2))
    soon = joblog.schedule(echo, "soon", at=NOW + timedelta(minutes=5))
    joblog.advance(timedelta(days=1))
    [ran] = joblog.run_all()
    assert ran.id == soon
    assert abs(ran.history[-2].at - (NOW + timedelta(minutes=5))) < timedelta(seconds=1)
    again = joblog.schedule(echo, "again", delay=60)  # counted from the test's present, not from the machine's
    due = joblog.job(again).due
    assert due is not None
    assert abs(due - (joblog.now + timedelta(seconds=60))) < timedelta(seconds=1)
    assert [one.id for one in joblog.drain()] == [again, late]
    assert joblog.now >= NOW + timedelta(days=2)


def test_continuations_wait_for_their_parents_across_lanes(joblog: InMemoryJoblog) -> None:
    queues = {lane_of_queue(f"q{n}", 4): f"q{n}" for n in range(40)}
    assert len(queues) == 4
    parent = joblog.enqueue(echo, 1, options=JobOptions(queue=queues[0]))
    child = joblog.continue_with(parent, echo, 2, options=JobOptions(queue=queues[1]))
    grandchild = joblog.continue_with(child, echo, 3, options=JobOptions(queue=queues[2]))
    never = joblog.continue_with(parent, echo, on=ContinueOn.DELETED, options=JobOptions(queue=queues[3]))
    assert {lane_of_job(one) for one in (parent, child, grandchild, never)} == {0, 1, 2, 3}
    assert [joblog.job(one).state for one in (child, grandchild, never)] == [State.AWAITING] * 3
    assert [one.id for one in joblog.run_all()] == [parent, child, grandchild]
    assert joblog.job(never).state is State.DELETED
    assert joblog.job(child).parent_state is State.SUCCEEDED
    assert [one.id for one in joblog.job(parent).continuations] == [never, child]
    after = joblog.continue_with(parent, echo, "at once")
    assert joblog.job(after).state is State.ENQUEUED


def test_jobs_run_by_priority_then_in_the_order_of_their_creation_over_all_lanes(joblog: InMemoryJoblog) -> None:
    made = [joblog.enqueue(echo, n, options=JobOptions(queue=f"q{n % 7}", priority=n % 3)) for n in range(30)]
    many = joblog.enqueue_many(echo, [((n,), {}) for n in range(5)])
    order = [one.id for one in joblog.run_all()]
    assert order == sorted([*made, *many], key=lambda job: (-joblog.job(job).priority, [*made, *many].index(job)))


def test_jobs_may_create_jobs_and_change_themselves(joblog: InMemoryJoblog) -> None:
    seen: list[Any] = []

    @task("parent")
    def parent(context: JobContext, token: CancellationToken) -> None:
        seen.append(joblog.job(context.job_id).state)
        joblog.enqueue(echo, "child")
        joblog.set_parameter(context.job_id, "step", 1)
        joblog.delete(context.job_id, reason="enough")
        seen.append(token.reason)

    job = joblog.enqueue(parent)
    ran = joblog.run_all()
    assert seen == [State.PROCESSING, "cancelled: The job is Deleted"]
    assert [one.task for one in ran] == ["parent", "echo"]
    assert (joblog.job(job).state, joblog.job(job).parameters) == (State.DELETED, {"step": 1})
    assert CURRENT.get(None) is None


def test_commands_change_jobs_and_those_that_cannot_are_rejected(joblog: InMemoryJoblog) -> None:
    job = joblog.enqueue(echo)
    joblog.reschedule(job, delay=30)
    joblog.set_parameter(job, "colour", "red")
    assert (joblog.job(job).state, joblog.job(job).parameters) == (State.SCHEDULED, {"colour": "red"})
    joblog.requeue(job)
    joblog.run_all()
    joblog.requeue(job)
    assert [(one.code, one.job_id) for one in joblog.rejected] == [("ended", job)]
    joblog.requeue(job, snapshot=joblog.snapshot(job), reason="once more")
    [again] = joblog.run_all()
    assert (again.state, again.attempt, again.version) == (State.SUCCEEDED, 2, 9)
    assert joblog.job(job).rejected == tuple(joblog.rejected)


def test_a_key_makes_one_job(joblog: InMemoryJoblog) -> None:
    options = JobOptions(idempotency_key="order-1")
    first, second = (joblog.enqueue(echo, options=options) for _ in range(2))
    assert first == second
    assert [one.code for one in joblog.rejected] == ["duplicate"]
    many = joblog.enqueue_many(echo, [Call((1,), {}, idempotency_key="a"), Call((2,), {}, idempotency_key="a")])
    assert len(set(many)) == 1
    assert len(joblog.jobs(task=echo)) == 2


def test_async_tasks_and_those_with_a_process_run_here(joblog: InMemoryJoblog) -> None:
    there = joblog.enqueue(patient, 1)
    here = joblog.enqueue(killable)
    joblog.run_all()
    assert joblog.job(there).result == 2
    assert joblog.job(here).result == here


async def _in_a_loop(joblog: InMemoryJoblog) -> None:
    with pytest.raises(JoblogError, match=r"await asyncio\.to_thread\(joblog\.run_all\)"):
        joblog.run_all()


@pytest.mark.parametrize("how", ["leave", "stop"])
def test_an_async_task_that_ends_its_loop_fails_or_succeeds_as_in_a_worker(joblog: InMemoryJoblog, how: str) -> None:
    @task("rough", retry=RetryPolicy.none())
    async def rough() -> str:
        async def leave() -> None:
            sys.exit(3)

        if how == "leave":
            await asyncio.gather(leave())
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return "done"

    job_id = joblog.enqueue(rough)
    joblog.run_all()
    job = joblog.job(job_id)
    if how == "leave":
        assert job.exception is not None
        assert (job.state, job.exception.type) == (State.FAILED, "SystemExit")
    else:
        assert (job.state, job.result) == (State.SUCCEEDED, "done")


def test_an_async_task_cannot_run_within_a_loop_and_the_error_says_what_to_write(joblog: InMemoryJoblog) -> None:
    job = joblog.enqueue(patient, 1)
    asyncio.run(_in_a_loop(joblog))
    assert joblog.job(job).state is State.ENQUEUED
    joblog.run_all()
    assert joblog.job(job).result == 2


def test_arguments_that_do_not_fit_fail_as_they_would_in_a_worker(joblog: InMemoryJoblog) -> None:
    job = joblog.enqueue("shrink", size="large", options=JobOptions(queue="images"))
    joblog.register(shrink)
    joblog.run_all()
    exception = joblog.job(job).exception
    assert exception is not None
    assert "arguments do not fit task shrink" in exception.message
    with pytest.raises(InvalidData, match="args"):
        joblog.enqueue(echo, object())


def test_a_job_of_a_task_that_nobody_gave_is_not_passed_over_in_silence(joblog: InMemoryJoblog) -> None:
    joblog.enqueue("nobody.knows")
    joblog.enqueue(echo)
    assert joblog.run_next() is not None
    with pytest.raises(UnknownTask, match=r"nobody\.knows.*register"):
        joblog.run_all()


def test_jobs_that_never_end_are_not_run_for_ever(joblog: InMemoryJoblog) -> None:
    @task("again")
    def again() -> None:
        joblog.enqueue(again)

    joblog.enqueue(again)
    with pytest.raises(TooManyRuns, match="20 jobs were run"):
        joblog.run_all(limit=20)


def test_a_task_does_not_run_others(joblog: InMemoryJoblog) -> None:
    @task("eager", retry=RetryPolicy.none())
    def eager() -> None:
        joblog.run_all()

    job = joblog.enqueue(eager)
    joblog.run_all()
    assert "a task cannot run others" in str(joblog.job(job).reason)


def test_queues_can_be_run_by_themselves(joblog: InMemoryJoblog) -> None:
    other = joblog.enqueue(echo, options=JobOptions(queue="b"))
    mine = joblog.enqueue(echo, options=JobOptions(queue="a"))
    assert [one.id for one in joblog.run_all(queue="a")] == [mine]
    assert joblog.job(other).state is State.ENQUEUED


def test_elect_filters_have_their_say() -> None:
    class NoMondays:
        name, order, states = "mondays", 50, frozenset({State.ENQUEUED})

        def elect(self, job: Job, _candidate: wire.JobEvent, *_: Any) -> wire.JobEvent | None:
            return deleted(job, "not today") if job.task == "echo" else None

    with InMemoryJoblog(elect_filters=[NoMondays()]) as joblog:
        job = joblog.enqueue(echo)
        assert (joblog.job(job).state, joblog.job(job).reason) == (State.DELETED, "not today")


def test_assertions_say_what_there_is(joblog: InMemoryJoblog) -> None:
    joblog.assert_nothing_enqueued()
    joblog.assert_not_enqueued(shrink)
    size = Size(640, date(2026, 1, 2))
    job = joblog.enqueue(shrink, "a.png", size=size, options=JobOptions(priority=5))
    found = joblog.assert_enqueued(shrink, args=("a.png",), kwargs={"size": size}, priority=5, count=1)
    assert found.id == job
    due = joblog.now + timedelta(hours=1)
    joblog.schedule(echo, 1, at=due)
    joblog.assert_enqueued("echo", at=due, state=State.SCHEDULED)
    with pytest.raises(
        AssertionError, match=r"expected a job of shrink with args=\('b.png',\); there are 0\n.*\n.*a.png"
    ):
        joblog.assert_enqueued(shrink, args=["b.png"])
    with pytest.raises(AssertionError, match="expected 2 jobs of shrink"):
        joblog.assert_enqueued(shrink, count=2)
    with pytest.raises(AssertionError, match="expected no job of shrink"):
        joblog.assert_not_enqueued(shrink, args=["a.png"])
    with pytest.raises(AssertionError, match="expected no job that waits"):
        joblog.assert_nothing_enqueued()
    joblog.assert_not_enqueued(shrink, args=["b.png"])
    with pytest.raises(AssertionError, match="expected a job of echo with at="):
        joblog.assert_enqueued(echo, at=due + timedelta(minutes=1))


def test_time_passes_for_workers_and_leaves_running_jobs_alone(joblog: InMemoryJoblog) -> None:
    @task("long")
    def long() -> str:
        joblog.advance(timedelta(days=40))
        return "done"

    job = joblog.enqueue(long)
    joblog.run_all()
    assert types(joblog, job) == ["enqueued", "processing", "succeeded"]
    with pytest.raises(JoblogError, match="does not go back"):
        joblog.advance(-1)


def test_queues_are_paused_and_bulk_operations_are_refused(joblog: InMemoryJoblog) -> None:
    ids = joblog.enqueue_many(echo, [((n,), {}) for n in range(3)])
    queue = joblog.job(ids[0]).queue
    joblog.queues.pause(queue, until=joblog.now + timedelta(seconds=30))
    joblog.set_priority(ids[2], 9)
    assert joblog.run_all() == []
    joblog.advance(31)
    assert [one.id for one in joblog.run_all()] == [ids[2], ids[0], ids[1]]
    assert joblog.snapshot(ids[2])["priority"] == 9
    with pytest.raises(JoblogError, match="not simulated"):
        joblog.bulk.start("delete", Matched(jobs=1, fence=(1,), filter={}))


def test_hundreds_of_jobs_take_no_time(joblog: InMemoryJoblog) -> None:
    began = time.process_time()
    joblog.enqueue_many(echo, [((n,), {}) for n in range(300)])
    assert len(joblog.run_all()) == 300
    assert time.process_time() - began < 3


def test_a_job_says_what_it_waits_for(joblog: InMemoryJoblog) -> None:
    joblog.limits.set_queue("images", LimitKind.FIXED_WINDOW, 1, per=60)
    first, second = (joblog.enqueue(shrink, name, size=Size(1, date(2026, 1, 1))) for name in "ab")
    joblog.run_all()
    assert [joblog.job(one).waits_for for one in (first, second)] == [
        None,
        "the limit of queue images (1 started of 1 in 60 s)",
    ]
    joblog.advance(timedelta(seconds=60))
    joblog.run_all()
    joblog.assert_state(second, State.SUCCEEDED)


def test_progress_limits_unique_keys_deadlines_and_batches_are_those_of_the_lanes(joblog: InMemoryJoblog) -> None:
    starts: list[datetime] = []

    @task("limited", limits=[Limit.fixed_window("bank", 2, per=60)], queue="slow")
    def limited(context: JobContext, n: int) -> None:
        starts.append(joblog.now)
        context.progress(0.5, f"half of {n}")
        context.log("a line")

    joblog.register(limited, echo)
    jobs = joblog.enqueue_many(limited, [((n,), {}) for n in range(5)])
    assert len(joblog.run_all()) == 2
    joblog.drain()
    assert [joblog.job(one).state for one in jobs] == [State.SUCCEEDED] * 5
    assert max(Counter(start.replace(second=0, microsecond=0) for start in starts).values()) == 2
    last = joblog.job(jobs[-1])
    assert last.progress is not None
    assert (last.progress.share, last.progress.text, [one.text for one in last.lines]) == (
        0.5,
        "half of 4",
        ["a line"],
    )

    one = joblog.enqueue(echo, options=JobOptions(unique=Unique(key="order-1")))
    joblog.enqueue(echo, options=JobOptions(unique=Unique(key="order-1")))
    assert joblog.rejected[-1].existing == one
    late = joblog.enqueue(echo, options=JobOptions(expires_in=30, priority=-5, queue="nobody"))
    joblog.advance(31)
    assert (joblog.job(late).state, joblog.job(late).attempt) == (State.DELETED, 0)

    with joblog.batch("three") as batch:
        for n in range(3):
            batch.enqueue(echo, n, options=JobOptions(queue=f"q{n}"))
    after = joblog.continue_batch(batch.id, echo, "after")
    assert joblog.job(after).state is State.AWAITING
    assert [ran.id for ran in joblog.run_all() if ran.id != one] == [*batch.job_ids, after]
