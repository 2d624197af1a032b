"""The commands on an outbox, as an operator calls them."""

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from joblog.projections.database import DatabaseAway
from joblog.projections.outbox.rows import OutboxRows
from joblog.services.cli.app import app
from joblog.services.doctor.doctor import Level
from joblog.services.doctor.outbox import examine_outbox
from joblog.services.embedded.stack import StackAddresses
from joblog.services.outbox.outbox import Outbox
from joblog.services.settings.model import Settings
from joblog.streams.errors import JoblogError, SchemaError
from typer.testing import CliRunner

pytestmark = [pytest.mark.database]

Run = Callable[..., Any]


@pytest.fixture
def joblog(stack: StackAddresses, schema: str) -> Run:
    environment = {"JOBLOG_OUTBOX__DSN": stack.dsn, "JOBLOG_OUTBOX__SCHEMA_NAME": schema}

    def run(*arguments: str, **more: str) -> Any:
        result = CliRunner().invoke(app, ["outbox", *arguments], env=environment | more)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return run


def test_an_outbox_is_made_looked_at_and_its_parked_rows_put_back_or_deleted(
    joblog: Run, stack: StackAddresses, schema: str
) -> None:
    with pytest.raises(SchemaError, match=f"there is no outbox in schema {schema}.*joblog outbox create"):
        joblog("status")
    made = json.loads(joblog("create", "--output", "json").stdout)
    assert made == json.loads(joblog("create", "--output", "json").stdout)
    assert made["schema"] == schema
    with psycopg.connect(stack.dsn) as connection:
        settings = Settings(lanes=4, outbox={"schema_name": schema})
        jobs = Outbox(connection, settings).enqueue_many("x", [((n,), {}) for n in range(4)])
    with OutboxRows(stack.dsn, schema) as rows:
        ids = [row.id for row in rows.waiting(10)]
        for row_id in ids[:3]:
            rows.park(row_id, "too large")
    status = json.loads(joblog("status", "-o", "json").stdout)
    assert (status["waiting"], status["parked"], status["outbox"]) == (1, 3, made["outbox"])
    assert 0 < status["oldest_waiting_s"] < 60
    parked = [json.loads(line) for line in joblog("list", "-o", "json").stdout.splitlines()]
    assert [(row["id"], row["job_id"], row["reason"]) for row in parked] == [
        (row_id, job, "too large") for row_id, job in zip(ids[:3], jobs, strict=False)
    ]
    assert json.loads(parked[0]["value"])["id"] == jobs[0]
    assert jobs[0] in joblog("list").stdout
    settings = Settings(outbox={"dsn": stack.dsn, "schema_name": schema})
    assert [finding.level for finding in examine_outbox(settings)] == [Level.OK, Level.WARN]
    assert "1 rows are deleted" in joblog("discard", str(ids[0])).stderr
    with pytest.raises(JoblogError, match="1 of the rows are not parked"):
        joblog("retry", str(ids[0]))
    assert "2 rows wait again" in joblog("retry", "--all").stderr
    assert joblog("list").stdout == "none\n"
    with OutboxRows(stack.dsn, schema) as rows:
        assert [row.key for row in rows.waiting(10)] == [jobs[3], jobs[1], jobs[2]]


def test_the_statement_that_makes_an_outbox_can_be_printed(joblog: Run, stack: StackAddresses, schema: str) -> None:
    statement = joblog("create", "--print-sql").stdout
    with psycopg.connect(stack.dsn) as connection:
        connection.execute(statement)
    assert json.loads(joblog("status", "-o", "json").stdout)["waiting"] == 0


def test_a_database_that_is_away_is_reported_with_its_place(joblog: Run) -> None:
    with pytest.raises(DatabaseAway, match=r"does not answer at .*:1, database x"):
        joblog("status", JOBLOG_OUTBOX__DSN="postgresql://me:secret@127.0.0.1:1/x")
