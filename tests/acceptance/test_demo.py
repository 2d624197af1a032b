"""The demonstration as people and programs call it: `joblog demo` in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from joblog.services.detection.stories import STORIES
from joblog.services.embedded.stack import StackAddresses

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(420)]

COMMAND = [sys.executable, "-m", "joblog.services.cli", "demo"]
MINUTE_S = 2
DEADLINE_S = 360
STOP_TIMEOUT_S = 90


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory(prefix="joblog-demo-") as name:
        yield Path(name)


def relatives_of(directory: Path) -> list[psutil.Process]:
    """The processes that have anything to do with a demonstration in this directory."""
    found = []
    for process in psutil.process_iter():
        try:
            mentioned = [*process.cmdline(), process.cwd(), *process.environ().values()]
        except psutil.Error:
            continue  # ended meanwhile
        if any(str(directory) in text for text in mentioned):
            found.append(process)
    return found


def test_every_run_ends_as_its_story_says(directory: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--exit", "--output", "json", "--minute", f"{MINUTE_S}s", "--directory", str(directory)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] is True
    runs = {run["story"]: run for run in told["runs"]}
    assert {name: run["detection"]["state"] for name, run in runs.items()} == {
        story.name: story.expected.value for story in STORIES
    }
    for run in runs.values():
        assert run["complaints"] == []
        check_jobs(run)
    check_results(runs)
    check_failure(runs["damaged"], "OSError", "truncated")
    check_failure(runs["never uploaded"], "FileNotFoundError", "has not arrived")
    check_recovery(runs["late upload"])
    check_withdrawal(runs["withdrawn"])
    assert told["surveys"]["states"]["Succeeded"] >= 2
    check_album(told["album"])
    check_verification(told["verification"], 3 * len(STORIES) + 4)
    assert set(told["metrics"]) == {"projector", "elector", "delays", "worker", "triggers", "recurring"}
    assert relatives_of(directory) == []


def check_album(told: dict[str, Any]) -> None:
    """A batch of pages that waited for each other, what it was for, and a run that was cancelled."""
    assert told["complaints"] == []
    assert (told["batch"]["total"], told["batch"]["succeeded"]) == (len(STORIES), len(STORIES))
    assert told["pages"] == len(STORIES)
    assert all(waited.startswith("mutex album") for waited in told["waited"].values())
    assert told["stopped_s"] < 5


def check_verification(told: dict[str, Any], jobs: int) -> None:
    """The log was folded again, and nothing was found."""
    assert told["holds"] is True
    assert told["counts"] == {}
    assert told["jobs"] >= jobs
    assert told["events"] > 2 * jobs


def check_jobs(run: dict[str, Any]) -> None:
    """Parameters, priority and queues of both jobs, their histories without gaps, the clean-up at the end."""
    detection, cleanup = run["detection"], run["cleanup"]
    for job in (detection, cleanup):
        own = {name: one for name, one in job["parameters"].items() if not name.startswith("Parent:")}
        assert own == {"detectionRunId": run["run_id"], "priority": "high"}
        assert job["priority"] == 100
        assert [entry["version"] for entry in job["history"]] == list(range(1, job["version"] + 1))
        assert job["history"][-1]["state"] == job["state"]
    assert (detection["queue"], detection["task"]) == ("detection", "detection.run")
    assert (cleanup["queue"], cleanup["task"]) == ("default", "detection.cleanup")
    assert detection["history"][0]["state"] == "Scheduled"
    assert states(cleanup) == ["Awaiting", "Enqueued", "Processing", "Succeeded"]
    assert cleanup["parent"] == detection["id"]
    assert cleanup["continue_on"] == "ended"
    assert cleanup["history"][1]["reason"] == f"Job {detection['id']} ended as {detection['state']}"
    if detection["attempt"]:
        # The delay of ten seconds, less what the request's way into the log took.
        assert detection["history"][0]["lasted_s"] > 8
        worker = first(detection, "Processing")["data"]["worker"]
        assert worker.startswith("DetectionServer:")


def check_results(runs: dict[str, Any]) -> None:
    counts = {
        story: run["detection"]["result"]["counts"] for story, run in runs.items() if run["detection"]["result"]
    }
    assert counts["portrait"]["faces"] == 1
    assert counts["coins"]["shapes"] == 24
    assert counts["galaxies"]["blobs"] > 100
    for story in counts:
        assert runs[story]["cleanup"]["result"]["files_removed"] == 1
        assert runs[story]["detection"]["duration_ms"] > 0
    face = runs["portrait"]["detection"]["result"]["largest"]["faces"][0]
    assert abs(face["x"] + face["width"] / 2 - 224) < 10


def check_failure(run: dict[str, Any], kind: str, message: str) -> None:
    """Three retries after one, two and four minutes, and each failure with its exception."""
    detection = run["detection"]
    retry = ["Enqueued", "Processing", "Failed"]
    assert states(detection) == ["Scheduled", *[*retry, "Scheduled"] * 3, *retry]
    assert detection["attempt"] == 4
    assert detection["retry_waits_s"] == pytest.approx([MINUTE_S, 2 * MINUTE_S, 4 * MINUTE_S], abs=0.1)
    failures = [entry for entry in detection["history"] if entry["state"] == "Failed"]
    assert [entry["traversed"] for entry in failures] == [True, True, True, False]
    for entry in failures:
        assert entry["data"]["exception"]["type"] == kind
        assert message in entry["data"]["exception"]["message"]
        assert "run_detection" in entry["data"]["exception"]["details"]


def check_recovery(run: dict[str, Any]) -> None:
    """Failed for want of the photograph, which came while the job waited."""
    detection = run["detection"]
    assert states(detection)[:4] == ["Scheduled", "Enqueued", "Processing", "Failed"]
    assert 2 <= detection["attempt"] <= 4
    assert first(detection, "Failed")["data"]["exception"]["type"] == "FileNotFoundError"


def check_withdrawal(run: dict[str, Any]) -> None:
    detection = run["detection"]
    assert states(detection) == ["Scheduled", "Deleted"]
    assert detection["history"][-1]["reason"] == "the detection run was withdrawn"


def states(job: dict[str, Any]) -> list[str]:
    return [entry["state"] for entry in job["history"]]


def first(job: dict[str, Any], state: str) -> dict[str, Any]:
    return next(entry for entry in job["history"] if entry["state"] == state)


@pytest.fixture
def staying(stack: StackAddresses, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A demonstration of one run on servers that run already, which has come to its end and stays up."""
    options = ["--runs", "1", "--bootstrap-servers", stack.bootstrap_servers, "--dsn", stack.dsn]
    process = subprocess.Popen(
        [*COMMAND, *options, "--directory", str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
    )
    assert process.stdout is not None
    told = []
    try:
        for line in process.stdout:
            told.append(line)
            if "Everything stays up" in line:
                break
        else:
            pytest.fail("".join(told))
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def asked(settings: Path, *command: str) -> list[dict[str, Any]]:
    """What another command prints of the demonstration."""
    done = subprocess.run(
        [sys.executable, "-m", "joblog.services.cli", *command, "--output", "json"],
        env={**os.environ, "JOBLOG_CONFIG": str(settings)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_stays_up_for_other_commands_until_ctrl_c(staying: subprocess.Popen[str], directory: Path) -> None:
    (settings,) = directory.glob("*/joblog.toml")
    jobs = asked(settings, "job", "list")
    assert sorted((job["task"], job["state"]) for job in jobs if job["task"] != "detection.survey") == [
        ("detection.album", "Succeeded"),
        ("detection.cleanup", "Succeeded"),
        ("detection.page", "Succeeded"),
        ("detection.panorama", "Deleted"),
        ("detection.run", "Succeeded"),
    ]
    (survey,) = asked(settings, "recurring", "list")
    assert survey["id"] == "survey"
    (verified,) = asked(settings, "replay", "verify")
    check_verification(verified, 7)
    relatives = relatives_of(directory)
    assert len([one for one in relatives if "joblog.services.cli" in " ".join(one.cmdline())]) == 7
    staying.send_signal(signal.SIGINT)
    assert staying.wait(STOP_TIMEOUT_S) == 0
    assert relatives_of(directory) == []


def test_its_processes_end_with_it_even_when_it_is_killed(staying: subprocess.Popen[str], directory: Path) -> None:
    assert len(relatives_of(directory)) > 4
    staying.kill()
    staying.wait()
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while left := relatives_of(directory):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.2)
