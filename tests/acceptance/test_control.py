"""Queues, workers and many jobs under control, from the command line, with real processes that are killed."""

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from joblog.projections.monitor.models import Worker
from joblog.projections.monitor.monitor import Monitor
from joblog.services.client.client import Client
from joblog.services.client.options import JobOptions
from joblog.streams.contract.ids import lane_of_queue
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import State

from tests.support.log_comparison import read_log
from tests.support.redecided import decided_anew

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(240)]

JOBS = 60
NEVER = JobOptions(retry=RetryPolicy.none())


def joblog(installation: Any, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "joblog.services.cli", *arguments],
        env=installation.environment(),
        cwd=installation.home,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def first_worker(monitor: Monitor) -> Worker:
    (found,) = [one for one in monitor.workers() if one.name.startswith("worker-1:")]
    return found


def types_of(installation: Any, subject: str) -> list[str]:
    """The types of all events of a queue or worker."""
    events = [json.loads(one.value or b"") for one in read_log(installation.kafka, installation.names, 2)]
    return [event["type"] for event in events if event.get("subject") == subject]


def test_queues_workers_and_many_jobs_do_as_they_are_told(installation: Any, wait_until: Any) -> None:
    for role in ("elector-a", "projector", "worker-1"):
        installation.start(role)
    with installation.client() as client, Monitor(installation.dsn, installation.schema) as monitor:
        a_drained_queue_stands_still(installation, wait_until, client, monitor)
        jobs = each_job_is_requeued_once(installation, wait_until, client, monitor)
        a_cancelled_operation_leaves_the_rest(installation, wait_until, client, monitor, jobs)
        jobs_move_to_a_queue_of_another_lane(installation, wait_until, client, monitor)
        a_worker_is_quieted_and_stopped(installation, wait_until, client, monitor)
    joblog(installation, "replay", "verify")
    assert decided_anew(installation.kafka, installation.names, installation.lanes)


def a_drained_queue_stands_still(installation: Any, wait_until: Any, client: Client, monitor: Monitor) -> None:
    slow = client.enqueue("slow", 1.5)
    wait_until(lambda: (job := monitor.job(slow)) and job.state is State.PROCESSING, 60, "the slow job to run")
    joblog(installation, "queue", "drain", "default", "--wait", "--reason", "deployment", "--by", "ann")
    assert monitor.states([slow]) == {slow: State.SUCCEEDED}
    (queue,) = [one for one in monitor.queues() if one.name == "default"]
    assert queue.pause is not None
    assert (queue.pause.state, queue.pause.paused_by, queue.pause.reason) == ("drained", "ann", "deployment")

    waiting = client.enqueue_many("ok", [((n,), {}) for n in range(20)])
    client.set_priority(waiting[-1], 7)
    wait_until(lambda: (job := monitor.job(waiting[-1])) and job.priority == 7, 30, "the priority")
    assert set(monitor.states(waiting).values()) == {State.ENQUEUED}
    client.queues.resume("default")
    wait_until(lambda: set(monitor.states(waiting).values()) == {State.SUCCEEDED}, 30, "the jobs to run")
    places = {job.id: job.history[-1].log_offset for one in waiting if (job := monitor.job(one))}
    assert len(set(places.values())) == len(waiting)
    told = Counter(types_of(installation, "default"))  # each lane does so for itself
    assert told == dict.fromkeys(("queue.paused", "queue.drained", "queue.resumed"), installation.lanes)


def each_job_is_requeued_once(installation: Any, wait_until: Any, client: Client, monitor: Monitor) -> list[str]:
    """Though the runner is killed in the middle."""
    jobs = client.enqueue_many("bad", [((), {})] * JOBS, NEVER)
    wait_until(lambda: set(monitor.states(jobs).values()) == {State.FAILED}, 60, "all jobs to fail")
    begin = ("bulk", "requeue", "--state", "Failed", "--task", "bad", "--rate", "20", "--by", "ann")
    assert f"{JOBS} jobs match" in joblog(installation, *begin, code=2).stderr  # nobody is there to ask
    operation = joblog(installation, *begin, "--reason", "repaired", "--yes").stdout.strip()

    def requeued() -> dict[str, int]:
        log = installation.events()
        return {job: sum(one["causationid"] == f"bulk/{operation}/{job}" for one in log[job]) for job in jobs}

    wait_until(lambda: (one := monitor.bulk.operation(operation)) and one.sent, 60, "a page to be requeued")
    installation.kill("projector")
    assert 0 < sum(requeued().values()) < JOBS
    installation.start("projector")
    done = json.loads(joblog(installation, "bulk", "follow", operation, "--output", "json").stdout)
    assert (done["state"], done["matched"], done["done"], done["refused"]) == ("done", JOBS, JOBS, 0)
    assert requeued() == dict.fromkeys(jobs, 1)
    reasons = {one["data"].get("reason") for one in installation.events()[jobs[0]] if one["type"] == "job.enqueued"}
    assert reasons == {None, f"repaired (bulk {operation} by ann)"}
    return jobs


