"""Each alert fires on a real Prometheus by real trouble, and that trouble fills the metrics that only trouble fills.

The rules are those of operation with shortened durations (`PACE`). All that takes its time goes on at once; what one
trouble would hide from another comes in stages.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import TopicPartition
from joblog.projections.outbox.rows import OutboxRows
from joblog.services.client.options import JobOptions
from joblog.services.detection.requests import create_topic
from joblog.services.monitoring.alerts import ALERTS
from joblog.services.monitoring.pace import Pace
from joblog.services.monitoring.promql import names
from joblog.streams.contract.ids import lane_of_queue
from joblog.streams.contract.recurring import Definition, record_key
from joblog.streams.kafka import clients
from joblog.streams.recurring.jobs import partition_of
from msgspec import json
from psycopg import sql

from tests.support.outbox_world import outbox_of
from tests.support.pausing import pause, resume
from tests.support.prometheus import (
    ONLY_TROUBLE,
    PANEL_QUERIES,
    all_find_data,
    as_grafana_asks,
    needs_prometheus,
    prometheus_on,
)
from tests.support.trouble import STAGE_S, Trouble, install_broken_filter

pytestmark = [pytest.mark.broker, pytest.mark.database, needs_prometheus]

PACE = Pace(times=300)
ROLES = ("projector", "elector-a", "delays", "worker-1", "worker-2", "worker-late", "recurring", "triggers", "outbox")
#: The lane that is to lose records, and which queues live there.
LOST_LANE = 0
LANE_OF = {"other": LOST_LANE, "default": 1, "busy": 1, "late": 1}
#: What each alert is about; all others have no label but those of Prometheus.
LABELS = {
    "JoblogWaitBudgetBurnsFast": {"queue": "late"},
    "JoblogWaitBudgetBurnsSlowly": {"queue": "late"},
    "JoblogOldestJobTooOld": {"queue": "late"},
    "JoblogFailureBudgetBurnsFast": {"queue": "default"},
    "JoblogFailureBudgetBurnsSlowly": {"queue": "default"},
    "JoblogQueueWithoutWorkers": {"queue": "late"},
    "JoblogTargetDown": {"job": "joblog-delays"},
    "JoblogLaneSetAside": {"reason": "log_lost"},
    "JoblogProducersRebuilt": {"role": "elector"},
    "JoblogStaleReports": {"type": "run.succeeded"},
    "JoblogDeadLetters": {"role": "elector", "reason": "undecodable"},
}
#: The alerts that no trouble of this test lets fire, and why.
NOT_PROVOKED = {
    "JoblogInternalErrors": "only an exception that nobody foresaw raises it, and none of them is known",
}
STARTS_S = 60
#: Runs that start later than this after they were ready are slow; see WAIT_S of the rules.
SLOW_S = 31

#: A module with a trigger that never comes to its first job.
TRIGGERS = """
import os, time
from joblog.services import trigger

@trigger(topic=os.environ["UPLOADS"])
def stuck(event):
    time.sleep(600)
