"""What can be done with a job while it runs: cancel it, give it a deadline, and follow what it says."""

import json
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.projections.monitor.monitor import Monitor
from joblog.services.client.options import JobOptions
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import State
from joblog.streams.lane.times import DEADLINE_PASSED

from tests.support.redecided import decided_anew

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(180)]

#: Each writes the time of day into a file when it runs, and into another one when it learns that it should stop.
TASKS = """
import asyncio, os, time
from joblog.services import CancellationToken, JobContext
from joblog.services.tasks.task import task

def mark(path):
    with open(path + ".new", "w") as file:
        file.write(str(time.time()))
    os.rename(path + ".new", path)

def listening(path, token):
    mark(path + ".runs")
    token.wait(60)
    mark(path + ".stops")
    token.raise_if_cancelled()

@task("in_thread")
def in_thread(path: str, token: CancellationToken) -> None:
    listening(path, token)

@task("in_process", isolation="process")
def in_process(path: str, token: CancellationToken) -> None:
    listening(path, token)

@task("deaf", isolation="process")
def deaf(path: str) -> None:
    mark(path + ".runs")
    time.sleep(60)
    mark(path + ".stops")

@task("in_loop")
async def in_loop(path: str) -> None:
    mark(path + ".runs")
    try:
        await asyncio.sleep(60)
    finally:
        mark(path + ".stops")

def talking(path, job):
    job.progress(0.25, "a quarter")
    job.log("first")
    mark(path + ".runs")
    while not os.path.exists(path + ".go"):
        time.sleep(0.01)
    job.log("second\\nthird")
    job.progress(1)
    for number in range(200):
        job.log(f"line {number}")

@task("talk")
def talk(path: str, job: JobContext) -> str:
    talking(path, job)
    return "done"

@task("talk_in_process", isolation="process")
def talk_in_process(path: str, job: JobContext) -> None:
    talking(path, job)
    raise ValueError("no")

@task("talk_in_loop")
async def talk_in_loop(path: str, job: JobContext) -> None:
    job.progress(0.25, "a quarter")
    mark(path + ".runs")
    while not os.path.exists(path + ".go"):
        await asyncio.sleep(0.01)
    job.log("second")
"""
ONCE = RetryPolicy.none()


@pytest.fixture
def running(installation: Any) -> Any:
    (installation.home / "acceptance_tasks.py").write_text(TASKS)
    installation.extra["JOBLOG_WORKER__PREFETCH"] = "0"
    for role in ("elector-a", "delays", "worker-1", "projector"):
        installation.start(role)
    return installation


def test_running_jobs_are_cancelled_and_followed(running: Any, wait_until: Any) -> None:
    _deletions_and_deadlines_reach_runs_of_every_kind(running, wait_until)
    _what_runs_say_is_shown_as_they_say_it_and_before_their_end(running, wait_until)
    assert running.differences() == []
    assert decided_anew(running.kafka, running.names, running.lanes) > 0


