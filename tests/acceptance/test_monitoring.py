"""Every query of dashboards, rules and alerts on a real Prometheus, while all goes well."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from joblog.services.client.options import JobOptions
from joblog.services.detection.requests import create_topic
from joblog.services.monitoring.alerts import ALERTS
from joblog.services.monitoring.promql import names
from joblog.services.monitoring.records import RECORDS
from joblog.streams.kafka import clients
from joblog.streams.metrics import METRICS

from tests.support.outbox_world import outbox_of
from tests.support.prometheus import (
    NOT_HERE,
    ONLY_TROUBLE,
    PANEL_QUERIES,
    Asked,
    all_find_data,
    as_grafana_asks,
    needs_prometheus,
    prometheus_on,
)

pytestmark = [pytest.mark.broker, pytest.mark.database, needs_prometheus]

ROLES = ("projector", "elector-a", "delays", "worker-1", "worker-2", "recurring", "triggers", "outbox")
TRIGGERS = """
import os
from joblog.services import Job, trigger

@trigger(topic=os.environ["UPLOADS"])
def uploaded(event):
    return Job("ok", event.data["number"])
"""
EXPRESSIONS = {alert.name: alert.expr for alert in ALERTS}
WELL_S = 30


@pytest.fixture
def uploads(installation: Any, delete_topics: Callable[[list[str]], None]) -> Iterator[str]:
    """A topic of another service, whose events become jobs."""
    topic = f"{installation.names.prefix}uploads"
    create_topic(installation.kafka, topic)
    (installation.home / "acceptance_triggers.py").write_text(TRIGGERS)
    installation.extra |= {"UPLOADS": topic, "JOBLOG_TRIGGERS__MODULES": "acceptance_triggers"}
    yield topic
    delete_topics([topic])


@pytest.fixture
def asked(installation: Any, uploads: str, tmp_path: Path) -> Iterator[Asked]:
    outbox_of(installation).create()
    installation.extra["JOBLOG_OUTBOX__SCHEMA_NAME"] = installation.schema
    with prometheus_on(tmp_path, ROLES) as (asked, ports):
        for role in ROLES:
            installation.start(role, "--http-port", str(ports[role]))
        yield asked


@contextmanager
def jobs_that_keep_coming(installation: Any, uploads: str) -> Iterator[None]:
    """Jobs of all kinds, some every half second; one is always far ahead."""
    done = threading.Event()
    producer = clients.producer(installation.kafka, "test")

    def produce() -> None:
        world = outbox_of(installation)
        with installation.client() as client, world.connect(autocommit=True) as connection:
            outbox = world.outbox(connection)
            client.schedule("ok", 0, delay=timedelta(hours=1))
            client.recurring.add_or_update("every-second", "ok", timedelta(seconds=1), args=[2])
            while not done.wait(0.5):
                producer.produce(uploads, b'{"number": 3}')
                producer.poll(0)
                client.enqueue_many("ok", [((number,), {}) for number in range(5)])
                outbox.enqueue("ok", 4)
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
def test_all_queries_find_what_they_are_for(
    installation: Any, uploads: str, asked: Asked, wait_until: Callable[..., Any]
) -> None:
    wait_until(lambda: asked.has_data("sum(joblog_lanes) == 2 and sum(joblog_workers) == 2"), 60, "lanes and workers")
    well = [query for query in PANEL_QUERIES if not names(query) & (ONLY_TROUBLE | NOT_HERE)]
    assert len(well) > 60
    with jobs_that_keep_coming(installation, uploads):
        # A queue of which nobody takes the jobs, so that there is an oldest one.
        with installation.client() as client:
            client.enqueue("ok", 1, options=JobOptions(queue="nobody"))
            client.queues.pause("nobody", reason="nobody takes its jobs")
        all_find_data(asked, list(map(as_grafana_asks, well)), WELL_S, wait_until)
        all_find_data(asked, [record.expr for record in RECORDS], WELL_S, wait_until)
        all_find_data(asked, [record.name for record in RECORDS], WELL_S, wait_until)
        series = {name for expr in EXPRESSIONS.values() for name in names(expr)} - ONLY_TROUBLE
        all_find_data(asked, sorted(series), WELL_S, wait_until)

        groups = asked.get("rules")["groups"]
        loaded = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
        assert loaded.keys() == EXPRESSIONS.keys() | {record.name for record in RECORDS}
        assert set(loaded.values()) <= {"ok", "unknown"}
        for rule in (rule for group in groups for rule in group["rules"] if rule["type"] == "alerting"):
            address, _, anchor = rule["annotations"]["runbook_url"].partition("#")
            assert anchor == rule["name"].lower()
            assert f"## {rule['name']}\n" in Path(urlsplit(address).path).read_text()
        assert {row.name for row in METRICS} >= ONLY_TROUBLE
        assert [name for name in sorted(ONLY_TROUBLE) if asked.has_data(name)] == []