"""
#: So many events are more than the alert lets pass.
EVENTS = 150


@pytest.fixture
def trouble(
    installation: Any, tmp_path: Path, wait_until: Callable[..., Any], delete_topics: Callable[[list[str]], None]
) -> Iterator[Trouble]:
    install_broken_filter(installation.home)
    (installation.home / "stuck.py").write_text(TRIGGERS)
    uploads = f"{installation.names.prefix}uploads"
    create_topic(installation.kafka, uploads)
    installation.extra |= {"UPLOADS": uploads, "JOBLOG_TRIGGERS__MODULES": "stuck"}
    installation.extra["JOBLOG_OUTBOX__SCHEMA_NAME"] = installation.schema
    outbox_of(installation).create()
    with prometheus_on(tmp_path, ROLES, PACE) as (asked, ports):
        yield Trouble(installation, asked, ports, wait_until, LABELS)
        installation.stop()
    delete_topics([uploads])


@pytest.mark.timeout(300)
def test_each_alert_fires_by_the_trouble_that_it_is_for(trouble: Trouble) -> None:
    started_well(trouble)
    due = occurrences_and_events_wait(trouble)
    waiting_since = jobs_that_nobody_takes(trouble)
    broken_records_and_jobs(trouble)
    workers_timers_and_tables_hang(trouble)
    stale_reports_and_late_timers(trouble)
    fenced_again_and_again(trouble)
    lanes_without_owner_and_set_aside(trouble)
    late_starts(trouble, waiting_since, due)
    only_trouble_fills_them(trouble)
    no_workers_no_projector(trouble)
    known = {alert.name for alert in ALERTS}
    assert NOT_PROVOKED.keys() | LABELS.keys() <= known
    assert {labels["alertname"] for labels in trouble.asked.fired(trouble.began)} == known - NOT_PROVOKED.keys()


def started_well(trouble: Trouble) -> None:
    assert {queue: lane_of_queue(queue, trouble.installation.lanes) for queue in LANE_OF} == LANE_OF
    for role in ("projector", "delays", "recurring", "triggers", "outbox"):
        trouble.start(role)
    trouble.start("elector-a")
    serves = ("--queues", "default")
    trouble.start("worker-1", *serves, JOBLOG_WORKER__SLOTS="16", JOBLOG_WORKER__PREFETCH="0")
    # This one does not know the electors' lease: it goes on when that has run out.
    trouble.start(
        "worker-2", *serves, JOBLOG_WORKER__SLOTS="32", JOBLOG_WORKER__PREFETCH="0", JOBLOG_ELECTOR__LEASE_S="60"
    )
    trouble.start("worker-late", "--queues", "busy", JOBLOG_WORKER__SLOTS="1")
    is_there = "sum(joblog_lanes) == 2 and sum(joblog_workers) == 3 and sum(up) == 9"
    trouble.wait_until(lambda: trouble.asked.has_data(is_there), STARTS_S, "lanes and workers")
    with trouble.client() as client:
        client.enqueue_many("ok", [((number,), {}) for number in range(50)])
        client.schedule("ok", 1, delay=timedelta(milliseconds=500))
    trouble.wait_until(
        lambda: trouble.asked.has_data("sum(joblog_jobs_ended_total) == 51"), STARTS_S, "the first jobs"
    )
    trouble.wait_until(lambda: trouble.asked.firing() == [], STARTS_S, "no alert to fire")
    trouble.began = time.time()


@contextmanager
def jobs_that_fail(trouble: Trouble) -> Iterator[None]:
    done = threading.Event()

    def produce() -> None:
        with trouble.client() as client:
            while not done.wait(0.2):
                client.enqueue_many("bad", [((), {})] * 3, options=JobOptions(priority=5))

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def occurrences_and_events_wait(trouble: Trouble) -> datetime:
    """A definition's zone is not known; the recurring process is killed; a trigger function hangs.

    Returns when the occurrences are due.
    """
    with trouble.client() as client:
        unknown = client.recurring.add_or_update("unknown", "ok", "@daily", args=[1])
        made = unknown.model_dump(mode="json", exclude_none=True) | {"zone": "Mars/Olympus_Mons"}
        trouble.installation.kill("recurring")
        soon = datetime.now(UTC) + timedelta(seconds=5)  # later than the definitions are written
        for number in range(5):
            client.recurring.add_or_update(f"late-{number}", "ok", timedelta(hours=1), anchor=soon, args=[1])
    producer = clients.producer(trouble.kafka, "test")
    partition = partition_of("unknown", trouble.installation.lanes)
    producer.produce(trouble.names.recurring, json.encode(made), record_key("unknown", Definition), partition)
    for number in range(EVENTS):
        producer.produce(f"{trouble.names.prefix}uploads", b'{"number": %d}' % number)
    assert producer.flush(10) == 0
    return soon


def jobs_that_nobody_takes(trouble: Trouble) -> float:
    """Returns since when they wait."""
    with trouble.client() as client:
        client.enqueue_many("slow", [((1,), {})] * 40, options=JobOptions(queue="late"))
        client.enqueue("filtered", options=JobOptions(queue="late"))
    return time.monotonic()


def broken_records_and_jobs(trouble: Trouble) -> None:
    """What is no command, a row that was written for other lanes, and jobs that fail."""
    with psycopg.connect(trouble.installation.dsn) as connection:
        replace(outbox_of(trouble.installation), lanes=9).outbox(connection).enqueue("ok", 1)
    producer = clients.producer(trouble.kafka, "test")
    producer.produce(trouble.names.commands, b"no command", b"key")
    assert producer.flush(10) == 0
    with jobs_that_fail(trouble):
        trouble.have_fired("JoblogDeadLetters", "JoblogFailureBudgetBurnsFast", "JoblogFailureBudgetBurnsSlowly")
        trouble.have_fired("JoblogQueueWithoutWorkers", "JoblogOldestJobTooOld", "JoblogOutboxParked")


def workers_timers_and_tables_hang(trouble: Trouble) -> None:
    """A worker, the delays process and a relay stand still, and Postgres lets nobody in."""
    roles = trouble.installation.roles
    with trouble.client() as client:
        client.enqueue("slow", 120, options=JobOptions(queue="busy"))
        client.enqueue_many("slow", [((6,), {})] * 48)
        trouble.wait_until(lambda: trouble.asked.has_data("sum(joblog_worker_slots_used) == 49"), STAGE_S, "runs")
        pause(roles["delays"])
        pause(roles["worker-2"])
        for _ in range(20):
            client.schedule("ok", 1, delay=timedelta(seconds=1), options=JobOptions(priority=9))
    with locked_tables(trouble.installation), relay_that_hangs(trouble):
        trouble.have_fired("JoblogTargetDown", "JoblogProjectionLate", "JoblogWorkersLost", "JoblogTimersMissing")
        trouble.have_fired("JoblogOutboxLate")


@contextmanager
def locked_tables(installation: Any) -> Iterator[None]:
    """Nobody else reads or writes the table that every transaction of the projector begins with."""
    table = sql.Identifier(installation.schema, "offsets")
    with psycopg.connect(installation.dsn) as connection:
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table))
        yield
        connection.rollback()


@contextmanager
def relay_that_hangs(trouble: Trouble) -> Iterator[None]:
    """A relay that has taken the outbox relays nothing, and another one stands by."""
    trouble.installation.kill("outbox")
    outbox = outbox_of(trouble.installation)
    with OutboxRows(outbox.dsn, outbox.schema) as rows, outbox.connect(autocommit=True) as connection:
        trouble.wait_until(rows.lock, STAGE_S, "the session of the killed relay to end")
        trouble.start("outbox")
        outbox.outbox(connection).enqueue("ok", 1)
        yield


def stale_reports_and_late_timers(trouble: Trouble) -> None:
    """They go on: the worker tells how the runs ended that others have by now. Then long runs take all slots."""
    resume(trouble.installation.roles["worker-2"])
    resume(trouble.installation.roles["delays"])
    with trouble.client() as client:
        client.enqueue_many("slow", [((120,), {})] * 48, options=JobOptions(priority=9))
    trouble.have_fired("JoblogStaleReports", "JoblogDelaysLate")


def fenced_again_and_again(trouble: Trouble) -> None:
    """Another client uses the elector's transactional id."""
    done = threading.Event()

    def fence() -> None:
        while not done.wait(1):
            clients.transactional_producer(trouble.kafka, f"{trouble.names.prefix}elector-a").init_transactions(10)

    thread = threading.Thread(target=fence)
    thread.start()
    try:
        trouble.have_fired("JoblogTransactionsFail", "JoblogFenced", "JoblogProducersRebuilt")
    finally:
        done.set()
        thread.join()


