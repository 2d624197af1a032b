"""Limits over several lanes and workers, as those who run the jobs see them, while an elector is killed."""

import subprocess
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from joblog.services.client.client import Client
from joblog.services.client.options import Call, JobOptions
from joblog.services.tasks.limits import Limit
from joblog.streams.contract.ids import lane_of_queue
from msgspec import json

from tests.support.log_comparison import read_log
from tests.support.redecided import decided_anew

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(180)]

LANES = 4
QUEUES = [next(f"q{n}" for n in range(100) if lane_of_queue(f"q{n}", LANES) == lane) for lane in range(LANES)]
KEYS = [f"invoice-{n}" for n in range(5)]
JOBS = 300
#: A run writes down when it began and ended, by the one clock of the machine.
TASKS = """
import os, time
from joblog.services.tasks.context import current_job
from joblog.services.tasks.task import task

@task("book")
def book(key):
    began = time.monotonic_ns()
    time.sleep(0.01)
    line = f"{key} {began} {time.monotonic_ns()} {current_job().worker}\\n".encode()
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, line)
    os.close(ledger)
"""


@pytest.fixture
def lanes() -> int:
    return LANES


def test_jobs_of_one_key_never_run_at_once_although_an_elector_is_killed(
    installation: Any, tmp_path: Path, wait_until: Any
) -> None:
    one = installation
    (tmp_path / "limited_tasks.py").write_text(TASKS)
    one.extra = {"JOBLOG_WORKER__TASKS": "limited_tasks", "JOBLOG_WORKER__QUEUES": ",".join(QUEUES)}
    for role in ("elector-a", "elector-b", "worker-1", "worker-2"):
        one.start(role)
    with one.client() as client:
        created = enqueue(client, JOBS // 2)
        wait_until(lambda: len(entries(one.ledger)) > JOBS // 10, 60, "some jobs to run")
        one.kill("elector-a")
        created += enqueue(client, JOBS - JOBS // 2)
        wait_until(lambda: len(entries(one.ledger)) >= JOBS, 120, "all jobs to run")
    runs: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for key, began, ended, _ in entries(one.ledger):
        runs[key].append((int(began), int(ended)))
    for key, times in runs.items():
        for (_, ended), (began, _) in pairwise(sorted(times)):
            assert ended <= began, key
    assert len({worker for *_, worker in entries(one.ledger)}) == 2
    wait_until(lambda: has_ended(one.events(), created), 60, "all jobs to end")
    told = Counter(event["type"] for events in one.events().values() for event in events)
    assert told["job.succeeded"] == JOBS
    assert told["job.held"] > JOBS // 10
    assert decided_anew(one.kafka, one.names, one.lanes) == sum(told.values())
    change_a_limit(one, wait_until)


def change_a_limit(installation: Any, wait_until: Any) -> None:
    """From the command line, for all lanes to see."""
    command = ["limits", "set", "sliding_window", "mail", "10", "--per", "1s", "--by", "ann"]
    subprocess.run(
        [sys.executable, "-m", "joblog.services.cli", *command],
        env=installation.environment(),
        cwd=installation.home,
        check=True,
        timeout=60,
    )

    def changed() -> list[dict[str, Any]]:
        log = [json.decode(one.value) for one in read_log(installation.kafka, installation.names, LANES)]
        return [event["data"] for event in log if event["type"] == "limit.changed"]

    wait_until(changed, 30, "the limit to be changed")
    assert changed() == [{"kind": "sliding_window", "key": "mail", "capacity": 10, "interval_s": 1.0, "by": "ann"}]


def enqueue(client: Client, count: int) -> list[str]:
    found = []
    for number in range(count):
        key = KEYS[number % len(KEYS)]
        options = JobOptions(queue=QUEUES[number % LANES], limits=[Limit.mutex(key)])
        found.append(client.create("book", Call((key,)), options))
    return found


def entries(ledger: Path) -> list[list[str]]:
    return [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []


def has_ended(log: dict[str, list[dict[str, Any]]], jobs: list[str]) -> bool:
    return all(job in log and log[job][-1]["type"] == "job.succeeded" for job in jobs)
