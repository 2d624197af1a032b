"""Every query of dashboards, rules and alerts on a real Prometheus, while all goes well and in trouble."""

import json
import math
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from joblog.services.client.options import JobOptions
from joblog.services.embedded.ports import HOST, choose_ports
from joblog.services.monitoring.alerts import ALERTS
from joblog.services.monitoring.boards import BOARDS
from joblog.services.monitoring.promql import names, with_variables
from joblog.services.monitoring.records import RECORDS
from joblog.services.monitoring.server import PrometheusServer
from joblog.streams.kafka import clients

pytestmark = [
    pytest.mark.broker,
    pytest.mark.database,
    pytest.mark.skipif(
        shutil.which("prometheus") is None,
        reason="prometheus is not installed: apt-get install prometheus; no query of dashboards and alerts is tried",
    ),
]

ROLES = ("projector", "elector-a", "delays", "worker-1", "worker-2", "recurring")
#: What only trouble fills: queries of these find nothing while all goes well.
ONLY_TROUBLE = {
    "joblog_commands_rejected_total",
    "joblog_db_errors_total",
    "joblog_filter_errors_total",
    "joblog_kafka_errors_total",
    "joblog_unserved_jobs",
}
#: The alerts that the trouble of this test lets fire.
TROUBLE = {
    "JoblogDeadLetters",
    "JoblogWorkersLost",
    "JoblogTimersMissing",
    "JoblogNoWorkers",
    "JoblogQueueWithoutWorkers",
    "JoblogTargetDown",
    "JoblogLaneWithoutOwner",
}
PANEL_QUERIES = [
    query for board in BOARDS for row in board.rows for panel in row.panels for query, _ in panel.queries
]
EXPRESSIONS = {alert.name: alert.expr for alert in ALERTS}
WELL_S = 30
TROUBLE_S = 60


class Asked:
    """Prometheus' HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def has_data(self, query: str) -> bool:
        """Whether a query finds at least one number."""
        found = self.get("query", query=query)["result"]
        return any(not math.isnan(float(one["value"][1])) for one in found)


def as_grafana_asks(query: str) -> str:
    """A panel's query, with all values of all variables chosen."""
    text = with_variables(query).replace("$__rate_interval", "2m")
    return re.sub(r'"\$\w+"', '".*"', text)


@pytest.fixture
def asked(installation: Any, tmp_path: Path) -> Iterator[Asked]:
    ports = choose_ports(tmp_path / "roles.json", dict.fromkeys(ROLES, None), lambda _: None)
    targets: dict[str, list[str]] = {}
    for role in ROLES:
        targets.setdefault(role.partition("-")[0], []).append(f"{HOST}:{ports[role]}")
    with PrometheusServer(tmp_path / "prometheus", targets, lambda _: None, interval="1s") as server:
        for role in ROLES:
            installation.start(role, "--http-port", str(ports[role]))
        yield Asked(server.url)


@contextmanager
def jobs_that_keep_coming(installation: Any) -> Iterator[None]:
    """Jobs of all kinds, some every half second; one is always far ahead."""
    done = threading.Event()

    def produce() -> None:
        with installation.client() as client:
            client.schedule("ok", 0, delay=timedelta(hours=1))
            client.recurring.add_or_update("every-second", "ok", timedelta(seconds=1), args=[2])
            while not done.wait(0.5):
                client.enqueue_many("ok", [((number,), {}) for number in range(5)])
                client.enqueue("flaky")
                client.enqueue("bad")
                client.enqueue("slow", 0.3)
                client.schedule("ok", 1, delay=timedelta(seconds=1))

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.timeout(240)
def test_all_queries_find_what_they_are_for(installation: Any, asked: Asked, wait_until: Callable[..., Any]) -> None:
    wait_until(lambda: asked.has_data("sum(joblog_lanes) == 2 and sum(joblog_workers) == 2"), 60, "lanes and workers")
    well = [query for query in PANEL_QUERIES if not names(query) & ONLY_TROUBLE]
    assert len(well) > 60
    with jobs_that_keep_coming(installation):
        # A queue of which nobody takes the jobs, so that there is an oldest one.
        with installation.client() as client:
            client.enqueue("ok", 1, options=JobOptions(queue="nobody"))
        all_find_data(asked, list(map(as_grafana_asks, well)), WELL_S, wait_until)
        all_find_data(asked, [record.expr for record in RECORDS], WELL_S, wait_until)
        all_find_data(asked, [record.name for record in RECORDS], WELL_S, wait_until)
        series = {name for expr in EXPRESSIONS.values() for name in names(expr)} - ONLY_TROUBLE
        all_find_data(asked, sorted(series), WELL_S, wait_until)

        groups = asked.get("rules")["groups"]
        loaded = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
        assert loaded.keys() == EXPRESSIONS.keys() | {record.name for record in RECORDS}
        assert set(loaded.values()) <= {"ok", "unknown"}
        assert not any(asked.has_data(EXPRESSIONS[name]) for name in TROUBLE - {"JoblogQueueWithoutWorkers"})

        make_trouble(installation, asked, wait_until)


def all_find_data(asked: Asked, queries: list[str], seconds: float, wait_until: Callable[..., Any]) -> None:
    left = list(queries)

    def none_is_left() -> bool:
        left[:] = [query for query in left if not asked.has_data(query)]
        return not left

    try:
        wait_until(none_is_left, seconds, "data")
    except AssertionError as error:
        raise AssertionError("these found no data:\n" + "\n".join(left)) from error


def make_trouble(installation: Any, asked: Asked, wait_until: Callable[..., Any]) -> None:
    def fires(name: str) -> None:
        wait_until(lambda: asked.has_data(EXPRESSIONS[name]), TROUBLE_S, name)

    producer = clients.producer(installation.kafka, "test")
    producer.produce(installation.names.commands, b"no command", b"key")
    assert producer.flush(10) == 0
    fires("JoblogDeadLetters")
    rejected = [query for query in PANEL_QUERIES if "joblog_commands_rejected_total" in query]
    all_find_data(asked, list(map(as_grafana_asks, rejected)), WELL_S, wait_until)

    installation.kill("delays")
    installation.kill("worker-1")
    installation.kill("worker-2")
    for name in ("JoblogTimersMissing", "JoblogWorkersLost", "JoblogNoWorkers", "JoblogQueueWithoutWorkers"):
        fires(name)
    installation.kill("elector-a")
    fires("JoblogTargetDown")
    fires("JoblogLaneWithoutOwner")
