"""A real Prometheus on the roles of an installation, and what to ask it."""

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from joblog.services.embedded.ports import HOST, choose_ports
from joblog.services.monitoring.boards import BOARDS
from joblog.services.monitoring.pace import AS_IN_OPERATION, Pace
from joblog.services.monitoring.promql import with_variables
from joblog.services.monitoring.server import PrometheusServer

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is not installed: apt-get install prometheus; no query of dashboards and alerts is tried",
)
#: What only trouble fills: queries of these find nothing while all goes well.
ONLY_TROUBLE = {
    "joblog_commands_rejected_total",
    "joblog_db_errors_total",
    "joblog_filter_errors_total",
    "joblog_kafka_errors_total",
}
#: What only those fill who are not here: rows expire after a day, batches end, and hooks have tests of their own.
NOT_HERE = {
    "joblog_batch_oldest_timestamp_seconds",
    "joblog_batch_progress_timestamp_seconds",
    "joblog_jobs_expired_total",
    "joblog_hook_calls_total",
    "joblog_hook_told_timestamp_seconds",
}
PANEL_QUERIES = [
    query for board in BOARDS for row in board.rows for panel in row.panels for query, _ in panel.queries
]


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

    def firing(self) -> list[dict[str, str]]:
        """The labels of the alerts that fire now."""
        return [one["labels"] for one in self.get("alerts")["alerts"] if one["state"] == "firing"]

    def fired(self, since: float) -> list[dict[str, str]]:
        """The labels of the alerts that fired at some time since this instant."""
        window = max(math.ceil(time.time() - since), 1)
        found = self.get("query", query=f'count_over_time(ALERTS{{alertstate="firing"}}[{window}s])')["result"]
        return [one["metric"] for one in found]


@contextmanager
def prometheus_on(
    home: Path, roles: tuple[str, ...], pace: Pace = AS_IN_OPERATION
) -> Iterator[tuple[Asked, dict[str, int]]]:
    """Prometheus reads these roles every second; with it comes the port that each is to have."""
    ports = choose_ports(home / "roles.json", dict.fromkeys(roles, None), lambda _: None)
    targets: dict[str, list[str]] = {}
    for role in roles:
        targets.setdefault(role.partition("-")[0], []).append(f"{HOST}:{ports[role]}")
    with PrometheusServer(home / "prometheus", targets, lambda _: None, interval="1s", pace=pace) as server:
        yield Asked(server.url), ports


def as_grafana_asks(query: str) -> str:
    """A panel's query, with all values of all variables chosen."""
    text = with_variables(query).replace("$__rate_interval", "2m")
    return re.sub(r'"\$\w+"', '".*"', text)


def all_find_data(asked: Asked, queries: list[str], seconds: float, wait_until: Callable[..., Any]) -> None:
    left = list(queries)

    def none_is_left() -> bool:
        left[:] = [query for query in left if not asked.has_data(query)]
        return not left

    try:
        wait_until(none_is_left, seconds, "data")
    except AssertionError as error:
        raise AssertionError("these found no data:\n" + "\n".join(left)) from error
