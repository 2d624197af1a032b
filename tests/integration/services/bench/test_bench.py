"""`joblog bench all` on few jobs: every figure is measured, and nothing is left behind."""

import json
from typing import Any

import psycopg
import pytest
from joblog.services.bench import beside
from joblog.services.cli.app import app
from joblog.services.cli.commands import bench
from joblog.services.embedded.stack import StackAddresses
from joblog.streams.kafka.clients import KafkaConfig, admin
from typer.testing import CliRunner

pytestmark = [pytest.mark.broker, pytest.mark.database]

FIGURES = [
    "enqueue_many",
    "throughput_log",
    "throughput_postgres",
    *(f"latency_p{percent}" for percent in (50, 95, 99)),
    *(f"latency_loaded_p{percent}" for percent in (50, 95, 99)),
    *(f"lateness_p{percent}" for percent in (50, 95, 99)),
    "election",
    "projection",
    "projection_cpu",
    "verify",
    "verify_memory",
    "export",
    "rebuild",
    "rebuild_swap",
]
#: Of each figure.
SIDES = ("alone", "beside", "change")


def test_all_benchmarks_measure_and_clean_up(
    stack: StackAddresses, kafka: KafkaConfig, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "UNLOADED_JOBS", 20)
    monkeypatch.setattr(bench, "LOADED_S", 2.0)
    environment = {
        "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "JOBLOG_POSTGRES__DSN": stack.dsn,
    }
    before = leftovers(stack, kafka)
    result = CliRunner().invoke(
        app, ["bench", "all", "--jobs", "25000", "--timeout", "120", "-o", "json"], env=environment
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["metric"] for row in rows] == FIGURES
    assert all(row["value"] > 0 for row in rows)
    # A broker lists deleted topics until it has heard of it from the controller.
    wait_until(lambda: leftovers(stack, kafka) <= before, 30, "its topics and tables to be gone")


def test_a_rebuild_beside_a_load_is_measured(
    stack: StackAddresses, kafka: KafkaConfig, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "TURNS", 1)
    monkeypatch.setattr(beside, "SETTLE_S", 0.2)
    environment = {
        "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "JOBLOG_POSTGRES__DSN": stack.dsn,
    }
    before = leftovers(stack, kafka)
    given = ["--jobs", "50000", "--load", "100", "--seconds", "1", "--share", "0.05", "-o", "json"]
    result = CliRunner().invoke(app, ["bench", "replay", "--beside", *given], env=environment)
    assert result.exit_code == 0, result.output
    values = {row["metric"]: row["value"] for row in map(json.loads, result.stdout.splitlines())}
    names = [f"{name}_{side}" for name in ("throughput", "latency_p50", "latency_p99") for side in SIDES]
    assert list(values) == names
    assert all(value > 0 for name, value in values.items() if not name.endswith("change"))
    wait_until(lambda: leftovers(stack, kafka) <= before, 30, "its topics and tables to be gone")


def leftovers(stack: StackAddresses, kafka: KafkaConfig) -> set[str]:
    """Topics and schemas of benchmarks."""
    client = admin(kafka)
    topics = {name for name in client.list_topics(timeout=30).topics if name.startswith("joblog-bench-")}
    with psycopg.connect(stack.dsn) as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'joblog_bench_%'").fetchall()
    return topics | {name for (name,) in rows}
