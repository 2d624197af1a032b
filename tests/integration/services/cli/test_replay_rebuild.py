"""`joblog replay rebuild` as a user calls it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer
from joblog.projections.replay.rebuild.place import Place
from joblog.projections.replay.rebuild.rebuild import NEAR_S
from joblog.projections.replay.rebuild.schemas import connected, found
from joblog.projections.schema import schema as schema_steps
from joblog.services.cli import progress
from joblog.services.cli.app import app
from joblog.streams.errors import InvalidData
from typer.testing import CliRunner

from tests.support import projection_settings
from tests.support.projection_settings import Setting, WaitUntil, interleaved, jobs, running, write

# The fixtures that this module uses.
dsn = projection_settings.dsn
setting = projection_settings.setting
writer = projection_settings.writer
pytestmark = [pytest.mark.broker, pytest.mark.database]

Run = Callable[..., Any]
JOBS = 2_000


@pytest.fixture
def lanes() -> int:
    return 2


@pytest.fixture
def place(setting: Setting, writer: Producer, wait_until: WaitUntil) -> Any:
    """An installation whose tables are up to date."""
    write(writer, setting.names, interleaved(jobs(JOBS, setting.lanes)))
    with running(setting.projector()):
        wait_until(lambda: setting.applied() == JOBS * 3, 30, "the live tables")
    made = Place(setting.kafka, setting.names, setting.lanes, setting.dsn, setting.schema)
    yield made
    for name in (made.schemas.new, made.schemas.old):
        schema_steps.drop(setting.dsn, name)


@pytest.fixture
def environment(place: Place) -> dict[str, str]:
    return {
        "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": place.kafka.bootstrap_servers,
        "JOBLOG_POSTGRES__DSN": place.dsn,
        "JOBLOG_POSTGRES__SCHEMA_NAME": place.schema,
        "JOBLOG_TOPIC_PREFIX": place.names.prefix,
        "JOBLOG_LANES": str(place.lanes),
        # The events are old, and their rows are to stay.
        **{f"JOBLOG_EXPIRY__{state}": "off" for state in ("SUCCEEDED", "DELETED", "FAILED")},
    }


@pytest.fixture
def command(environment: dict[str, str]) -> Run:
    """Runs the command, and gives the documents that it prints, and what it says on stderr."""

    def run(*arguments: str) -> tuple[list[dict[str, Any]], str]:
        result = CliRunner().invoke(app, ["replay", "rebuild", *arguments, "--output", "json"], env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()], result.stderr

    return run


def test_from_the_plan_to_the_end_of_the_old_tables(
    command: Run, place: Place, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    [plan], _ = command("--dry-run")
    assert (plan["records"], plan["done"], plan["new_schema"]) == (JOBS * 3, 0, place.schemas.new)
    assert plan["live_bytes"] > 100_000
    assert plan["estimate_s"] > 0
    assert roles(command) == {place.schema: "live"}
    [done], said = command()
    assert (done["records"], done["applied"], done["verified"]) == (JOBS * 3, JOBS * 3, True)
    assert (done["live"], done["kept"]) == (place.schema, place.schemas.old)
    steps = [json.loads(line) for line in said.splitlines()]
    assert list(dict.fromkeys(one["step"] for one in steps)) == [
        "filling",
        "expiring",
        "verifying: reading the log",
        "swapping",
    ]
    assert max(one["done"] for one in steps) == JOBS * 3
    assert roles(command) == {place.schema: "live", place.schemas.old: "old"}
    [back], _ = command("--rollback")
    assert (back["live"], back["kept"]) == (place.schema, place.schemas.old)
    assert command("--drop-old")[0] == [{"dropped": place.schemas.old}]
    assert command("--drop-old")[0] == [{"dropped": None}]
    assert roles(command) == {place.schema: "live"}
    assert setting.differences() == []


def roles(command: Run) -> dict[str, str]:
    return {row["schema"]: row["role"] for row in command("--status")[0]}


def test_ctrl_c_stops_it_and_the_same_command_goes_on(
    command: Run, environment: dict[str, str], place: Place, setting: Setting, wait_until: WaitUntil
) -> None:
    written = time.monotonic()  # before that, in truth
    # What was written a moment ago would not be filled in at that rate, but caught up with at once.
    wait_until(lambda: time.monotonic() - written > NEAR_S, 30, "the events to be old enough")
    process = subprocess.Popen(
        [sys.executable, "-m", "joblog.services.cli", "replay", "rebuild", "--max-rate", "600"],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        wait_until(lambda: done_of(place) > 0, 60, "progress")
        # As a terminal does it: to the command, and to the processes that it has started.
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert b"the same command goes on from here" in said
    assert b"Traceback" not in said
    [plan], _ = command("--dry-run")
    assert 0 < plan["done"] < plan["records"]
    assert roles(command) == {place.schema: "live", place.schemas.new: "new"}
    [done], _ = command()
    assert done["applied"] == JOBS * 3 - plan["done"]
    assert setting.differences() == []


def done_of(place: Place) -> int:
    """How much the new tables hold."""
    with connected(place.dsn, place.schema) as connection:
        if place.schemas.new not in found(connection, place.schemas):
            return 0
        row = connection.execute(f"SELECT coalesce(sum(next_offset), 0) FROM {place.schemas.new}.offsets").fetchone()  # type: ignore[arg-type]  # noqa: S608
        return int(row[0]) if row else 0


def test_two_things_at_once_are_refused(command: Run) -> None:
    with pytest.raises(InvalidData, match="give one of --dry-run and --rollback"):
        command("--dry-run", "--rollback")