def a_cancelled_operation_leaves_the_rest(
    installation: Any, wait_until: Any, client: Client, monitor: Monitor, jobs: list[str]
) -> None:
    wait_until(lambda: set(monitor.states(jobs).values()) == {State.FAILED}, 60, "all jobs to fail again")
    slow = ("bulk", "set-priority", "--task", "bad", "--priority", "3", "--rate", "5", "--yes")
    operation = joblog(installation, *slow).stdout.strip()
    wait_until(lambda: (one := monitor.bulk.operation(operation)) and one.sent, 30, "a page")
    client.bulk.cancel(operation, reason="enough")
    wait_until(lambda: (one := monitor.bulk.operation(operation)) and one.state == "cancelled", 30, "the end")
    ended = monitor.bulk.operation(operation)
    assert ended is not None
    assert ended.end_reason == "enough"
    assert 0 < ended.sent < JOBS


def jobs_move_to_a_queue_of_another_lane(
    installation: Any, wait_until: Any, client: Client, monitor: Monitor
) -> None:
    """Its worker comes to them, though elector and worker are killed meanwhile; each runs once."""
    other = next(f"q{n}" for n in range(9) if lane_of_queue(f"q{n}", 2) != lane_of_queue("default", 2))
    client.queues.pause("default")
    wait_until(lambda: len(monitor.pauses("default")) == installation.lanes, 30, "the pause")
    jobs = client.enqueue_many("ok", [((n,), {}) for n in range(JOBS)])
    slow = client.enqueue("slow", 60)
    wait_until(lambda: len(monitor.states([*jobs, slow])) == JOBS + 1, 30, "the jobs")
    moved = ("bulk", "move", "--state", "Enqueued", "--queue", "default", "--to", other, "--rate", "100", "--yes")
    operation = joblog(installation, *moved).stdout.strip()
    wait_until(lambda: (one := monitor.bulk.operation(operation)) and one.sent, 30, "a page")
    installation.kill("elector-a")
    installation.start("elector-a")
    installation.start("worker-2", "--queues", other)
    wait_until(lambda: (job := monitor.job(slow)) and job.state is State.PROCESSING, 60, "the slow job to run")
    installation.kill("worker-2")
    client.delete(slow)
    installation.start("worker-2", "--queues", other)
    wait_until(lambda: set(monitor.states(jobs).values()) == {State.SUCCEEDED}, 60, "all to succeed")
    (job,) = [one for one in monitor.jobs(queue=other, task="ok", limit=JOBS).items if one.id == jobs[0]]
    assert job.queue == other
    types = {one: Counter(event["type"] for event in installation.events()[one]) for one in jobs}
    assert {counts["job.moved"] for counts in types.values()} == {1}
    assert {counts["job.succeeded"] for counts in types.values()} == {1}
    installation.kill("worker-2")
    client.queues.resume("default")


def a_worker_is_quieted_and_stopped(installation: Any, wait_until: Any, client: Client, monitor: Monitor) -> None:
    worker = first_worker(monitor)
    client.workers.quiet(worker.name, by="ann")
    wait_until(lambda: first_worker(monitor).state == "quiet", 30, "the worker to be quiet")
    types = types_of(installation, worker.name)
    assert types[types.index("worker.quieted") - 1] in {"worker.started", "worker.alive"}
    joblog(installation, "worker", "resume", worker.name, "--by", "bob")
    wait_until(lambda: first_worker(monitor).state == "running", 30, "the worker to take jobs again")
    again = client.enqueue("ok", 1)
    wait_until(lambda: monitor.states([again]) == {again: State.SUCCEEDED}, 30, "a job to run")
    client.workers.stop(worker.name)
    assert installation.roles["worker-1"].wait(30) == 0
    wait_until(lambda: types_of(installation, worker.name)[-1] == "worker.stopped", 30, "its last event")
    client.workers.stop(worker.name)
    wait_until(lambda: monitor.rejected().items, 30, "a rejection")
    assert monitor.rejected().items[0].code == "unknown_worker"
