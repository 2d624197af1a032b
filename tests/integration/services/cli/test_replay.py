"""`joblog replay` as people call it, on a real log and database."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from joblog.services.cli.app import app
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.scan import reading
from typer.testing import CliRunner

from tests.support import projection_settings
from tests.support.projection_events import Story, worker_event
from tests.support.projection_settings import Setting
from tests.support.replay_world import ReplayWorld

dsn = projection_settings.dsn
setting = projection_settings.setting
writer = projection_settings.writer
pytestmark = [pytest.mark.broker, pytest.mark.database]


@pytest.fixture
def world(setting: Setting, writer: Producer, tmp_path: Path) -> ReplayWorld:
    return ReplayWorld(setting, writer, tmp_path)


@pytest.fixture
def call(setting: Setting) -> Callable[..., tuple[int, list[Any], str]]:
    def run(*arguments: str, **more: str) -> tuple[int, list[Any], str]:
        environment = {
            "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": setting.kafka.bootstrap_servers,
            "JOBLOG_POSTGRES__DSN": setting.dsn,
            "JOBLOG_POSTGRES__SCHEMA_NAME": setting.schema,
            "JOBLOG_TOPIC_PREFIX": setting.names.prefix,
            "JOBLOG_LANES": str(setting.lanes),
            **more,
        }
        result = CliRunner().invoke(app, ["replay", *arguments, "--output", "json"], env=environment)
        failed = result.exception is not None and not isinstance(result.exception, SystemExit)
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        return (2 if failed else result.exit_code), rows, result.stderr + str(result.exception or "")

    return run


def last_ms(world: ReplayWorld) -> int:
    """The broker's time of the last event."""
    with reading(world.setting.kafka, world.setting.names.events) as reader:
        found = [one for several in reader.read(reader.bounds(reader.partitions())) for one in several]
    return max(int(one.timestamp()[1]) for one in found)


def test_verify_exits_with_1_when_something_does_not_hold(world: ReplayWorld, call: Any) -> None:
    story = Story(lane=1, random=1).enqueued().processing()
    world.write((1, value) for value in story.values)
    world.apply()
    world.keep_state([story])
    code, (report,), _ = call("verify")
    assert (code, report["holds"], report["findings"], report["events"]) == (0, True, [], 2)
    with psycopg.connect(world.setting.dsn, options=f"-c search_path={world.setting.schema}") as connection:
        connection.execute("UPDATE jobs SET attempt = 9")
    code, (report,), _ = call("verify")
    assert (code, report["holds"], report["counts"]) == (1, False, {"job": 1})
    (finding,) = report["findings"]
    assert (finding["job"], finding["lane"], finding["kind"]) == (story.id, 1, "job")
    assert (finding["log"], finding["found"]) == ({"attempt": 1}, {"attempt": 9})
    assert call("verify", "--lane", "0")[0] == 0
    assert call("verify", "--lane", "7")[0] == 2


