"""Jobs under limits, of keys and of a queue, over lanes while every role is killed: by the workers' own records."""

import subprocess
import sys
from collections import Counter, defaultdict
from datetime import datetime
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest
from joblog.services.client.client import Client
from joblog.services.client.options import Call, JobOptions
from joblog.streams.contract.commands import Limit
from joblog.streams.contract.ids import lane_of_job, lane_of_queue
from joblog.streams.contract.relations import LimitKind
from msgspec import json

from tests.support.log_comparison import read_log
from tests.support.redecided import decided_anew
from tests.support.verified import verified

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(420)]

LANES = 4
QUEUES = [next(f"q{n}" for n in range(100) if lane_of_queue(f"q{n}", LANES) == lane) for lane in range(LANES)]
KEYS = [f"invoice-{number}" for number in range(20)]
JOBS = 2_000
#: A queue in three of the lanes, of which so many jobs may run at a time.
HOT = "hot"
SHARDS = {HOT: 3}
HOT_JOBS = 300
HOT_CAPACITY = 3
RATE = 50
RATED_S = 30

ROLES = ["elector-a", "worker-1", "projector", "delays", "elector-b", "worker-2"]
#: A run writes down when it began and ended, by the one clock of the machine.
TASKS = """
import os, time
from joblog.services.tasks.context import current_job
from joblog.services.tasks.task import task

def note(what, key):
    job = current_job()
    line = f"{what} {key} {job.job_id} {job.attempt} {os.getpid()} {time.monotonic_ns()}\\n".encode()
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, line)
    os.close(ledger)

@task("book")
def book(key):
    note("began", key)
    time.sleep(0.005)
    note("ended", key)
"""


class Run(NamedTuple):
    began: int
    ended: int
    job: str
    attempt: int


@pytest.fixture
def lanes() -> int:
    return LANES


@pytest.fixture
def limited(installation: Any, tmp_path: Path) -> Any:
    """An installation with one queue in each lane, and one in several."""
    (tmp_path / "limited_tasks.py").write_text(TASKS)
    installation.extra = {
        "JOBLOG_WORKER__TASKS": "limited_tasks",
        "JOBLOG_WORKER__QUEUES": ",".join((*QUEUES, HOT)),
        "JOBLOG_QUEUE_SHARDS": json.encode(SHARDS).decode(),
        "JOBLOG_WORKER__PREFETCH": "4",
    }
    for role in ROLES:
        installation.start(role)
    return installation


