"""`joblog up` on servers and roles of its own, from an empty directory to its end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from joblog.services.settings.errors import paths, variable
from joblog.services.settings.model import Settings

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(600)]
READY_S = 240
HAS_PROMETHEUS = shutil.which("prometheus") is not None
STOP_S = 120

TASKS = """
from joblog.services.tasks.task import task

@task("up.double", queue="numbers")
def double(n: int) -> int:
    return 2 * n
"""


class Up:
    """The command in a directory; its lines go to files there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        ours = {variable(path) for path in paths(Settings)}
        self.environment = {name: value for name, value in os.environ.items() if name not in ours}
        (directory / "uptasks.py").write_text(TASKS)
        with (directory / "up.out").open("w") as out, (directory / "up.err").open("w") as err:
            arguments = ["up", "--tasks", "uptasks", *(["--monitor"] if HAS_PROMETHEUS else [])]
            self.process = psutil.Popen(
                [sys.executable, "-m", "joblog.services.cli", *arguments],
                cwd=directory,
                env=self.environment,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        return (self.directory / "up.out").read_text()

    @property
    def err(self) -> str:
        return (self.directory / "up.err").read_text()

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.err
        return "ready: " in self.out

    def role(self, name: str) -> psutil.Process:
        (found,) = [
            child for child in self.process.children() if child.cmdline()[1:4] == ["-m", "joblog.services.cli", name]
        ]
        return found

    def scraped(self) -> set[str]:
        """The roles whose metrics Prometheus has read."""
        address = re.search(r"^Prometheus +(http://\S+)$", self.out, re.MULTILINE)
        assert address is not None, self.out
        with urlopen(f"{address[1]}/api/v1/query?query=up==1", timeout=10) as answer:  # noqa: S310
            found = json.load(answer)["data"]["result"]
        return {one["metric"]["job"].removeprefix("joblog-") for one in found}

    def joblog(self, *arguments: str) -> list[dict[str, Any]]:
        """Another terminal in the same directory, in which nothing is set."""
        done = subprocess.run(
            [sys.executable, "-m", "joblog.services.cli", *arguments, "--output", "json"],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def up(tmp_path: Path, wait_until: Callable[..., Any]) -> Iterator[Up]:
    started = Up(tmp_path)
    try:
        wait_until(started.is_ready, READY_S, "joblog up")
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.wait()


def test_up_runs_everything_restarts_what_dies_and_leaves_nothing(up: Up, wait_until: Callable[..., Any]) -> None:
    (job,) = up.joblog("enqueue", "up.double", "21", "--queue", "numbers", "--wait", "60s")
    assert job["result"] == 42
    levels = {row["check"]: row["level"] for row in up.joblog("doctor")}
    assert "fail" not in levels.values()

    if HAS_PROMETHEUS:
        wait_until(
            lambda: up.scraped() == {"elector", "delays", "worker", "projector", "recurring"}, 60, "the first scrapes"
        )

    killed = up.role("worker")
    killed.send_signal(signal.SIGKILL)
    (job,) = up.joblog("enqueue", "up.double", "4", "--queue", "numbers", "--wait", "90s")
    assert job["result"] == 8
    assert up.role("worker").pid != killed.pid
    assert "worker    | ended with code -9; starts again in 0.5 s" in up.err

    second = subprocess.run(
        [sys.executable, "-m", "joblog.services.cli", "up"],
        cwd=up.directory,
        env=up.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert second.returncode == 1
    assert "stopping" not in second.stderr
    assert "is in use by another Joblog stack" in second.stderr

    family = up.process.children(recursive=True)
    assert len(family) >= 6
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(STOP_S) == 0, up.err
    assert [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    assert up.err.index("worker    | stopping on") < up.err.index("elector   | stopping on")
