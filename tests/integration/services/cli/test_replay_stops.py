"""Ctrl-C and SIGKILL in the middle of what reads or writes much of a log: run again, it goes on, to the same end."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic
from joblog.projections.replay.instants import Reached as ReachedInstants
from joblog.services.cli.app import app
from joblog.streams.archive.importing import _records as archived
from joblog.streams.archive.manifest import read_manifest
from joblog.streams.checkpoint import Checkpoint
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.scan import Ranges, TopicReader, reading
from joblog.streams.replay.asking import Reached as ReachedAsking
from msgspec import json
from typer.testing import CliRunner

from tests.support.projection_events import Story

pytestmark = [pytest.mark.broker]

LANES, JOBS, ROUND = 2, 2_000, 100
#: The command, which reads and writes in small portions so that it can be met in the middle.
COMMAND = """
import sys
from joblog.projections.replay import instants
from joblog.services.cli.app import main
from joblog.streams.archive import exporting, importing
from joblog.streams.kafka import scan
from joblog.streams.replay import asking

scan.BATCH, importing.BATCH = 100, 100
instants.RECORDS_MAX = asking.RECORDS_MAX = exporting.RECORDS_MAX = 500
sys.argv[0] = "joblog"
main()
"""
#: How long a command may take to end after Ctrl-C, on a machine that has much else to do.
ENDS_S = 30
POLL_S = 0.01


@pytest.fixture(scope="module")
def log(kafka: KafkaConfig, delete_topics: Callable[[list[str]], None]) -> Iterator[TopicNames]:
    """Jobs that succeed with their first retry, each with a continuation, many of them open at a time."""
    names = TopicNames(f"t-{secrets.token_hex(4)}.")
    client = clients.admin(kafka)
    (made,) = client.create_topics([NewTopic(names.events, num_partitions=LANES, replication_factor=1)]).values()
    made.result(30)
    writer = clients.producer(kafka, "test-stops")
    for first in range(1, JOBS, ROUND):
        stories = [two for n in range(first, first + ROUND) for two in family(n)]
        for number in range(max(len(story.values) for story in stories)):
            for story in stories:
                if number < len(story.values):
                    writer.produce(names.events, story.values[number], story.id, story.lane)
        writer.poll(0)
    assert writer.flush(60) == 0
    yield names
    delete_topics([names.events])


def family(number: int) -> list[Story]:
    """A parent and its continuation, in different lanes."""
    parent = Story(lane=number % LANES, random=2 * number, queue=f"q{number % 3}").enqueued().processing()
    due = parent.at
    parent.failed(traversed=True).scheduled(due, retry=1).enqueued(retry=1).processing().succeeded()
    spec = {"parent": {"job_id": parent.id, "on": "succeeded"}}
    child = Story(lane=(number + 1) % LANES, random=2 * number + 1, spec=spec).awaiting(parent.id)
    child.event("job.enqueued", "Enqueued", reason="Job ended").processing().succeeded()
    for story in (parent, child):
        story.values = [
            value.replace(b'"datacontenttype"', b'"causationid":"reports/0@1","datacontenttype"')
            for value in story.values
        ]
    return [parent, child]


class Commands:
    """Runs the command on the log."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames) -> None:
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("JOBLOG_")},
            "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "JOBLOG_TOPIC_PREFIX": names.prefix,
            "JOBLOG_LANES": str(LANES),
        }

    def interrupted(self, arguments: Sequence[str], number: signal.Signals, is_in_the_middle: Any) -> tuple[int, str]:
        """The exit code and what it said when it got this signal in the middle."""
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "replay", *arguments],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            while not is_in_the_middle():
                assert process.poll() is None, f"it ended before it was interrupted: {process.communicate()[1]}"
                time.sleep(POLL_S)
            process.send_signal(number)
            _, said = process.communicate(timeout=ENDS_S)
        finally:
            process.kill()
            process.wait()
        return process.returncode, said

    def finished(self, *arguments: str) -> list[Any]:
        """What it prints."""
        done = CliRunner().invoke(app, ["replay", *arguments, "--output", "json"], env=self.environment)
        assert done.exit_code == 0, (done.stderr, done.exception)
        return [json.decode(line) for line in done.stdout.splitlines()]


