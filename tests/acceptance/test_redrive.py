"""Failed jobs put back by the command line: each once, though killed half-way, and taken back before they start."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from joblog.services.client.options import JobOptions
from joblog.streams.contract.retry import RetryPolicy

from tests.support.log_comparison import read_log
from tests.support.redecided import decided_anew

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(240)]

JOBS = 200
COMMAND = [sys.executable, "-m", "joblog.services.cli", "replay"]
CHOSEN = ["redrive", "--exception", "ValueError", "--reason", "repaired", "--yes", "--rate", "40/s"]
NEVER = JobOptions(retry=RetryPolicy.none())


def joblog(installation: Any, *arguments: str, code: int = 0) -> Any:
    done = subprocess.run(
        [*COMMAND, *arguments, "--output", "json"],
        env=installation.environment(),
        cwd=installation.home,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else done.stderr


def put_back(installation: Any, redrive: str) -> dict[str, int]:
    """How often each job was put back by the redrive."""
    return {
        job: sum(event["causationid"] == f"redrive/{redrive}/{job}" for event in events)
        for job, events in installation.events().items()
    }


def failed(installation: Any, wait_until: Any, wanted: int) -> None:
    def are() -> bool:
        log = installation.events()
        return sum(events[-1]["type"] == "job.failed" for events in log.values()) == wanted

    wait_until(are, 60, "all jobs to fail")
    wait_until(lambda: not installation.differences(), 30, "the projection")


def interrupted(installation: Any, wait_until: Any) -> str:
    """A redrive that is killed in the middle."""
    process = subprocess.Popen(
        [*COMMAND, *CHOSEN],
        env=installation.environment(),
        cwd=installation.home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    redrive = ""
    try:
        for line in process.stderr:
            if found := re.search(r"--resume (r\S+)", line):
                redrive = found[1]
                break
        assert redrive, "the id was not printed"
        wait_until(lambda: sum(put_back(installation, redrive).values()) > JOBS // 4, 60, "a quarter to be put back")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
    return redrive


def test_each_failed_job_is_put_back_once_and_those_that_wait_are_taken_back(
    installation: Any, wait_until: Any
) -> None:
    for role in ("elector-a", "projector", "worker-1"):
        installation.start(role)
    with installation.client() as client:
        jobs = client.enqueue_many("second", [((), {})] * JOBS)
        others = client.enqueue_many("flaky", [((), {})] * 10, NEVER)
    failed(installation, wait_until, JOBS + 10)
    installation.kill("worker-1")
    wait_until(lambda: "worker.lost" in types(installation), 30, "the worker to be lost")

    before = installation.events()
    plan = joblog(installation, *CHOSEN, "--dry-run")
    assert (plan["jobs"], plan["kinds"]) == (
        JOBS,
        [{"task": "second", "queue": "default", "exception": "ValueError", "jobs": JOBS}],
    )
    assert installation.events() == before
    assert "--yes" in joblog(installation, *[one for one in CHOSEN if one != "--yes"], code=2)
    assert installation.events() == before

    redrive = interrupted(installation, wait_until)
    assert sum(put_back(installation, redrive).values()) < JOBS
    report = joblog(installation, *CHOSEN, "--resume", redrive)
    assert (report["put_back"], report["undecided"]) == (JOBS, 0)
    assert put_back(installation, redrive) == dict.fromkeys(jobs, 1) | dict.fromkeys(others, 0)
    reasons = {events[-1]["data"]["reason"] for job, events in installation.events().items() if job in jobs}
    assert reasons == {f"repaired (redrive {redrive})"}

    installation.start("worker-2")
    wait_until(lambda: len(started(installation, jobs)) >= 8, 30, "some to start")
    told = joblog(installation, "undo", redrive)
    assert told["put_back"] == JOBS
    assert told["deleted"] + told["started"] == JOBS
    log = installation.events()
    deleted = {job for job in jobs if log[job][-1]["causationid"] == f"undo/{redrive}/{job}"}
    assert told["deleted"] == len(deleted) > 0
    assert {log[job][-1]["type"] for job in deleted} == {"job.deleted"}
    assert not deleted & started(installation, jobs)
    assert not deleted & {job for job, attempt in installation.runs() if attempt > 1}
    decided_anew(installation.kafka, installation.names, installation.lanes)


def test_a_mapping_makes_new_jobs_with_other_arguments(installation: Any, wait_until: Any) -> None:
    for role in ("elector-a", "projector", "worker-1"):
        installation.start(role)
    with installation.client() as client:
        jobs = client.enqueue_many("ok", [((), {})] * 3, replace(NEVER, priority=7, parameters={"owner": "shop"}))
        jobs += client.enqueue_many("bad", [((), {})] * 2, NEVER)
    failed(installation, wait_until, 5)
    (installation.home / "mapping.py").write_text(
        f"def five(job):\n    return ([5], job['kwargs']) if job['id'] != {jobs[0]!r} else None\n"
    )
    chosen = ["redrive", "--task", "ok", "--reason", "arguments", "--yes", "--map", "mapping.py:five"]
    report = joblog(installation, *chosen)
    assert (report["sent"], report["put_back"], report["rejected"]) == (2, 2, {})
    again = joblog(installation, *chosen, "--resume", report["redrive"])
    assert (again["sent"], again["put_back"]) == (0, 2)
    log = installation.events()
    new = {job: events for job, events in log.items() if job not in jobs}
    wait_until(lambda: {installation.events()[job][-1]["type"] for job in new} == {"job.succeeded"}, 30, "success")
    specs = [events[0]["data"]["spec"] for events in new.values()]
    assert all((spec["args"], spec["priority"], spec["parameters"]["owner"]) == ([5], 7, "shop") for spec in specs)
    assert {spec["parameters"]["redriveOf"] for spec in specs} == set(jobs[1:3])
    assert {log[job][-1]["type"] for job in jobs} == {"job.failed"}


def started(installation: Any, jobs: list[str]) -> set[str]:
    """Those that have a second attempt, and were not given back unstarted."""
    log = installation.events()
    return {job for job in jobs if log[job][-1]["data"]["attempt"] > 1}


def types(installation: Any) -> set[str]:
    log = read_log(installation.kafka, installation.names, installation.lanes)
    return {json.loads(record.value)["type"] for record in log}