def lanes_without_owner_and_set_aside(trouble: Trouble) -> None:
    """The elector is killed; meanwhile one lane's next record is deleted."""
    trouble.installation.kill("elector-a")
    with trouble.client() as client:
        client.enqueue("ok", 1, options=JobOptions(queue="other"))
    commands = TopicPartition(trouble.names.commands, LOST_LANE)
    reader = clients.reader(trouble.kafka, "test")
    commands.offset = reader.get_watermark_offsets(commands, timeout=10)[1]
    reader.close()
    admin = clients.admin(trouble.kafka)
    [deleted] = admin.delete_records([commands]).values()
    deleted.result(30)
    trouble.have_fired("JoblogLaneWithoutOwner")
    trouble.start("elector-a")
    trouble.have_fired("JoblogLaneSetAside")


def late_starts(trouble: Trouble, from_s: float, due: datetime) -> None:
    """Another recurring process goes on, and a worker takes old jobs; one of its brokers is away."""
    trouble.have_fired("JoblogWorkersSaturated", "JoblogTriggersBehind")
    trouble.wait_until(lambda: time.monotonic() > from_s + SLOW_S, SLOW_S + 1, "the jobs to have waited")
    slow = due + timedelta(seconds=SLOW_S)
    trouble.wait_until(lambda: datetime.now(UTC) > slow, SLOW_S, "the occurrences to be late")
    trouble.start("recurring")
    trouble.installation.kill("worker-late")
    brokers = f"{trouble.kafka.bootstrap_servers},127.0.0.1:1"
    trouble.start(
        "worker-late",
        "--queues",
        "late",
        JOBLOG_KAFKA__BOOTSTRAP_SERVERS=brokers,
        JOBLOG_WORKER__SLOTS="4",
        JOBLOG_WORKER__PREFETCH="0",
    )
    trouble.have_fired("JoblogWaitBudgetBurnsFast", "JoblogWaitBudgetBurnsSlowly")
    trouble.have_fired("JoblogRecurringLate", "JoblogRecurringUnusable")


def only_trouble_fills_them(trouble: Trouble) -> None:
    queries = [query for query in PANEL_QUERIES if names(query) & ONLY_TROUBLE]
    assert {name for query in queries for name in names(query)} >= ONLY_TROUBLE
    all_find_data(trouble.asked, list(map(as_grafana_asks, queries)), STAGE_S, trouble.wait_until)


def no_workers_no_projector(trouble: Trouble) -> None:
    for role in ("worker-1", "worker-2", "worker-late"):
        trouble.installation.kill(role)
    trouble.have_fired("JoblogNoWorkers")
    trouble.installation.kill("projector")
    trouble.have_fired("JoblogProjectionUnknown")
