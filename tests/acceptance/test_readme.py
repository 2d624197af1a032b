"""What the README shows is what happens."""

import json
import subprocess
import sys
from collections.abc import Callable
from textwrap import indent
from typing import Any

import pytest
from joblog.services.detection.requests import create_topic
from joblog.streams.kafka import clients

from tests.support.outbox_world import outbox_of
from tests.support.readme import BEYOND_MEMORY, code, examples

pytestmark = [pytest.mark.broker, pytest.mark.database]

#: What the examples for which Joblog in memory is too little are given: a job that failed, and tables of theirs.
BEFORE = """
from datetime import UTC, datetime, timedelta
from joblog.projections.monitor import Monitor
from joblog.services import *

settings = Settings.load()
dsn = settings.dsn() + "?options=-csearch_path%3D" + settings.postgres.schema_name
monday = datetime.now(UTC) + timedelta(days=1)
client, monitor = Client.from_settings(settings), Monitor(settings.dsn(), settings.postgres.schema_name)
failed = client.enqueue("images.shrink", options=JobOptions(queue="images", retry=RetryPolicy.none()))
assert monitor.wait_for(failed, {State.FAILED}, timeout_s=30)
with monitor, client:
"""
AFTER = """
    print(failed, client.recurring.get("hourly").is_paused(datetime.now(UTC)))
"""


def test_the_ten_lines_of_code_do_what_they_say(installation: Any) -> None:
    home, environment = installation.home, installation.environment()
    for name in ("tasks.py", "jobs.py"):
        (home / name).write_text(code(name))
    environment |= {"JOBLOG_WORKER__TASKS": "tasks"}
    installation.environment = lambda: environment
    for role in ("elector", "projector", "delays", "worker-1"):
        installation.start(role)
    done = subprocess.run(
        [sys.executable, "jobs.py"],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    states = [line.split()[2] for line in done.stdout.splitlines()]
    assert states == ["Awaiting", "Enqueued", "Processing", "Succeeded"], done.stdout
    assert "is public, by job" in (home / "worker-1.log").read_text()
    ends = [events[-1]["type"] for events in installation.events().values()]
    assert sorted(ends) == ["job.scheduled", "job.succeeded", "job.succeeded"]


def test_recurring_jobs_bulk_operations_and_an_outbox_do_what_they_say(
    installation: Any, wait_until: Callable[..., Any]
) -> None:
    world = outbox_of(installation)
    world.create()
    with world.connect() as connection:
        connection.execute(f"CREATE TABLE {installation.schema}.orders (id int)")
    (installation.home / "tasks.py").write_text(code("tasks.py"))
    installation.extra |= {"JOBLOG_WORKER__TASKS": "tasks", "JOBLOG_OUTBOX__SCHEMA_NAME": installation.schema}
    for role in ("elector", "projector", "worker-1", "outbox"):
        installation.start(role)
    needed = [one for several in examples().values() for one in several if any(name in one for name in BEYOND_MEMORY)]
    assert len(needed) == len(BEYOND_MEMORY)
    (installation.home / "more.py").write_text(BEFORE + indent("\n".join(needed), "    ") + AFTER)
    done = subprocess.run(
        [sys.executable, "more.py"],
        cwd=installation.home,
        env=installation.environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failed, is_paused = done.stdout.split()
    assert is_paused == "True"
    types = wait_until(lambda: requeued(installation, failed), 30, "the failed job to be put back, and to fail again")
    assert types.count("job.enqueued") == 2
    (confirmed,) = wait_until(lambda: tasks_of(installation, "orders.confirm"), 30, "the job of the transaction")
    assert confirmed["data"]["spec"]["args"] == [4711]


def requeued(installation: Any, job: str) -> list[str]:
    types = [event["type"] for event in installation.events()[job]]
    return types if types.count("job.failed") == 2 else []


def tasks_of(installation: Any, task: str) -> list[dict[str, Any]]:
    """The first events of the jobs of a task."""
    return [events[0] for events in installation.events().values() if events[0]["data"]["task"] == task]


def test_the_trigger_makes_a_job_of_an_event(installation: Any, wait_until: Callable[..., Any]) -> None:
    topic = f"{installation.names.prefix}uploads"
    (installation.home / "tasks.py").write_text(code("tasks.py"))
    (installation.home / "triggers.py").write_text(code("triggers.py").replace('"uploads"', f'"{topic}"'))
    installation.extra |= {"JOBLOG_WORKER__TASKS": "tasks", "JOBLOG_TRIGGERS__MODULES": "triggers"}
    for role in ("elector", "worker-1", "triggers"):
        installation.start(role)
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "image.uploaded", "data": {"path": "a.png"}}
    producer = clients.producer(installation.kafka, "shop")
    create_topic(installation.kafka, topic)
    for _ in range(2):  # the same event, sent twice
        producer.produce(topic, json.dumps(event).encode())
    assert producer.flush(20) == 0
    (job,) = wait_until(lambda: ended(installation), 60, "a job that has ended")
    assert job[0]["data"]["spec"]["args"] == ["a.png"]
    assert job[0]["data"]["spec"]["kwargs"] == {"width": 320}
    assert job[-1]["type"] == "job.succeeded"


def ended(installation: Any) -> list[list[dict[str, Any]]]:
    """The events of all jobs, once all have ended."""
    jobs = list(installation.events().values())
    return jobs if jobs and all(events[-1]["type"] == "job.succeeded" for events in jobs) else []