@pytest.fixture
def commands(kafka: KafkaConfig, log: TopicNames) -> Commands:
    return Commands(kafka, log)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where reading of the log has begun, in this process: the sum over the lanes."""
    found: list[int] = []
    read = TopicReader.read

    def noting(self: TopicReader, ranges: Ranges, *more: Any) -> Any:
        found.append(sum(one.start for one in ranges.values()))
        return read(self, ranges, *more)

    monkeypatch.setattr(TopicReader, "read", noting)
    return found


def test_the_past_goes_on_where_it_was(commands: Commands, starts: list[int], tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "instants", ReachedInstants)
    there = (tmp_path / "instants.checkpoint").exists
    at, diff = ["at", "--time", "-0s"], ["diff", "--from", "2026-11-23T15:00:00Z"]
    place = ["--directory", str(tmp_path)]
    for asked, number, code in ((at, signal.SIGINT, 130), (diff, signal.SIGKILL, -signal.SIGKILL)):
        whole = commands.finished(*asked)
        assert whole
        ended, said = commands.interrupted([*asked, *place], number, there)
        assert ended == code
        assert code < 0 or f"go on with the same command and --directory {tmp_path}" in said
        reached = checkpoint.read()
        assert reached is not None
        assert 0 < sum(reached.next.values()) < 11 * JOBS
        other = CliRunner().invoke(app, ["replay", "at", "--time", "-1h", *place], env=commands.environment)
        assert "another question" in str(other.exception)
        starts.clear()
        assert commands.finished(*asked, *place) == whole
        assert starts[0] > 0
        assert list(tmp_path.iterdir()) == []


def test_what_if_goes_on_where_it_was(commands: Commands, starts: list[int], tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "what-if", ReachedAsking)

    def far() -> int:
        reached = checkpoint.read()
        return 0 if reached is None else reached.done

    asked = ["what-if", "--retry", '{"attempts": 0}']
    (whole,) = commands.finished(*asked)
    assert (whole["continuations_of_changed"], whole["continuations_changed"]) == (JOBS, JOBS)
    place = [*asked, "--directory", str(tmp_path)]
    code, said = commands.interrupted(place, signal.SIGINT, (tmp_path / "what-if.checkpoint").exists)
    assert (code, f"go on with the same command and --directory {tmp_path}" in said) == (130, True)
    first, written = far(), written_at(tmp_path)
    assert commands.interrupted(place, signal.SIGKILL, lambda: written_at(tmp_path) > written)[0] == -signal.SIGKILL
    assert 0 < first < far() < 11 * JOBS
    starts.clear()
    assert commands.finished(*place) == [whole]
    assert starts[0] > 0
    assert list(tmp_path.iterdir()) == []


def written_at(directory: Path) -> int:
    """When the checkpoint was written."""
    return (directory / "what-if.checkpoint").stat().st_mtime_ns


def test_an_export_and_its_import_go_on_where_they_were(
    commands: Commands, kafka: KafkaConfig, log: TopicNames, starts: list[int], tmp_path: Path,
    delete_topics: Callable[[list[str]], None],
) -> None:  # fmt: skip
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    commands.finished("export", str(whole))

    def files() -> int:
        manifest = read_manifest(stopped)
        return 0 if manifest is None else len(manifest.files)

    code, said = commands.interrupted(["export", str(stopped)], signal.SIGINT, files)
    assert (code, f"go on with the same command, in {stopped}" in said) == (130, True)
    before = files()
    assert commands.interrupted(["export", str(stopped)], signal.SIGKILL, lambda: files() > before)[0] == -9
    assert files() < 11 * JOBS / 500
    starts.clear()
    commands.finished("export", str(stopped))
    assert starts[0] > 0
    assert records(stopped) == records(whole)

    copy = TopicNames(f"{log.prefix}copy.")
    into = ["import", str(stopped), "--into-prefix", copy.prefix]
    try:
        with reading(kafka, copy.events) as reader:
            code, said = commands.interrupted(into, signal.SIGINT, lambda: size(reader) > 0)
            assert (code, "go on with the same command" in said) == (130, True)
            done = size(reader)
            assert commands.interrupted(into, signal.SIGKILL, lambda: size(reader) > done)[0] == -9
        (report,) = commands.finished(*into)
        assert 0 < report["already_there"] < 11 * JOBS
        assert report["written"] == 11 * JOBS - report["already_there"]
        assert contents(kafka, copy) == contents(kafka, log)
    finally:
        delete_topics([copy.events])


def records(directory: Path) -> list[Any]:
    manifest = read_manifest(directory)
    assert manifest is not None
    assert manifest.complete
    return [list(archived(directory, manifest.of_lane(lane))) for lane in range(LANES)]


def size(reader: TopicReader) -> int:
    """How far the topic is; 0 while it is not there."""
    try:
        return sum(one.stop for one in reader.bounds(list(range(LANES))).values())
    except KafkaException as error:
        if error.args[0].code() not in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION}:
            raise
        return 0


def contents(kafka: KafkaConfig, names: TopicNames) -> list[Any]:
    with reading(kafka, names.events) as reader:
        bounds = reader.bounds(list(range(LANES)))
        found = [one for several in reader.read(bounds) for one in several]
    return [
        [(one.key(), one.value(), one.timestamp()[1]) for one in found if one.partition() == lane]
        for lane in range(LANES)
    ]
