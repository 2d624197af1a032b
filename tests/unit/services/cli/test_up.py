from pathlib import Path

import pytest
from joblog.services.cli.commands.up import _environment, _roles, _tell
from joblog.services.embedded.stack import StackAddresses
from joblog.services.settings.errors import paths, variable
from joblog.services.settings.model import HttpSettings, Settings

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


def test_what_runs_where_is_told_without_the_password(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _tell(StackAddresses("127.0.0.1:1", "postgresql://joblog:hunter2@127.0.0.1:2/joblog"), [], Settings.load())
    out = capsys.readouterr().out
    assert "postgresql://joblog@127.0.0.1:2/joblog" in out
    assert "no worker" not in out
    _tell(ADDRESSES, _roles(place, Settings.load()), Settings.load())
    assert "no worker  no job will run: give --tasks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("host", "used"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("10.0.0.1", "127.0.0.1")],
)
def test_the_roles_can_be_asked_on_this_machine(
    place: Path, monkeypatch: pytest.MonkeyPatch, host: str, used: str
) -> None:
    (place / "joblog.toml").write_text(f"[http]\nenabled = false\nhost = '{host}'\n")
    assert settings_of_a_role(monkeypatch).http == HttpSettings(host=used)