def _deletions_and_deadlines_reach_runs_of_every_kind(running: Any, wait_until: Any) -> None:
    kinds = ("in_thread", "in_process", "in_loop", "deaf")
    paths = {kind: str(running.home / kind) for kind in (*kinds, "late")}
    with running.client() as client:
        warm = client.enqueue("in_process", str(running.home / "warm"))  # a process takes a second to start
        wait_until((running.home / "warm.runs").exists, 60, "the first process")
        client.delete(warm)
        took: dict[str, float] = {}
        for kind in kinds:
            job = client.enqueue(kind, paths[kind])
            wait_until((running.home / f"{kind}.runs").exists, 60, "the run")
            asked_at = time.time()
            client.delete(job)
            if kind == "deaf":
                continue
            wait_until((running.home / f"{kind}.stops").exists, 30, "the token")
            took[kind] = float((running.home / f"{kind}.stops").read_text()) - asked_at
        print({kind: f"{seconds * 1000:.0f} ms" for kind, seconds in took.items()})
        # It takes some 20 ms; a busy machine may take longer, but no poll or lease is waited for.
        assert max(took.values()) < 10

        deadline = datetime.now(UTC) + timedelta(seconds=1)
        late = client.enqueue("in_thread", paths["late"], options=JobOptions(deadline=deadline, retry=ONCE))
        unserved = client.enqueue("in_thread", "x", options=JobOptions(queue="nobody", expires_in=0.5))
        wait_until((running.home / "late.stops").exists, 30, "the token at the deadline")
        assert float((running.home / "late.stops").read_text()) >= deadline.timestamp()
        ends = wait_until(lambda: _both_ended(running, late, unserved), 30, "the events of both")
    failed, expired = ends
    assert failed["data"]["exception"]["type"] == DEADLINE_PASSED
    assert expired["data"]["reason"] == "Expired: not started within 0.5 s of its creation"
    assert not (running.home / "deaf.stops").exists()


def _both_ended(running: Any, failed: str, deleted: str) -> Any:
    last = {job: events[-1] for job, events in running.events().items()}
    found = last[failed], last[deleted]
    return found if [one["type"] for one in found] == ["job.failed", "job.deleted"] else None


def _what_runs_say_is_shown_as_they_say_it_and_before_their_end(running: Any, wait_until: Any) -> None:
    with running.client() as client, closing(Monitor(running.dsn, running.schema)) as monitor:
        jobs = {
            kind: client.enqueue(kind, str(running.home / kind), options=JobOptions(retry=ONCE))
            for kind in ("talk", "talk_in_process", "talk_in_loop")
        }
        followed = ("talk", "talk_in_process")
        followers = {kind: _follower(running, jobs[kind]) for kind in followed}
        for kind, job in jobs.items():
            found = wait_until(lambda job=job: _progress(monitor, job), 60, f"the progress of {kind}")
            assert (found.share, found.text, found.attempt) == (0.25, "a quarter", 1)
        for kind in jobs:
            (running.home / f"{kind}.go").touch()
        ended = {kind: follower.communicate(timeout=60) for kind, follower in followers.items()}
        codes = {kind: follower.returncode for kind, follower in followers.items()}
        assert codes == {"talk": 0, "talk_in_process": 3}, ended
        for kind in followed:
            events = [json.loads(line) for line in ended[kind][0].splitlines()]
            assert [event["version"] for event in events] == list(range(1, len(events) + 1))
            kinds = [event["type"].removeprefix("job.") for event in events]
            assert kinds[:3] == ["enqueued", "processing", "progressed"]
            assert kinds[-2:] == ["progressed", "succeeded" if kind == "talk" else "failed"]
            lines = [line for event in events for line in event["data"].get("lines", ())]
            assert (lines[0], lines[-1]) == ("first", "line 199")
            assert any("lines dropped here" in line for line in lines)
            assert [line.text for line in _all_lines(monitor, jobs[kind])] == lines
        shown = monitor.job(jobs["talk"])
        assert shown is not None
        assert (shown.state, shown.progress.share, shown.lines[-1].text) == (State.SUCCEEDED, 1.0, "line 199")


def _follower(running: Any, job: str) -> subprocess.Popen[str]:
    arguments = ["job", "follow", job, "--wait", "60s", "--output", "json"]
    command = [sys.executable, "-m", "joblog.services.cli", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=running.home, env=running.environment(), stdout=pipe, stderr=pipe, text=True)


def _progress(monitor: Monitor, job: str) -> Any:
    found = monitor.job(job)
    return None if found is None else found.progress


def _all_lines(monitor: Monitor, job: str) -> list[Any]:
    page = monitor.log_lines(job, limit=30)
    lines = list(page.items)
    while page.next_cursor is not None:
        page = monitor.log_lines(job, limit=30, cursor=page.next_cursor)
        lines += page.items
    return lines