def test_the_past_is_read_from_the_log(world: ReplayWorld, call: Any) -> None:
    one = Story(lane=1, random=1, queue="photos").enqueued().processing()
    two = Story(lane=0, random=2).enqueued()
    world.write([(1, value) for value in one.values])
    world.write([(0, two.values[0]), (0, worker_event("worker.started"))])
    before_ms = last_ms(world)
    while time.time_ns() // 1_000_000 <= before_ms:
        time.sleep(0.001)
    one.succeeded({"n": 1})
    two.deleted(reason="no longer wanted")
    later = Story(lane=1, random=3, queue="photos").enqueued()
    caused = two.values[1].replace(b'"datacontenttype"', b'"causationid":"cli-7","datacontenttype"')
    world.write([(1, one.values[2]), (0, caused), (1, later.values[0])])
    before = datetime.fromtimestamp(before_ms / 1000, UTC).isoformat()

    code, rows, _ = call("history", two.id)
    assert code == 0
    told = [(row["version"], row["state"], row["cause"], row["position"]) for row in rows]
    topic = world.setting.names.events
    assert told == [(1, "Enqueued", None, f"{topic}/0@0"), (2, "Deleted", "cli-7", f"{topic}/0@2")]

    code, rows, error = call("at", "--time", before)
    assert code == 0, error
    assert {(row["queue"], row["state"]): row["jobs"] for row in rows} == {
        ("default", "Enqueued"): 1,
        ("photos", "Processing"): 1,
    }
    _, rows, _ = call("at", "--time", before, "--queue", "photos")
    assert rows == [{"queue": "photos", "state": "Processing", "jobs": 1}]
    _, (worker,), _ = call("at", "--time", before, "--workers")
    assert (worker["state"], worker["slots"]) == ("running", 4)
    _, (job,), _ = call("at", "--job", one.id, "--offset", "1")
    assert (job["state"], job["version"]) == ("Enqueued", 1)
    _, (job,), _ = call("at", "--job", one.id, "--time", "-0s")
    assert (job["state"], job["version"]) == ("Succeeded", 3)
    assert call("at", "--job", later.id, "--time", before)[0] == 2

    _, rows, _ = call("diff", "--from", before)
    moved = {(row["from"], row["to"]): row["jobs"] for row in rows if row["change"] == "jobs"}
    assert moved == {("Processing", "Succeeded"): 1, ("Enqueued", "Deleted"): 1, (None, "Enqueued"): 1}
    counters = {
        (row["queue"], row["to"]): (row["before"], row["after"]) for row in rows if row["change"] == "counter"
    }
    assert counters["photos", "Processing"] == (1, 0)
    assert counters["default", "Deleted"] == (0, 1)


def test_a_dry_run_says_which_part_of_the_log_would_be_read(world: ReplayWorld, call: Any) -> None:
    story = Story(lane=1, random=1).enqueued().processing()
    world.write((1, value) for value in story.values)
    topic, whole = world.setting.names.events, {"0": [0, 0], "1": [0, 2]}
    for command, ranges in (
        (("verify",), whole),
        (("verify", "--lane", "0"), {"0": [0, 0]}),
        (("history", story.id), {"1": [0, 2]}),
        (("at", "--time", "-0s"), whole),
        (("at", "--offset", "1", "--job", story.id), {"1": [0, 1]}),
        (("diff", "--from", "-1h"), whole),
        (("what-if", "--retry", '{"attempts": 1}'), whole),
    ):
        code, (said,), error = call(*command, "--dry-run")
        assert code == 0, error
        assert (said["topic"], said["ranges"]) == (topic, ranges), command
        assert said["offsets"] == sum(stop - start for start, stop in ranges.values())
        assert "nothing was read" in error


def test_a_copy_under_another_prefix_verifies_like_the_log(
    world: ReplayWorld, call: Any, tmp_path: Path, delete_topics: Callable[[list[str]], None]
) -> None:
    story = Story(lane=1, random=1).enqueued().processing().succeeded()
    world.write((1, value) for value in story.values)
    archive, prefix = str(tmp_path / "archive"), f"{world.setting.names.prefix}copy."
    assert call("export", archive, "--dry-run")[0] == 0
    assert not Path(archive).exists()
    _, (said,), _ = call("export", archive, "--gzip")
    assert (said["records"], said["files"]) == (3, 1)
    own = world.setting.names
    code, _, error = call("import", archive, "--into-prefix", own.prefix)
    assert code == 2
    assert f"{own.events} is a live topic" in error
    assert call("import", archive, "--into-live-topic", "joblog.event")[0] == 2
    assert call("import", archive)[0] == 2
    try:
        _, (said,), _ = call("import", archive, "--into-prefix", prefix)
        assert (said["records"], said["already_there"], said["written"]) == (3, 0, 3)
        _, (said,), _ = call("import", archive, "--into-prefix", prefix)
        assert (said["already_there"], said["written"]) == (3, 0)
        code, (report,), _ = call("verify", "--no-postgres", "--no-state", JOBLOG_TOPIC_PREFIX=prefix)
        assert (code, report["events"], report["jobs"]) == (0, 3, 1)
    finally:
        delete_topics([TopicNames(prefix).events])
