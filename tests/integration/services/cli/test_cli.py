import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import psycopg
import pytest
from joblog.projections.questions import InvalidQuestion
from joblog.projections.schema.schema import HEAD
from joblog.services.cli.app import app
from joblog.services.cli.commands.jobs import snapshot_of
from joblog.services.cli.context import fail
from joblog.services.embedded.stack import StackAddresses
from joblog.services.settings.model import Settings
from joblog.streams.contract import deadletters
from joblog.streams.contract.states import State
from joblog.streams.contract.topics import TOPICS, TopicNames
from joblog.streams.errors import InvalidData, JoblogError, ProjectionError, SchemaError, TopicsError
from joblog.streams.kafka.admin import create_topics
from joblog.streams.kafka.clients import KafkaConfig, producer
from psycopg import sql
from typer.testing import CliRunner

pytestmark = [pytest.mark.broker, pytest.mark.database]

TASKS = """
from joblog.services.tasks.task import task

@task("cli.add")
def add(a: int, b: int = 1) -> int:
    return a + b

@task("cli.fail")
def fail() -> None:
    raise ValueError("no luck")
"""
UNKNOWN = "01a20a16-c2e7-8001-bee9-22a0ed6af0b6"
Environment = dict[str, str]


class Joblog:
    """The command line with the settings of one installation."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    def __call__(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, arguments, env=self.environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.stdout

    def rows(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self(*arguments, "--output", "json", code=code).splitlines()]


def environment_of(stack: StackAddresses, prefix: str, schema: str) -> Environment:
    return {
        "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "JOBLOG_POSTGRES__DSN": stack.dsn,
        "JOBLOG_POSTGRES__SCHEMA_NAME": schema,
        "JOBLOG_TOPIC_PREFIX": prefix,
        "JOBLOG_LANES": "2",
        "JOBLOG_CLIENT__TIMEOUT_S": "10",
    }


@pytest.fixture
def joblog(stack: StackAddresses, prefix: str, schema: str) -> Joblog:
    """An installation in which nothing is prepared yet."""
    return Joblog(environment_of(stack, prefix, schema))


@pytest.fixture(scope="module")
def running(
    stack: StackAddresses,
    kafka: KafkaConfig,
    delete_topics: Callable[[list[str]], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Joblog]:
    """An installation in which all roles run, each a process."""
    mark, directory = secrets.token_hex(4), tmp_path_factory.mktemp("cli")
    names, schema = TopicNames(f"t-{mark}."), f"t_{mark}"
    create_topics(kafka, names, 2)
    (directory / "clitasks.py").write_text(TASKS)
    environment = environment_of(stack, names.prefix, schema)
    made = Joblog(environment)
    made("migrate")
    with ExitStack() as processes:
        for role in (["elector"], ["delays"], ["projector"], ["worker", "--tasks", "clitasks", "--slots", "2"]):
            processes.enter_context(role_process(role, environment, directory))
        yield made
    delete_topics([names.of(topic) for topic in TOPICS])
    with psycopg.connect(stack.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


class role_process:  # noqa: N801 - used like a function
    """A role as a process, from its readiness to its orderly end."""

    def __init__(self, arguments: list[str], environment: Environment, directory: Path) -> None:
        self.arguments = arguments
        self.log = directory / f"{arguments[0]}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "joblog.services.cli", *arguments],
                env={**os.environ, **environment},
                cwd=directory,
                stderr=log,
            )
        self.url = ""

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 60
        while not (self.url and self.is_ready()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            found = re.search(r"http://127\.0\.0\.1:\d+", self.log.read_text())
            self.url = found[0] if found else ""
            time.sleep(0.05)
        return self

    def is_ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/readyz", timeout=5):  # noqa: S310 - our own process
                return True
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(60) == 0, self.log.read_text()
        finally:
            self.process.kill()
            self.process.wait()


def test_a_new_installation_is_prepared_step_by_step_and_the_doctor_says_how(
    joblog: Joblog, wait_until: Callable[..., Any]
) -> None:
    def complaints() -> dict[str, str]:
        return {row["check"]: row["fix"] for row in joblog.rows("doctor", code=1) if row["level"] == "fail"}

    # A busy broker may be late with an answer, which the doctor says, too.
    wait_until(
        lambda: complaints() == {"topics": "joblog topics create", "schema": "joblog migrate"},
        60,
        "the doctor to say just that",
    )
    assert "-> joblog topics create\n" in joblog("doctor", code=1)
    with pytest.raises(TopicsError):
        joblog("enqueue", "cli.add")
    with pytest.raises(SchemaError):
        joblog("job", "list")
    joblog("topics", "create")
    assert len(joblog.rows("topics", "create")) == len(TOPICS)
    assert [row["before"] for row in joblog.rows("migrate") + joblog.rows("migrate")] == [None, HEAD]
    # A busy broker may be late with an answer, which the doctor says, too.
    wait_until(
        lambda: complaints() == {"electors": "joblog elector", "delays": "joblog delays"},
        60,
        "the doctor to say just that",
    )
    job_id = joblog("enqueue", "cli.add", "1").strip()
    assert joblog("job", "list") == joblog("job", "list", "--state", "Failed")
    with pytest.raises(Exception, match=job_id):
        joblog("job", "show", job_id)


def test_the_doctor_sees_lanes_that_do_not_fit(joblog: Joblog) -> None:
    joblog("topics", "create")
    joblog.environment["JOBLOG_LANES"] = "3"
    found = {row["check"]: row for row in joblog.rows("doctor", code=1)}
    assert found["partitions"]["level"] == "fail"
    assert "have 2 partitions, not 3" in found["partitions"]["finding"]
    assert found["partitions"]["fix"].startswith("set JOBLOG_LANES=2")
    assert "Kafka" not in found, "no check of Kafka broke off"


def test_the_doctor_sees_that_no_one_answers(joblog: Joblog) -> None:
    joblog.environment["JOBLOG_KAFKA__BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    joblog.environment["JOBLOG_POSTGRES__DSN"] = "postgresql://127.0.0.1:1/x"
    failed = [row["check"] for row in joblog.rows("doctor", code=1) if row["level"] == "fail"]
    assert failed == ["brokers", "Postgres"]


def test_a_projection_that_is_away_is_an_error_of_one_line(joblog: Joblog) -> None:
    joblog.environment["JOBLOG_POSTGRES__DSN"] = "postgresql://127.0.0.1:1/x"
    with pytest.raises(ProjectionError):
        joblog("stats")


def test_dead_letters_are_listed_newest_first(joblog: Joblog, kafka: KafkaConfig, names: TopicNames) -> None:
    joblog("topics", "create")
    assert joblog.rows("deadletters", "list") == []
    sender = producer(kafka, "test")
    for n in range(3):
        headers = deadletters.headers("undecodable", f"reason {n}", "elector", names.commands, 1, n)
        sender.produce(names.deadletters, f"value {n}".encode(), b"key", headers=headers)
        assert sender.flush(30) == 0
    with pytest.raises(JoblogError, match="there is no dead letter 0:17"):
        joblog("deadletters", "show", "0:17")
    with pytest.raises(JoblogError, match="there is no dead letter 99999:0"):
        joblog("deadletters", "show", "99999:0")
    rows = joblog.rows("deadletters", "list", "--limit", "2")
    assert [row["value"] for row in rows] == ["value 2", "value 1"]
    assert {name: rows[0][name] for name in ("key", "code", "reason", "role", "topic", "partition", "offset")} == {
        "key": "key",
        "code": "undecodable",
        "reason": "reason 2",
        "role": "elector",
        "topic": names.commands,
        "partition": 1,
        "offset": 2,
    }
    table = joblog("deadletters", "list")
    assert "reason 2" in table
    assert "value 2" not in table


def test_one_dead_letter_is_shown_safely_and_saved_as_it_came(
    joblog: Joblog, kafka: KafkaConfig, names: TopicNames, tmp_path: Path
) -> None:
    joblog("topics", "create")
    sender = producer(kafka, "test")
    values = [b"\x1b[2Jred\n", b"\xff\x00\xfe", b"x" * 3_000, None]
    for n, value in enumerate(values):
        headers = deadletters.headers("undecodable", f"reason {n}", "elector", names.commands, 1, n, [("own", b"h")])
        sender.produce(names.deadletters, value, b"key", 0, headers=headers)
    assert sender.flush(30) == 0
    ids = [row["id"] for row in reversed(joblog.rows("deadletters", "list"))]
    escape, binary, long = (joblog("deadletters", "show", one) for one in ids[:3])
    assert "\nvalue\n\N{REPLACEMENT CHARACTER}[2Jred\n" in escape
    assert '"own"' in escape
    assert "\nvalue, in base64\n/wD+\n" in binary
    assert "x" * 2_000 in long
    assert "x" * 2_001 not in long
    (whole,) = joblog.rows("deadletters", "show", ids[2])
    assert (whole["value"], whole["value_bytes"], whole["headers"]) == (
        "x" * 3_000,
        3_000,
        [{"name": "own", "value": "h"}],
    )
    (nothing,) = joblog.rows("deadletters", "show", ids[3])
    assert (nothing["value"], nothing["value_bytes"]) == (None, None)
    joblog("deadletters", "show", ids[1], "--save", str(tmp_path / "saved"))
    assert (tmp_path / "saved").read_bytes() == values[1]
    with pytest.raises(InvalidData, match="exists already"):
        joblog("deadletters", "show", ids[1], "--save", str(tmp_path / "saved"))
    with pytest.raises(InvalidData, match="write PARTITION:OFFSET"):
        joblog("deadletters", "show", "nonsense")


def test_a_job_is_created_runs_and_is_shown(running: Joblog) -> None:
    (job,) = running.rows(
        "enqueue", "cli.add", "3", "--kwargs", '{"b": 4}', "--parameter", "tenant=7", "--wait", "60s"
    )
    assert (job["state"], job["result"], job["parameters"]) == ("Succeeded", 7, {"tenant": 7})
    (shown,) = running.rows("job", "show", job["id"])
    assert shown == job
    assert [entry["state"] for entry in shown["history"]] == ["Succeeded", "Processing", "Enqueued"]
    table = running("job", "show", job["id"])
    assert job["id"] in table
    assert "Processing" in table
    assert job["id"] in [
        row["id"] for row in running.rows("job", "list", "--state", "Succeeded", "--task", "cli.add")
    ]


def test_a_job_that_fails_makes_the_command_fail(running: Joblog) -> None:
    (job,) = running.rows("enqueue", "cli.fail", "--attempts", "0", "--wait", "60s", code=1)
    assert (job["state"], job["exception"]["message"]) == ("Failed", "no luck")
    table = running("job", "show", job["id"])
    assert "\nexception    ValueError: no luck\n" in table
    assert "\ntraceback\nTraceback (most recent call last):\n" in table
    assert table.count("Traceback") == 1


def test_an_ended_job_is_requeued_from_its_snapshot(running: Joblog, wait_until: Callable[..., Any]) -> None:
    (job,) = running.rows("enqueue", "cli.add", "1", "--wait", "60s")
    running("job", "requeue", job["id"], "--reason", "once more")

    def again() -> Any:
        (shown,) = running.rows("job", "show", job["id"])
        return shown if shown["state"] == "Succeeded" and shown["version"] > job["version"] else None

    shown = wait_until(again, 60, "its second run")
    assert (shown["attempt"], shown["result"]) == (2, 2)
    assert "once more" in [entry["reason"] for entry in shown["history"]]


def test_a_scheduled_job_is_moved_and_deleted(running: Joblog, wait_until: Callable[..., Any]) -> None:
    job_id = running("enqueue", "cli.add", "1", "--delay", "1h").strip()
    state = lambda: [row["state"] for row in running.rows("job", "list", "--search", job_id)]  # noqa: E731
    wait_until(lambda: state() == ["Scheduled"], 60, "the schedule")
    running("job", "reschedule", job_id, "--at", "2099-01-01T00:00:00Z")
    wait_until(lambda: running.rows("job", "show", job_id)[0]["due"] == "2099-01-01T00:00:00Z", 60, "the move")
    running("job", "delete", job_id, "--reason", "no longer wanted")
    wait_until(lambda: state() == ["Deleted"], 60, "the end")


def test_a_failed_job_is_deleted_by_what_postgres_knows_of_it(
    running: Joblog, wait_until: Callable[..., Any]
) -> None:
    (job,) = running.rows("enqueue", "cli.fail", "--attempts", "0", "--wait", "60s", code=1)
    settings = Settings.load(
        postgres={
            "dsn": running.environment["JOBLOG_POSTGRES__DSN"],
            "schema_name": running.environment["JOBLOG_POSTGRES__SCHEMA_NAME"],
        }
    )
    snapshot = snapshot_of(settings, job["id"], {State.FAILED})
    assert snapshot is not None
    assert snapshot["version"] == job["version"]
    assert running.rows("job", "delete", job["id"]) == [{"command": "job.delete", "job_id": job["id"]}]
    wait_until(lambda: running.rows("job", "show", job["id"])[0]["state"] == "Deleted", 60, "the end")
    assert snapshot_of(settings, job["id"], {State.FAILED}) is None


def test_a_queue_that_nobody_serves_is_told(running: Joblog) -> None:
    result = CliRunner().invoke(
        app, ["enqueue", "cli.add", "1", "--queue", "nobody", "-o", "json"], env=running.environment
    )
    assert list(json.loads(result.stdout)) == ["id"]
    assert result.stderr == (
        "note: the job waits: no running worker serves the queue nobody; "
        "those that know cli.add serve default (--queue)\n"
    )
    with pytest.raises(JoblogError, match="it is Enqueued, no running worker serves the queue nobody"):
        running("enqueue", "cli.add", "1", "--queue", "nobody", "--wait", "2s")
    with pytest.raises(JoblogError, match="it is Scheduled, due at 2"):
        running("enqueue", "cli.add", "1", "--delay", "1h", "--wait", "2s")


def test_a_command_that_cannot_be_done_is_listed(running: Joblog, wait_until: Callable[..., Any]) -> None:
    running("job", "delete", UNKNOWN)
    rows = wait_until(
        lambda: [row for row in running.rows("rejected", "list") if row["job_id"] == UNKNOWN], 60, "the rejection"
    )
    assert (rows[0]["command"], rows[0]["code"]) == ("job.delete", "unknown_job")
    with pytest.raises(JoblogError, match=r"job\.delete for it was rejected at 2"):
        running("job", "show", UNKNOWN)


def test_what_runs_is_watched(running: Joblog) -> None:
    running("enqueue", "cli.add", "1", "--wait", "60s")
    (worker,) = running.rows("workers")
    assert (worker["state"], worker["slots"], worker["tasks"]) == ("running", 2, ["cli.add", "cli.fail"])
    queue = next(row for row in running.rows("queue", "list") if row["name"] == "default")
    assert (queue["name"], queue["workers"]) == ("default", 1)
    assert queue["counts"]["Succeeded"] >= 1
    (statistics,) = running.rows("stats")
    assert statistics["counts"]["Succeeded"] == queue["counts"]["Succeeded"]
    assert running.rows("parked", "list") == []
    for command in (["workers"], ["queue", "list"], ["stats"], ["rejected", "list"], ["parked", "list"]):
        assert running(*command)


def test_how_long_workers_are_gone_has_no_limit(running: Joblog) -> None:
    assert running.rows("workers", "--gone-within", "99999999d") == running.rows("workers")


def test_what_is_no_job_id_is_a_mistake_of_input(running: Joblog) -> None:
    with pytest.raises(InvalidQuestion) as told:
        running("job", "show", "nonsense")
    assert fail(told.value) == 2


def test_the_doctor_finds_a_running_installation_well(running: Joblog) -> None:
    running("enqueue", "cli.add", "1", "--wait", "60s")
    found = running.rows("doctor")
    levels = {row["check"]: row["level"] for row in found}
    for check in ("brokers", "topics", "topic settings", "electors", "delays", "Postgres", "schema", "workers"):
        assert levels[check] == "ok", found
    said = {row["check"]: row["finding"] for row in found if row["level"] == "ok"}
    assert said["workers"] == "1 running, 2 slots, queues: default"
    assert re.fullmatch(r"none|at most \d+ records \(ends of transactions count\)", said["electors lag"])


def test_a_long_list_goes_on_where_it_ended(running: Joblog) -> None:
    for _ in range(3):
        running("enqueue", "cli.add", "1", "--wait", "60s")
    result = CliRunner().invoke(app, ["job", "list", "--limit", "2", "-o", "json"], env=running.environment)
    first = [json.loads(line)["id"] for line in result.stdout.splitlines()]
    cursor = re.search(r"--cursor (\S+)", result.stderr)
    assert cursor is not None
    following = [row["id"] for row in running.rows("job", "list", "--limit", "2", "--cursor", cursor[1])]
    assert len(first) == 2
    assert following
    assert not set(first) & set(following)


def test_the_rows_of_ended_jobs_expire_and_what_can_still_be_done_is_told(
    running: Joblog, wait_until: Callable[..., Any]
) -> None:
    (job,) = running.rows("enqueue", "cli.add", "1", "--wait", "60s")
    short = Joblog({**running.environment, "JOBLOG_EXPIRY__TASKS": '{"cli.add": {"succeeded": "0s"}}'})
    assert running.rows("expire", "--dry-run") == []

    def said() -> list[dict[str, Any]]:
        """What would go, as soon as the tables hold the log up to the present."""
        return short.rows("expire", "--dry-run")

    rows = wait_until(said, 30, "a row that has expired")
    assert ("Succeeded", "default", "cli.add") in {(row["state"], row["queue"], row["task"]) for row in rows}
    wait_until(
        lambda: (
            short.rows("expire")[0] and not running.rows("job", "list", "--task", "cli.add", "--state", "Succeeded")
        ),
        30,
        "the rows to go",
    )
    with pytest.raises(JoblogError, match=f"its row has expired.*`joblog replay history {job['id']}`"):
        running("job", "show", job["id"])
    assert [one["state"] for one in running.rows("replay", "history", job["id"])][-1] == "Succeeded"
    result = CliRunner().invoke(app, ["job", "requeue", job["id"]], env=running.environment)
    assert "its row has expired, and this command will be rejected" in result.stderr
    wait_until(lambda: job["id"] in {one["job_id"] for one in running.rows("rejected", "list")}, 30, "the rejection")
    running("replay", "verify")  # exit code 0: the tables are what they should be
