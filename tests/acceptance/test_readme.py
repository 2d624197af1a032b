"""What the README shows is what happens."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text("utf-8"))
    assert len(links) > 20
    assert [link for link in links if not (README.parent / link).exists()] == []
