"""What the README shows is what happens."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joblog.services.detection.requests import create_topic
from joblog.streams.kafka import clients

pytestmark = [pytest.mark.broker, pytest.mark.database]

README = Path(__file__).parents[2] / "README.md"


def code(name: str) -> str:
    """The block of Python that begins with a comment of this file's name."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (found,) = (block for block in blocks if block.startswith(f"# {name}"))
    return str(found)


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


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text("utf-8"))
    assert len(links) > 20
    assert [link for link in links if not (README.parent / link).exists()] == []
