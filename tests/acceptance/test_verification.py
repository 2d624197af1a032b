"""Verification beside real electors, workers and a projector at work: it finds nothing, while jobs move and after."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from joblog.projections.replay.verification import Report, Verification
from joblog.services.client.options import ContinueOn

pytestmark = [pytest.mark.broker, pytest.mark.database]
JOBS = 400


def verified(at: Any, directory: Path) -> Report:
    directory.mkdir()
    return Verification(at.kafka, at.names, at.lanes, directory, dsn=at.dsn, schema=at.schema).run()


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
