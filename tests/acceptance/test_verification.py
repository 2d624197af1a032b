"""Verification beside real electors, workers and a projector at work: it finds nothing, while jobs move and after."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.replay.verification import orphans
from joblog.services.client.options import ContinueOn, JobOptions
from joblog.streams.contract.states import State
from joblog.streams.kafka import clients

from tests.support.verified import verified

pytestmark = [pytest.mark.broker, pytest.mark.database]
JOBS = 400


def test_nothing_is_found_while_jobs_move_and_afterwards(installation: Any, wait_until: Any, tmp_path: Path) -> None:
    for role in ("elector", "delays", "worker-1", "projector"):
        installation.start(role)
    with installation.client() as client:
        reports = []
        for number in range(JOBS):
            job = client.enqueue("ok", number)
            if number % 20 == 0:
                client.continue_with(job, "ok", number, on=ContinueOn.SUCCEEDED)
                client.schedule("ok", number, delay=timedelta(days=1))
                client.enqueue("flaky")
            if number % 100 == 50:
                reports.append(verified(installation, tmp_path / f"while-{number}"))
    assert [one.findings for one in reports] == [[]] * len(reports)
    wait_until(lambda: len(installation.runs()) >= JOBS + 2 * JOBS // 20, 60, "all runs")
    wait_until(lambda: not installation.differences(), 60, "Postgres to equal the log")
    last = verified(installation, tmp_path / "after")
    assert last.findings == []
    assert last.jobs == JOBS + 3 * JOBS // 20


def test_nothing_is_found_of_what_is_rare(
    installation: Any, wait_until: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters, revived jobs, jobs that wait, commands that are rejected, and some that cannot be read."""
    monkeypatch.setattr(orphans, "ANSWER_MS", 0)  # all answers are there when the tables are
    for role in ("elector", "delays", "worker-1", "projector"):
        installation.start(role)
    options = JobOptions(priority=3, parameters={"colour": "r\u00e4d", "n": 1.0, "big": 1e300})
    with installation.client() as client, Monitor(installation.dsn, installation.schema) as monitor:
        parent = client.schedule("ok", 1e2, delay=timedelta(days=1), options=options)
        for number in range(6):
            client.continue_with(parent, "ok", number, options=JobOptions(queue=f"q{number}"))
        client.set_parameter(parent, "colour", {"a": [1, None, True]})
        client.set_priority(parent, 9)
        for queue in ("q0", "q1", "q2"):
            client.queues.pause(queue, until=datetime.now(UTC) + timedelta(days=1), by="ann", reason="r\u00e4d")
        client.queues.drain("q1")
        client.queues.resume("q2")
        ended = client.enqueue("ok", 1.5, options=options)
        monitor.wait_for(ended, {State.SUCCEEDED}, timeout_s=60)
        snapshot = monitor.snapshot(ended)
        client.reschedule(ended, delay=timedelta(days=1), snapshot=snapshot)
        client.set_parameter(ended, "later", "x")
        client.delete("00000000-0000-8000-8000-000000000001")  # there is no such job
        writer = clients.producer(installation.kafka, "test-commands")
        for lane in range(installation.lanes):
            writer.produce(installation.names.commands, b"no command", b"key", lane)
        assert writer.flush(30) == 0
        waiting = {State.AWAITING: 6, State.SCHEDULED: 2}
        wait_until(lambda: rejected(installation) == installation.lanes + 1, 60, "the rejections")
        wait_until(lambda: counts(monitor) == waiting, 60, "the jobs that wait")
        wait_until(lambda: not installation.differences(), 60, "Postgres to equal the log")
        wait_until(lambda: monitor.job(ended).parameters.get("later") == "x", 60, "the parameter")
    report = verified(installation, tmp_path / "rare")
    assert report.findings == []
    assert (report.holds, report.jobs) == (True, 8)


def rejected(at: Any) -> int:
    with psycopg.connect(at.dsn, options=f"-c search_path={at.schema}") as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM rejected").fetchall()
    return int(count)


def counts(monitor: Monitor) -> dict[State, int]:
    found = monitor.statistics().counts
    return {state: found[state] for state in (State.AWAITING, State.SCHEDULED)}
