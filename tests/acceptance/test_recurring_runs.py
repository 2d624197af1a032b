"""The history of runs, from a real recurring process to the table and back: rebuilt, verified, and shown."""

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from joblog.projections.schema import schema as tables
from joblog.services.cli.app import app
from joblog.services.testing import InMemoryJoblog
from msgspec import json
from typer.testing import CliRunner

pytestmark = [pytest.mark.broker, pytest.mark.database]

ROLES = ("elector", "worker-1", "projector", "recurring")
ID = "every-second"
NOBODY = "postgresql://joblog:none@127.0.0.1:1/joblog"


@pytest.fixture
def joblog(installation: Any) -> Any:
    """The command line: its documents, and what it says on stderr."""
    environment = {name: value for name, value in installation.environment().items() if name.startswith("JOBLOG_")}

    def call(*arguments: str, code: int = 0, **more: str) -> tuple[list[Any], str]:
        result = CliRunner().invoke(app, [*arguments, "--output", "json"], env=environment | more)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return [json.decode(line) for line in result.stdout.splitlines()], result.stderr

    return call


def test_runs_are_what_the_log_says_also_after_a_rebuild(
    installation: Any, joblog: Any, wait_until: Any, schema: str
) -> None:
    for role in ROLES:
        installation.start(role)
    with installation.client() as client:
        client.recurring.add_or_update(ID, "ok", timedelta(seconds=1), args=(1,))
        wait_until(lambda: len(joblog("recurring", "runs", ID)[0]) >= 3, 40, "the first runs")
        wait_until(lambda: left_out(client), 20, "an occurrence that is skipped")
        by_hand = client.recurring.trigger_now(ID)
        client.recurring.pause(ID)
    ended = lambda: {run["state"] for run in joblog("recurring", "runs", ID)[0]} == {"Succeeded"}  # noqa: E731
    wait_until(lambda: ended() and not installation.differences(), 30, "the end of all runs")

    runs, _ = joblog("recurring", "runs", ID)
    log = installation.events()
    created = {job: events[0]["data"]["spec"]["parameters"] for job, events in log.items()}
    told = {run["job_id"]: (time_of(run["occurrence"]), run["cause"]) for run in runs}
    assert told == {job: (time_of(one["Time"]), one["Cause"]) for job, one in created.items()}
    assert told[by_hand][1] == "trigger"
    assert "schedule" in {cause for _, cause in told.values()}
    assert [run["occurrence"] for run in runs] == sorted((run["occurrence"] for run in runs), reverse=True)
    assert simulated(log, by_hand) == {job: one["Time"] for job, one in created.items() if job != by_hand}
    for run in runs:
        processing = [event for event in log[run["job_id"]] if event["type"] == "job.processing"]
        assert time_of(run["started_at"]) == time_of(processing[-1]["time"])
        assert (run["attempt"], run["error"]) == (1, None)
        assert run["duration_ms"] >= 0

    [listed], _ = joblog("recurring", "list")
    assert listed["last_state"] == "Succeeded"
    [shown], _ = joblog("recurring", "show", ID)
    assert (shown["last_state"], shown["runs"]) == ("Succeeded", {"Succeeded": len(runs)})
    assert "skip_next" in {one["reason"] for one in shown["skipped"]}

    [report], _ = joblog("replay", "verify")
    assert (report["holds"], report["findings"]) == (True, [])
    joblog("replay", "rebuild")
    try:
        assert joblog("recurring", "runs", ID)[0] == runs
        with psycopg.connect(installation.dsn, options=f"-c search_path={schema}") as connection:
            connection.execute("DELETE FROM jobs WHERE id = %s", [by_hand])
        [report], _ = joblog("replay", "verify", code=1)
        assert by_hand in str(report["findings"])
    finally:
        tables.drop(installation.dsn, f"{schema}_old")

    away = {"JOBLOG_POSTGRES__DSN": NOBODY}
    for rows, said in (joblog("recurring", "list", **away), joblog("recurring", "show", ID, **away)):
        assert (rows[0]["id"], rows[0]["last_job_id"], rows[0]["last_state"]) == (ID, listed["last_job_id"], None)
        assert "the states of jobs are not known, as Postgres was not read" in said
        assert "127.0.0.1:1" in said
        assert "none@" not in said
    [edited], said = joblog("recurring", "edit", ID, "--every", "2s", **away)
    assert (edited["version"], said) == (2, "")


time_of = datetime.fromisoformat


def simulated(log: dict[str, Any], by_hand: str) -> dict[str, str]:
    """The occurrences of the same jobs, by their ids, as Joblog in memory creates them from the same definition."""
    wanted = sorted(events[0]["data"]["spec"]["parameters"]["Time"] for job, events in log.items() if job != by_hand)
    with InMemoryJoblog(lanes=2, now=time_of(wanted[0]) - timedelta(milliseconds=500)) as joblog:
        joblog.recurring.add_or_update(ID, "ok", timedelta(seconds=1), args=(1,))
        joblog.advance(time_of(wanted[-1]) - joblog.now)
        return {job.id: job.parameters["Time"] for job in joblog.jobs() if job.parameters["Time"] in wanted}


def left_out(client: Any) -> bool:
    """Ask for it until it comes: the next occurrence may be there already when the record is."""
    progress = client.recurring.get(ID).progress
    if progress is not None and "skip_next" in {one.reason for one in progress.skipped}:
        return True
    client.recurring.skip_next(ID)
    return False