def enqueue(client: Client, count: int, limit: Any) -> list[str]:
    """Jobs in all lanes, each with the limit of its key."""
    found = []
    for number in range(count):
        key = KEYS[number % len(KEYS)]
        options = JobOptions(queue=QUEUES[number // len(KEYS) % LANES], limits=[limit(key)])
        found.append(client.create("book", Call((key,)), options))
    return found


def runs(one: Any) -> dict[str, list[Run]]:
    """All runs by key; one whose process was killed ended with that."""
    begun: dict[tuple[str, str, int], tuple[int, int]] = {}
    found: dict[str, list[Run]] = defaultdict(list)
    for line in one.ledger.read_text().splitlines():
        what, key, job, attempt, pid, at_ns = line.split()
        run = key, job, int(attempt)
        if what == "began":
            assert run not in begun, f"{run} was started twice"
            begun[run] = int(at_ns), int(pid)
        else:
            found[key].append(Run(begun.pop(run)[0], int(at_ns), job, int(attempt)))
    for (key, job, attempt), (began, pid) in begun.items():
        found[key].append(Run(began, one.deaths[pid], job, attempt))
    return {key: sorted(times) for key, times in found.items()}


def begun(one: Any) -> int:
    """How many runs have begun, as the workers wrote it down."""
    return one.ledger.read_text().count("began ") if one.ledger.exists() else 0


def ended(one: Any, jobs: list[str]) -> bool:
    log = one.events()
    return all(job in log and log[job][-1]["type"] == "job.succeeded" for job in jobs)


def check(one: Any, jobs: list[str], wait_until: Any, directory: Path) -> None:
    """The log has each job's end once, says the same when it is decided anew, and equals tables and state."""
    log = one.events()
    assert log.keys() == set(jobs)
    for job, events in log.items():
        assert [event["data"]["version"] for event in events] == list(range(1, len(events) + 1)), job
        assert sum(event["type"] == "job.succeeded" for event in events) == 1, job
    assert decided_anew(one.kafka, one.names, one.lanes) == sum(map(len, log.values()))
    wait_until(lambda: not one.differences(), 60, "Postgres to equal the log")
    assert verified(one, directory / "verified").findings == []


def test_jobs_of_one_key_never_overlap_while_every_role_is_killed(
    limited: Any, killer: Any, wait_until: Any, tmp_path: Path
) -> None:
    chaos = killer(limited, ROLES, 2.0)
    with Client(limited.kafka, limited.names, LANES, shards=SHARDS) as client:
        limit_the_hot_queue(limited, client, wait_until)
        jobs = enqueue(client, JOBS // 2, lambda key: Limit(kind=LimitKind.MUTEX, key=key))
        chaos.start()
        jobs += [client.create("book", Call((HOT,)), JobOptions(queue=HOT)) for _ in range(HOT_JOBS)]
        jobs += enqueue(client, JOBS - JOBS // 2, lambda key: Limit(kind=LimitKind.MUTEX, key=key))
    wait_until(lambda: not chaos.is_alive() or chaos.error, 120, "the killing to end")
    assert not chaos.error, chaos.error
    wait_until(lambda: begun(limited) >= JOBS + HOT_JOBS, 240, "all jobs to begin")
    wait_until(lambda: ended(limited, jobs), 120, "all jobs to end")
    found = runs(limited)
    check_the_hot_queue(limited, found.pop(HOT))
    for key, times in found.items():
        for before, after in pairwise(times):
            assert before.ended <= after.began, f"{key}: {before} and {after}"
    assert limited.kills == Counter(ROLES)
    told = Counter(event["type"] for events in limited.events().values() for event in events)
    assert told["job.held"] > JOBS // 4, "most jobs had to wait"
    check(limited, jobs, wait_until, tmp_path)
    change_a_limit(limited, wait_until)


def limit_the_hot_queue(one: Any, client: Client, wait_until: Any) -> None:
    """All of its lanes know the limit when this returns."""
    client.limits.set_queue(HOT, LimitKind.SEMAPHORE, HOT_CAPACITY)
    wait_until(lambda: len(changes(one, HOT)) == LANES, 60, "all lanes to know the limit of the queue")


def check_the_hot_queue(one: Any, times: list[Run]) -> None:
    """So many of its runs overlap, and no more, and they are of several lanes."""
    steps = sorted([(run.began, 1) for run in times] + [(run.ended, -1) for run in times])
    assert max(accumulate(step for _, step in steps)) == HOT_CAPACITY
    assert len({lane_of_job(run.job) for run in times}) == 3
    log = one.events()
    assert not [event for run in times for event in log[run.job] if event["type"] == "job.held"]


def changes(one: Any, key: str) -> list[dict[str, Any]]:
    """How a limit was changed, by the log."""
    log = [json.decode(record.value) for record in read_log(one.kafka, one.names, LANES)]
    return [event["data"] for event in log if event["type"] == "limit.changed" and event["data"]["key"] == key]


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
    wait_until(lambda: changes(installation, "mail"), 30, "the limit to be changed")
    assert changes(installation, "mail") == [
        {"kind": "sliding_window", "key": "mail", "capacity": 10, "interval_s": 1.0, "by": "ann"}
    ]


def test_a_rate_is_reached_and_never_exceeded_while_every_role_is_killed(
    limited: Any, killer: Any, wait_until: Any, tmp_path: Path
) -> None:
    rate = Limit(kind=LimitKind.SLIDING_WINDOW, key="mail", capacity=RATE, interval_s=1)
    with limited.client() as client:
        jobs = enqueue(client, RATE * (RATED_S + 1), lambda _key: rate)
        wait_until(lambda: begun(limited) >= RATE * RATED_S, 3 * RATED_S, "jobs to start at the rate")
        chaos = killer(limited, ROLES, 2.0)
        chaos.start()
        jobs += enqueue(client, RATE * 10, lambda _key: rate)
    wait_until(lambda: not chaos.is_alive() or chaos.error, 120, "the killing to end")
    assert not chaos.error, chaos.error
    wait_until(lambda: ended(limited, jobs), 120, "all jobs to end")
    times = starts(limited)
    for first, after in zip(times, times[RATE:], strict=False):
        assert (after - first).total_seconds() >= 1, f"{RATE + 1} starts from {first} to {after}"
    undisturbed = times[: RATE * RATED_S]
    # By the median, as a moment in which this busy machine did something else is not made up for by a window.
    spans = [(after - first).total_seconds() for first, after in zip(undisturbed, undisturbed[RATE:], strict=False)]
    assert 1 / median(spans) >= 0.95
    check(limited, jobs, wait_until, tmp_path)


def starts(one: Any) -> list[datetime]:
    """When jobs started, by the log."""
    return sorted(
        datetime.fromisoformat(event["time"])
        for events in one.events().values()
        for event in events
        if event["type"] == "job.processing"
    )
