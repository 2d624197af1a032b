"""Producers in Go and Node, run against the conformance cases on a real broker and a real elector.

Each uses a Kafka client of its language. Where the language or its packages cannot be had, the test is skipped.
"""

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import KafkaConfig

from tests.acceptance.conftest import Installation
from tests.support.log_comparison import read_log

pytestmark = [pytest.mark.broker, pytest.mark.database]

PRODUCERS = Path(__file__).parent / "producers"
CASES = Path(__file__).parents[2] / "deploy" / "conformance" / "cases.json"
DOCUMENT = json.loads(CASES.read_text())
BUILD_TIMEOUT_S = 200


@pytest.fixture
def lanes() -> int:
    return int(DOCUMENT["lanes"])


def go(home: Path) -> list[str]:
    needed(["go", "build", "-o", str(home / "producer"), "."], home)
    return [str(home / "producer")]


def node(home: Path) -> list[str]:
    needed(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], home)
    return ["node", "main.js"]


def needed(command: list[str], home: Path) -> None:
    """Run a command that needs a toolchain and its packages; without them the test is skipped."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    if done.returncode != 0:
        pytest.skip(f"`{' '.join(command[:2])}` failed, are its packages to be had? {done.stderr[-500:]}")


@pytest.mark.parametrize("build", [go, node])
def test_a_producer_of_another_language_conforms(
    build: Callable[[Path], list[str]],
    kafka: KafkaConfig,
    stack: Any,
    topics: TopicNames,
    schema: str,
    tmp_path: Path,
    wait_until: Any,
) -> None:
    home = tmp_path / "producer"
    shutil.copytree(PRODUCERS / build.__name__, home)
    command = build(home)
    installation = Installation(kafka, stack.dsn, topics, schema, tmp_path, lanes=DOCUMENT["lanes"])
    try:
        installation.start("elector")
        subprocess.run(
            [*command, kafka.bootstrap_servers, topics.commands, str(CASES)], cwd=home, check=True, timeout=60
        )
        records = sum(len(case["records"]) for case in DOCUMENT["cases"])
        events = wait_until(lambda: events_of(installation, records), 60, "an event for each record")
    finally:
        installation.stop()
    expected = [one for case in DOCUMENT["cases"] for one in case["expected"]]
    assert Counter(event["data"].get("code") for event in events) == Counter(one.get("code") for one in expected)
    jobs = {event["subject"] for event in events if event["type"] != "command.rejected"}
    assert jobs == {one["job_id"] for one in expected if "job_id" in one}


def events_of(installation: Installation, count: int) -> list[dict[str, Any]] | None:
    log = read_log(installation.kafka, installation.names, installation.lanes)
    found = [json.loads(record.value) for record in log]
    return found if len(found) >= count else None
