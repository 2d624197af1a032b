"""What `joblog replay` does, called from a program; redrive, undo and what-if are called in tests/acceptance."""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from confluent_kafka import Producer
from joblog.services import replay
from joblog.services.cli.app import app
from joblog.services.cli.commands.replay.app import app as commands
from joblog.services.replay.archives import Part, export_events, import_events
from joblog.services.replay.past import at, diff, history, job_at
from joblog.services.settings.model import Settings
from joblog.streams.archive.manifest import Filters
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import InvalidData
from joblog.streams.progress import Stopped
from msgspec import json
from typer.testing import CliRunner

from tests.support import projection_settings
from tests.support.projection_events import Story
from tests.support.projection_settings import Setting
from tests.support.replay_world import ReplayWorld

dsn = projection_settings.dsn
setting = projection_settings.setting
writer = projection_settings.writer
pytestmark = [pytest.mark.broker, pytest.mark.database]

LANES = 2


@pytest.fixture
def settings(setting: Setting) -> Settings:
    return Settings(
        kafka={"bootstrap_servers": setting.kafka.bootstrap_servers},
        topic_prefix=setting.names.prefix,
        lanes=setting.lanes,
    )


def test_the_past_can_be_called(
    setting: Setting, writer: Producer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = ReplayWorld(setting, writer, tmp_path)
    story = Story(lane=1, random=1).enqueued().processing()
    other = Story(lane=0, random=2, queue="photos").enqueued().succeeded()
    world.write([(1, value) for value in story.values] + [(0, value) for value in other.values])
    assert [event["state"] for event in history(settings, story.id)] == ["Enqueued", "Processing"]
    assert job_at(settings, story.id, "1")["state"] == "Enqueued"
    now = {("default", "Processing"): 1, ("photos", "Succeeded"): 1}
    assert at(settings, "-0s").counts == now
    assert at(settings, "1", lanes=[1]).counts == {("default", "Enqueued"): 1}
    assert diff(settings, "-1d").moves == {(None, "Processing"): 1, (None, "Succeeded"): 1}

    monkeypatch.setattr("joblog.streams.kafka.scan.BATCH", 1)
    steps: list[int] = []

    def told(_step: str, done: int, _total: int) -> None:
        steps.append(done)
        if steps == [1, 2]:
            raise Stopped("stopped")

    files = tmp_path / "files"
    with pytest.raises(Stopped):
        at(settings, "-0s", directory=files, told=told)
    assert at(settings, "-0s", directory=files, told=told).counts == now
    assert steps == [1, 2, 3, 4]
    for wrong in (
        lambda: history(settings, "j"),
        lambda: at(settings, "-0s", lanes=[3]),
        lambda: at(settings, "soon"),
    ):
        with pytest.raises(InvalidData):
            wrong()


def test_archives_can_be_called(
    setting: Setting,
    writer: Producer,
    settings: Settings,
    tmp_path: Path,
    delete_topics: Callable[[list[str]], None],
) -> None:
    world = ReplayWorld(setting, writer, tmp_path)
    world.write((1, value) for value in Story(lane=1, random=1).enqueued().processing().succeeded().values)
    some = export_events(settings, tmp_path / "some", Part(lanes=[1], filters=Filters(state="Succeeded")))
    assert (some.records, some.complete) == (1, True)
    copy = TopicNames(f"{settings.names.prefix}copy.")
    whole = tmp_path / "whole"
    assert export_events(settings, whole, format_="parquet").records == 3
    try:
        assert import_events(settings, whole, into_prefix=copy.prefix, dry_run=True).written == 0
        assert import_events(settings, whole, into_prefix=copy.prefix).written == 3
        assert import_events(settings, whole, into_prefix=copy.prefix)[2:] == (3, 0)
    finally:
        delete_topics([copy.events])


def test_commands_that_read_much_say_how_much_first(setting: Setting, writer: Producer, tmp_path: Path) -> None:
    world = ReplayWorld(setting, writer, tmp_path)
    story = Story(lane=1, random=1).enqueued().processing().succeeded()
    world.write((1, value) for value in story.values)
    environment = {
        "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": setting.kafka.bootstrap_servers,
        "JOBLOG_TOPIC_PREFIX": setting.names.prefix,
        "JOBLOG_LANES": str(setting.lanes),
    }
    for arguments, lanes, offsets in (
        (["history", story.id], 1, 3),
        (["at", "--time", "-0s"], LANES, 3),
        (["at", "--offset", "2", "--job", story.id], 1, 2),
        (["diff", "--from", "-1h"], LANES, 3),
        (["what-if", "--retry", '{"attempts": 1}'], LANES, 3),
        (["export", str(tmp_path / "none"), "--lane", "0"], 1, 0),
    ):
        done = CliRunner().invoke(app, ["replay", *arguments, "--dry-run", "-o", "json"], env=environment)
        assert done.exit_code == 0, (arguments, done.exception)
        said = json.decode(done.stdout)
        assert (said["lanes"], said["offsets"]) == (lanes, offsets), arguments
        assert "(--dry-run)" in done.stderr
    assert not (tmp_path / "none").exists()


def test_each_command_has_a_call_that_the_package_names() -> None:
    rows = re.findall(r"^\| ([a-z, -]+?) +\| (.+) \|$", replay.__doc__ or "", re.MULTILINE)
    told = {command: calls for names, calls in rows for command in names.split(", ")}
    there = {one.name or one.callback.__name__ for one in commands.registered_commands if one.callback}
    assert told.keys() - {"command"} == there
    for calls in told.values():
        for path in re.findall(r"[a-z_]+(?:\.\w+)+", calls):
            module, _, name = (path if path.startswith("projections.") else f"services.replay.{path}").rpartition(".")
            assert callable(getattr(import_module(f"joblog.{module}"), name))
