import json
import re
from pathlib import Path

import pytest
from joblog.services.cli.commands.up import _environment, _hindering, _roles, _tell
from joblog.services.cli.commands.up_checks import refuse_idle
from joblog.services.cli.context import Output
from joblog.services.embedded.stack import StackAddresses
from joblog.services.settings.errors import paths, variable
from joblog.services.settings.model import HttpSettings, Settings
from joblog.services.settings.sources import write_addresses
from joblog.streams.errors import SettingsError
from joblog.streams.triggers.handling import WAITING_FOR_TOPICS

ADDRESSES = StackAddresses("127.0.0.1:20001", "postgresql://joblog@127.0.0.1:20002/joblog")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in paths(Settings):
        monkeypatch.delenv(variable(path), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings_of_a_role(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What a role reads that `joblog up` starts here."""
    given = _environment(Settings.load(), ADDRESSES)
    for path in paths(Settings):
        monkeypatch.delenv(variable(path), raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return Settings.load()


@pytest.mark.parametrize("source", ["joblog.toml", ".env", "environment"])
def test_the_roles_use_the_servers_here_whatever_is_set(
    place: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    (place / "dsn").write_text("postgresql://elsewhere\n")
    match source:
        case "joblog.toml":
            (place / source).write_text("[postgres]\ndsn_file = 'dsn'\n[kafka]\nbootstrap_servers = 'elsewhere:1'\n")
        case ".env":
            (place / source).write_text(
                "JOBLOG_POSTGRES__DSN_FILE=dsn\nJOBLOG_KAFKA__BOOTSTRAP_SERVERS=elsewhere:1\n"
            )
        case _:
            monkeypatch.setenv("JOBLOG_POSTGRES__DSN_FILE", "dsn")
            monkeypatch.setenv("JOBLOG_KAFKA__BOOTSTRAP_SERVERS", "elsewhere:1")
    found = settings_of_a_role(monkeypatch)
    assert (found.kafka.bootstrap_servers, found.dsn()) == (ADDRESSES.bootstrap_servers, ADDRESSES.dsn)


def test_each_directory_has_an_elector_of_its_own_name(place: Path) -> None:
    def name(directory: Path) -> str:
        directory.mkdir()
        (found,) = (role.arguments[2] for role in _roles(directory, Settings.load()) if role.name == "elector")
        return found

    assert name(place / "a") != name(place / "b")
    assert "worker" not in {role.name for role in _roles(place, Settings.load())}


def test_the_worker_is_given_what_is_set(place: Path) -> None:
    for queues, told in (("", []), ("a,b", ["--queues", "a,b"])):
        settings = Settings.load(worker={"tasks": "x,y", "queues": queues})
        worker = _roles(place, settings)[-1]
        assert worker.arguments == ["worker", "--tasks", "x,y", *told]


def test_triggers_run_if_modules_are_given(place: Path) -> None:
    role = _roles(place, Settings.load(triggers={"modules": "x,y"}))[-1]
    assert role.arguments == ["triggers", "--modules", "x,y"]
    assert "triggers" not in {role.name for role in _roles(place, Settings.load())}


def test_hooks_run_if_modules_are_given(place: Path) -> None:
    role = _roles(place, Settings.load(hooks={"modules": "x,y"}))[-1]
    assert role.arguments == ["hooks", "--modules", "x,y"]
    assert "hooks" not in {role.name for role in _roles(place, Settings.load())}


def test_the_relay_of_an_outbox_runs_if_it_is_wanted(place: Path) -> None:
    assert _roles(place, Settings.load(), outbox=True)[-1].arguments == ["outbox"]
    assert "outbox" not in {role.name for role in _roles(place, Settings.load())}


def test_triggers_that_wait_for_their_topics_hinder_nothing() -> None:
    waiting = {"triggers": f"{WAITING_FOR_TOPICS}: uploads", "elector": "starting"}
    assert _hindering(waiting) == {"elector": "starting"}
    assert _hindering({"triggers": "joining the group"}) == {"triggers": "joining the group"}


def test_what_runs_where_is_told_without_the_password(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    addresses = StackAddresses("127.0.0.1:1", "postgresql://joblog:hunter2@127.0.0.1:2/joblog")
    _tell(addresses, [], Settings.load(), Output.TABLE)
    out = capsys.readouterr().out
    assert "postgresql://joblog@127.0.0.1:2/joblog" in out
    assert "no worker" not in out
    _tell(ADDRESSES, _roles(place, Settings.load()), Settings.load(), Output.TABLE)
    assert "no worker  jobs will wait: start again with --tasks" in capsys.readouterr().out
    _tell(addresses, _roles(place, Settings.load()), Settings.load(), Output.JSON)
    document = json.loads(capsys.readouterr().out)
    assert document["postgres"] == "postgresql://joblog@127.0.0.1:2/joblog"
    assert list(document) == ["kafka", "postgres", "projector", "elector", "delays", "directory"]


@pytest.mark.parametrize(
    ("host", "used"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("10.0.0.1", "127.0.0.1")],
)
def test_the_roles_can_be_probed_on_this_machine(
    place: Path, monkeypatch: pytest.MonkeyPatch, host: str, used: str
) -> None:
    (place / "joblog.toml").write_text(f"[http]\nhost = '{host}'\n")
    assert settings_of_a_role(monkeypatch).http == HttpSettings(host=used)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("replication = 3", "replication (joblog.toml)"),
        ("[kafka]\nbootstrap_servers = 'x:1'", "kafka.bootstrap_servers (joblog.toml)"),
        ("[kafka]\nsecurity_protocol = 'SSL'\nssl_ca_location = 'ca'", "kafka.ssl_ca_location (joblog.toml)"),
        ("[postgres]\ndsn = 'postgresql://x'", "postgres.dsn (joblog.toml)"),
        ("[http]\nport = 9101", "http.port (joblog.toml)"),
        ("[http]\nenabled = false", "http.enabled (joblog.toml)"),
        ("[http]\nhost = '10.0.0.1'", "http.host (joblog.toml)"),
        ("[elector]\nid = 'one'", "elector.id (joblog.toml)"),
    ],
)
def test_settings_of_other_servers_are_refused(place: Path, text: str, named: str) -> None:
    (place / "joblog.toml").write_text(text)
    with pytest.raises(SettingsError, match=re.escape(named)):
        refuse_idle(Settings.load())


def test_the_addresses_of_the_last_start_and_what_roles_read_are_no_mistake(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / ".joblog").mkdir()
    write_addresses(place / ".joblog", {"kafka": {"bootstrap_servers": "x:1"}, "postgres": {"dsn": "postgresql://x"}})
    (place / "joblog.toml").write_text("lanes = 2\n[http]\nhost = 'localhost'\n[worker]\nslots = 3\n")
    refuse_idle(Settings.load())
    monkeypatch.setenv("JOBLOG_KAFKA__BOOTSTRAP_SERVERS", "y:1")
    with pytest.raises(SettingsError, match=re.escape("kafka.bootstrap_servers (environment)")):
        refuse_idle(Settings.load())
