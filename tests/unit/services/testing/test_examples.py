"""Joblog in memory as its users write tests: one example for each thing that jobs can do, and what failures say."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from joblog.services import (
    ContinueOn,
    JobContext,
    JobOptions,
    Limit,
    LimitKind,
    RetryPolicy,
    State,
    Unique,
    UniquePolicy,
    task,
)
from joblog.services.testing import InMemoryJoblog

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@task("images.shrink", queue="images", retry=RetryPolicy.none())
def shrink(path: str) -> int:
    if path == "broken.png":
        raise ValueError("no picture")
    return len(path)


@task("images.report")
def report(context: JobContext) -> int:
    return sum(end.result or 0 for end in context.parents.values())


@task("orders.pay", limits=[Limit.mutex("orders:{order}"), Limit.sliding_window("bank", 2, per=1)])
def pay(order: int) -> int:
    return order


@task("orders.bill", unique=Unique(key="bill-{order}", policy=UniquePolicy.EXISTING))
def bill(order: int) -> int:
    return order


@pytest.fixture
def joblog() -> Iterator[InMemoryJoblog]:
    with InMemoryJoblog(shrink, report, pay, bill, now=NOW) as made:
        yield made


def test_a_batch_goes_on_when_all_of_it_has_ended(joblog: InMemoryJoblog) -> None:
    with joblog.batch("import") as batch:
        batch.enqueue_many(shrink, [(("a.png",), {}), (("broken.png",), {})])
    done = joblog.continue_batch(batch.id, report)
    always = joblog.continue_batch(batch.id, report, on=ContinueOn.ENDED)
    joblog.run_all()
    joblog.assert_state(done, State.AWAITING)
    joblog.assert_state(always, State.SUCCEEDED)
    with joblog.attach(batch.id) as more:
        late = more.enqueue(shrink, "late.png")
    joblog.delete(batch.job_ids[1])
    joblog.run_all()
    joblog.assert_state(late, State.SUCCEEDED)


def test_an_exception_in_the_block_of_a_batch_creates_nothing(joblog: InMemoryJoblog) -> None:
    def half() -> None:
        with joblog.batch() as batch:
            batch.enqueue(shrink, "a.png")
            raise KeyError("b.png")

    with pytest.raises(KeyError):
        half()
    joblog.assert_nothing_enqueued()


def test_results_of_parents_arrive(joblog: InMemoryJoblog) -> None:
    parts = [joblog.enqueue(shrink, path) for path in ("a.png", "bb.png")]
    total = joblog.continue_with(parts, report)
    joblog.run_all()
    assert joblog.job(total).result == 11


def test_limits_hold_jobs_back_and_the_message_says_which(joblog: InMemoryJoblog) -> None:
    jobs = joblog.enqueue_many(pay, [((n,), {}) for n in range(3)])
    joblog.run_all()
    [held] = joblog.jobs(state=State.ENQUEUED)
    with pytest.raises(
        AssertionError, match=r"(?s)is Enqueued, not Succeeded: waits for .*bank.*\nhistory:.*held: .*bank"
    ):
        joblog.assert_state(held.id, State.SUCCEEDED)
    joblog.run_for(seconds=2)
    assert [joblog.job(one).result for one in jobs] == [0, 1, 2]
    joblog.limits.set(LimitKind.SLIDING_WINDOW, "bank", 1, per=60, reason="slow today")
    joblog.enqueue_many(pay, [((n,), {}) for n in range(2)])
    assert len(joblog.run_for(seconds=30)) == 1
    assert len(joblog.run_for(seconds=60)) == 1


def test_a_mutex_lets_one_run_at_a_time(joblog: InMemoryJoblog) -> None:
    @task("nested", limits=[Limit.mutex("one")])
    def nested() -> str:
        other = joblog.enqueue("nested", options=JobOptions(limits=[Limit.mutex("one")]))
        joblog.advance(60)
        return joblog.job(other).state

    joblog.enqueue(nested)
    ran = joblog.run_next()
    assert ran is not None
    assert ran.result == State.ENQUEUED


def test_of_a_unique_key_one_job_lives_and_the_message_names_the_other(joblog: InMemoryJoblog) -> None:
    first = joblog.enqueue(bill, 17)
    second = joblog.enqueue(bill, 17)
    assert [(one.job_id, one.existing) for one in joblog.rejected] == [(second, first)]
    with pytest.raises(AssertionError, match=rf"there is no job {second}\n(.*\n)*rejected commands:\n  .*{second}: "):
        joblog.assert_state(second, State.SUCCEEDED)
    joblog.run_all()
    again = joblog.enqueue(bill, 17)
    joblog.assert_state(again, State.ENQUEUED)


def test_a_debounced_job_runs_once_after_the_last_call(joblog: InMemoryJoblog) -> None:
    soon = JobOptions(unique=Unique.debounced("index", timedelta(seconds=5)))
    for _ in range(3):
        joblog.enqueue(shrink, "index", options=soon)
        joblog.advance(seconds=3)
    assert joblog.run_all() == []
    assert len(joblog.run_for(seconds=5)) == 1


def test_a_failed_assertion_tells_the_jobs_history(joblog: InMemoryJoblog) -> None:
    job = joblog.schedule(shrink, "broken.png", delay=90)
    joblog.drain()
    with pytest.raises(AssertionError) as raised:
        joblog.assert_state(job, State.SUCCEEDED)
    said = str(raised.value)
    assert said.startswith(f"job {job} of images.shrink is Failed, not Succeeded: ValueError: no picture\nTraceback")
    history = said.partition("history:\n")[2].splitlines()
    assert [line.split(maxsplit=3)[2:] for line in history] == [
        ["1", "Scheduled"],
        ["2", "Enqueued: Triggered by its schedule"],
        ["3", "Processing: attempt 1 on in-memory"],
        ["4", "Failed: ValueError: no picture"],
    ]
    assert history[0].startswith("  2026-11-29 12:00:00.0")
    assert history[1].startswith("  2026-11-29 12:01:30.")


def test_a_failed_assertion_says_why_each_job_is_as_it_is(joblog: InMemoryJoblog) -> None:
    joblog.enqueue(shrink, "broken.png")
    joblog.run_all()
    with pytest.raises(
        AssertionError, match=r"\n  Failed images\.shrink \('broken\.png'\) .*: ValueError: no picture"
    ):
        joblog.assert_enqueued(shrink)
