"""Joblog in memory: whatever a test lets happen, the log holds when every event of it is decided anew."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st
from joblog.services import IncomingEvent, Job, JobOptions, Limit, RetryPolicy, task, trigger
from joblog.services.testing import InMemoryJoblog
from joblog.streams.contract.states import FINAL_STATES
from joblog.streams.lane.filters import FilterChain, RetryFilter
from joblog.streams.replay.redecision import differences
from joblog.streams.replay.stored import StoredEvent, stored_event

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@task("work", timeout=60, retry=RetryPolicy.fixed(5, attempts=2))
def work(fails: bool = False) -> None:
    if fails:
        raise ValueError("as it was told")


@trigger(topic="t")
def made(event: IncomingEvent) -> Job:
    return Job(work, event.data, options=JobOptions(queue="triggered"))


#: What a test can do.
STEPS: Final[dict[str, Callable[[InMemoryJoblog], object]]] = {
    "enqueue": lambda joblog: joblog.enqueue(work),
    "fail": lambda joblog: joblog.enqueue(work, fails=True),
    "limited": lambda joblog: joblog.enqueue(work, options=JobOptions(limits=[Limit.sliding_window("w", 1, per=30)])),
    "schedule": lambda joblog: joblog.schedule(work, delay=20),
    "recur": lambda joblog: joblog.recurring.add_or_update("r", work, timedelta(minutes=1), overlap="queue"),
    "replace": lambda joblog: joblog.recurring.add_or_update("r", work, timedelta(seconds=30), overlap="replace"),
    "publish": lambda joblog: joblog.publish("t", data=False, type="x", id="1"),
    "lose": lambda joblog: joblog.lose_worker(runs=2),
    "slow": lambda joblog: joblog.takes(work, 61),
    "quick": lambda joblog: joblog.takes(work, 0),
    "advance": lambda joblog: joblog.advance(45),
    "run": lambda joblog: joblog.run_next(),
    "run_for": lambda joblog: joblog.run_for(minutes=1),
    "delete": lambda joblog: [joblog.delete(job.id) for job in joblog.jobs()[-1:]],
    "requeue": lambda joblog: [joblog.requeue(job.id) for job in joblog.jobs()[:1]],
}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=12))
def test_the_log_of_a_test_holds_when_it_is_decided_anew(steps: list[str]) -> None:
    log: list[StoredEvent] = []

    def note(_key: str, value: bytes) -> None:
        if (event := stored_event(value)) is not None:
            log.append(event)

    with InMemoryJoblog(work, made, now=NOW) as joblog:
        joblog._log.listeners.append(note)
        for step in steps:
            STEPS[step](joblog)
        joblog.recurring.remove("r")
        joblog.takes(work, 0)
        joblog.drain()
        assert differences(log, FilterChain([RetryFilter()])) == []
        for job in joblog.jobs():
            assert job.state in FINAL_STATES, steps
            assert [one.version for one in job.history] == list(range(job.version, 0, -1))
