import tomllib
from pathlib import Path

import pytest
from joblog.services.detection.stage import SLOTS, Stage, environment, write_settings
from joblog.services.settings.model import HttpSettings, Settings
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import KafkaConfig


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    dsn = 'postgresql://joblog:pa"ss\\word@127.0.0.1:5432/joblog'
    return Stage(KafkaConfig("127.0.0.1:9092"), TopicNames("demo-1."), 4, dsn, "demo_1", tmp_path)


def test_the_settings_file_leads_any_command_to_the_demonstration(stage: Stage) -> None:
    write_settings(stage)
    settings = Settings.load(stage.config_file)
    assert settings.kafka.config().bootstrap_servers == "127.0.0.1:9092"
    assert settings.names == stage.names
    assert settings.lanes == 4
    assert settings.dsn() == stage.dsn
    assert settings.postgres.schema_name == "demo_1"
    assert settings.worker.name == "DetectionServer"
    assert settings.worker.queues == ("detection", "default")
    assert settings.worker.slots == SLOTS
    assert settings.triggers.modules == ("joblog.services.detection.triggers",)
    assert tomllib.loads(stage.config_file.read_text())["logs"] == {"format": "json"}


def test_only_its_owner_may_read_the_settings_file(stage: Stage) -> None:
    write_settings(stage)
    assert stage.config_file.stat().st_mode & 0o777 == 0o600


def test_the_roles_get_the_same_settings_by_their_environment(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    write_settings(stage)
    from_file = Settings.load(stage.config_file)
    for name, value in environment(stage, is_given=False).items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == from_file.model_copy(update={"config": None})


def test_the_roles_can_be_asked_whatever_is_set_here(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "joblog.toml").write_text("[http]\nenabled = false\nhost = '10.0.0.1'\n")
    monkeypatch.chdir(tmp_path)
    for name, value in environment(stage, is_given=False).items():
        monkeypatch.setenv(name, value)
    assert Settings.load().http == HttpSettings()


def test_settings_of_another_installation_do_not_reach_the_roles(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBLOG_REPLICATION", "3")
    monkeypatch.setenv("JOBLOG_KAFKA__SASL_USERNAME", "somebody")
    monkeypatch.setenv("JOBLOG_KAFKA__BOOTSTRAP_SERVERS", "elsewhere:9092")
    embedded, given = environment(stage, is_given=False), environment(stage, is_given=True)
    assert not {"JOBLOG_REPLICATION", "JOBLOG_KAFKA__SASL_USERNAME"} & embedded.keys()
    assert "JOBLOG_REPLICATION" not in given
    assert given["JOBLOG_KAFKA__SASL_USERNAME"] == "somebody"
    assert embedded["JOBLOG_KAFKA__BOOTSTRAP_SERVERS"] == given["JOBLOG_KAFKA__BOOTSTRAP_SERVERS"] == "127.0.0.1:9092"
