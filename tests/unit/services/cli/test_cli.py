import inspect
import json
import os
import re
import subprocess
import sys
import time
import traceback
from contextlib import closing
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from confluent_kafka import KafkaError, KafkaException
from joblog.projections.database import DatabaseAway
from joblog.projections.monitor.models import Worker
from joblog.projections.questions import LIMIT_MAX, InvalidQuestion
from joblog.services.cli import app as cli
from joblog.services.cli.app import COMMANDS, app, load
from joblog.services.cli.context import Output, fail, note
from joblog.services.cli.output import print_rows
from joblog.services.cli.postgres import ASIDE_S, Aside, unserved
from joblog.services.client.options import CreationCancelled
from joblog.services.roles.kafka_errors import refused
from joblog.services.settings.errors import paths, variable
from joblog.services.settings.model import Settings
from joblog.services.settings.sources import write_addresses
from joblog.streams.errors import BrokersAway, EnqueueError, InvalidData, JoblogError, SettingsError, TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from typer.testing import CliRunner

JOB = "01a20a16-c2e7-8003-bee9-22a0ed6af0b6"


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in paths(Settings):
        monkeypatch.delenv(variable(path), raising=False)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def leaves(name: str) -> list[tuple[str, ...]]:
    """The command, or the commands of the group, of this name."""
    inner = getattr(load(name), "commands", None)
    return [(name, one) for one in inner] if inner else [(name,)]


def test_help_lists_all_commands_without_loading_them() -> None:
    code = "import sys; from joblog.services.cli.app import app; app(['--help'], standalone_mode=False)"
    heavy = {"psycopg", "alembic", "sqlalchemy", "skimage", "jgo", "structlog"}
    tell = f"print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{tell}"], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in COMMANDS)
    assert done.stderr.strip() == "[]"


def test_what_migrates_only_if_tables_are_missing_loads_no_alembic_before() -> None:
    code = "import sys; from joblog.services.cli.app import load; load('projector'); load('replay'); load('up')"
    tell = "print(sorted({'alembic', 'sqlalchemy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{tell}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says_of_itself(name: str) -> None:
    module, _, attribute = COMMANDS[name].place.partition(":")
    found: Any = getattr(import_module(f"joblog.services.{module}"), attribute)
    function = found.registered_callback.callback if isinstance(found, typer.Typer) else found
    assert inspect.getdoc(function).splitlines()[0] == COMMANDS[name].help


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_shows_its_help(name: str) -> None:
    for command in leaves(name):
        code, out, _ = run(*command, "--help")
        assert code == 0
        assert "Usage" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_whole_paragraphs_and_no_options_of_completion(name: str) -> None:
    command = load(name)
    for one in (command, *getattr(command, "commands", {}).values()):
        assert not re.search(r"[^\n]\n[^\n]", one.help)
        assert "--install-completion" not in str(one.params)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_printed_as_it_is_written(name: str) -> None:
    """Square brackets would be taken for markup, and disappear."""
    for command in leaves(name):
        _, out, _ = run(*command, "--help")
        assert "``" not in out
        assert "<bool>" not in out


def test_what_a_worker_is_by_default_is_told() -> None:
    _, out, _ = run("worker", "--help")
    told = " ".join(re.sub("[│╭╮╰╯─]", " ", out).split())
    for default in ("those of the tasks", "5 for each core", "the host's name", "any free one"):
        assert default in told


def test_states_are_named_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBLOG_POSTGRES__DSN", "hunter2")
    with pytest.raises(SettingsError, match="JOBLOG_POSTGRES__DSN"):
        run("job", "list", "--state", "failed")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "bench"])
def test_each_command_gives_an_example(name: str) -> None:
    for command in leaves(name):
        _, out, _ = run(*command, "--help")
        assert f"joblog {' '.join(command)}" in " ".join(out.split())


def test_a_mistyped_command_is_a_mistake_of_usage_with_a_suggestion() -> None:
    code, _, err = run("enqeue")
    assert code == 2
    assert "enqueue" in err


def test_the_version_is_told() -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert out.strip().count(".") == 2


def test_a_command_whose_packages_are_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        raise ModuleNotFoundError("No module named 'jgo'", name="jgo")

    monkeypatch.setattr(cli, "import_module", missing)
    with pytest.raises(JoblogError, match=r"pip install 'joblog\[embedded\]'"):
        load("up")
    with pytest.raises(ModuleNotFoundError):
        load("elector")


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [
        (SettingsError("x"), 2, False),
        (InvalidData("x"), 2, False),
        (InvalidQuestion("x"), 2, False),
        (EnqueueError("x"), 1, True),
        (BrokersAway("x"), 1, True),
        (TopicsError("x"), 1, True),
        (CreationCancelled("x"), 1, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_have_a_code_and_some_a_hint(
    capsys: pytest.CaptureFixture[str], error: JoblogError, code: int, hint: bool
) -> None:
    assert fail(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: x\n")
    assert ("hint: " in err) == hint


def test_errors_end_the_process_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "joblog.services.cli", "job", "show", JOB],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no Postgres is set: give JOBLOG_POSTGRES__DSN")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("enqueue", "a.b", "--kwargs", "[1]"),
        ("enqueue", "a.b", "--kwargs", "{"),
        ("enqueue", "a.b", "--delay", "soon"),
        ("enqueue", "a.b", "--at", "tomorrow"),
        ("enqueue", "a.b", "--delay", "1s", "--at", "2027-01-01"),
        ("enqueue", "a.b", "--parameter", "name"),
        ("enqueue", "a.b", "[" * 5_000),
        ("enqueue", "a.b", "--delay", ""),
        ("enqueue", "a.b", "--at", ""),
        ("enqueue", "a.b", "--timeout", ""),
        ("enqueue", "a.b", "--timeout", "0"),
        ("enqueue", "a.b", "--wait", ""),
        ("enqueue", "a.b", "--queue", ""),
        ("enqueue", "a.b", "--idempotency-key", ""),
        ("enqueue", "a.b", "--job-id", ""),
        ("enqueue", "a.b", "--parent", ""),
        ("enqueue", "a.b", "--parameter", "=1"),
        ("job", "reschedule", JOB),
        ("job", "reschedule", JOB, "--delay", ""),
        ("job", "requeue", JOB, "--queue", "Images"),
    ],
    ids=" ".join,
)
def test_input_that_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.setenv("JOBLOG_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("JOBLOG_CLIENT__TIMEOUT_S", "0.5")
    with pytest.raises(InvalidData):
        run(*arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("enqueue", "a.b", "--on", "ended"), "--on has no effect without --parent JOB_ID"),
        (("enqueue", "a.b", "--delay", "1s", "--at", "2027-01-01"), "--delay or --at, not both"),
        (("enqueue", "a.b", "--parameter", "a=1", "--parameter", "a=2"), "--parameter a is given twice"),
        (("enqueue", "a.b", "--queue", "Images"), "'Images' is not a queue name: write images"),
        (
            ("enqueue", "a.b", "--kwargs", "[1]"),
            """--kwargs needs a JSON object, such as '{"width": 640}'""",
        ),
        (("job", "reschedule", JOB), "give --delay or --at"),
        (("job", "reschedule", JOB, "--delay", "1s", "--at", "2027-01-01"), "--delay or --at, not both"),
        (("job", "list", "--queue", "Images"), "'Images' is not a queue name: write images"),
        (("job", "list", "--queue", ""), "'' is not a queue name"),
        (("job", "list", "--task", ""), "'' is not a task name"),
        (("job", "list", "--worker", ""), "--worker is empty"),
        (("job", "list", "--search", " "), "--search is empty"),
        (("job", "list", "--cursor", ""), "--cursor is empty"),
        (("rejected", "list", "--cursor", ""), "--cursor is empty"),
        (("parked", "list", "--cursor", ""), "--cursor is empty"),
        (("up", "--queues", "a"), "--queues has no effect without --tasks"),
        (("up", "--only-stack", "--tasks", "a"), "--tasks has no effect with --only-stack"),
        (("up", "--only-stack", "--monitor"), "--monitor has no effect with --only-stack"),
        (("up", "--only-stack", "--outbox"), "--outbox has no effect with --only-stack"),
        (("outbox", "--http-port", "1", "status"), "--http-port has no effect on `joblog outbox status`"),
        (("outbox", "retry"), "name rows by their ids, or give --all"),
        (("outbox", "discard", "1", "--all"), "name rows by their ids, or give --all"),
        (("demo", "--bootstrap-servers", ""), "--bootstrap-servers is empty"),
        (("demo", "--dsn", ""), "--dsn is empty"),
        (("bench", "latency", "--seconds", "5"), "--seconds has no effect without --load"),
        (("bench", "latency", "--load", "5", "--jobs", "9"), "--jobs has no effect with --load"),
        (("bench", "latency", "--load", "nan"), "--load"),
        (("bench", "latency", "--timeout", "inf"), "--timeout"),
        (("--log-format", "json", "job", "list"), "--log-format has no effect on `joblog job`"),
        (("--config", "x.toml", "demo"), "--config has no effect on `joblog demo`"),
        (("--config", "x.toml", "bench", "all", "--embedded"), "--config has no effect with --embedded"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_without_effect_are_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.setenv("JOBLOG_POSTGRES__DSN", "postgresql://me@127.0.0.1:1/x")
    monkeypatch.setenv("JOBLOG_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("JOBLOG_CLIENT__TIMEOUT_S", "0.5")
    try:
        code, _, err = run(*arguments)
    except JoblogError as exc:
        code, err = fail(exc), str(exc)
    assert told in " ".join(re.sub("[│╭╮╰╯─]", " ", err).split())
    assert code == 2


def test_roles_take_the_log_format(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "joblog.services.cli", "--log-format", "json", "elector", "--id", "not a name"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
    )
    assert "JOBLOG_ELECTOR__ID" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("enqueue", "a.b", "--priority", "2000"),
        ("enqueue", "a.b", "--attempts", "5000"),
        ("enqueue", "a.b", "--attempts", "-1"),
        ("up", "--kafka-port", "99999"),
        ("up", "--postgres-port", "-1"),
        ("job", "list", "--limit", f"{LIMIT_MAX + 1}"),
    ],
    ids=" ".join,
)
def test_numbers_have_their_limits(arguments: tuple[str, ...]) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert arguments[-2] in err


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        (("enqueue", "a.b", b"caf\xe9"), {}, "'caf\\udce9' is not UTF-8"),
        (
            ("enqueue", "a.b"),
            {"KAFKA__SECURITY_PROTOCOL": "SSL", "KAFKA__SSL_CA_LOCATION": "/nowhere"},
            "ssl.ca.location failed",
        ),
        (("topics", "create"), {"KAFKA__EXTRA": '{"socket.timeout.ms": "abc"}'}, '"socket.timeout.ms"'),
        (("delays",), {"KAFKA__EXTRA": '{"socket.timeout.ms": "abc"}'}, "socket.timeout.ms"),
        (("worker", "--tasks", ".tasks"), {}, "'.tasks' is not a module name: write tasks"),
        (("worker",), {"WORKER__TASKS": ""}, "a worker needs modules with tasks"),
        (("enqueue", "a.b", "--wait", "1s"), {"KAFKA__EXTRA": "{}"}, "no Postgres is set"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_input_is_told_without_a_traceback(
    tmp_path: Path, arguments: tuple[str | bytes, ...], variables: dict[str, str], told: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "joblog.services.cli", *arguments],
        env={**os.environ, **{f"JOBLOG_{name}": value for name, value in variables.items()}},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_argument_of_ours_to_kafka_is_no_mistake_in_the_settings() -> None:
    consumer = clients.reader(KafkaConfig("127.0.0.1:1"), "test")
    with closing(consumer), pytest.raises(KafkaException) as told:
        consumer.subscribe([""])
    assert told.value.args[0].code() == KafkaError._INVALID_ARG
    assert refused(told.value) is None


def test_a_worker_without_tasks_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match="--tasks"):
        run("worker")


def test_everything_on_this_machine_refuses_the_settings_of_a_guarded_broker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JOBLOG_KAFKA__SECURITY_PROTOCOL", "SSL")
    with pytest.raises(SettingsError, match=r"no effect on it: kafka.security_protocol \(environment\)"):
        run("up", "--directory", str(tmp_path / "up"))
    assert not (tmp_path / "up").exists()


def test_everything_on_this_machine_is_not_started_for_tasks_that_are_nowhere(tmp_path: Path) -> None:
    (tmp_path / "here.py").touch()
    for tasks in ("here,nowhere", "here.nowhere", "nowhere.here"):
        with pytest.raises(SettingsError, match=r"nowhere.* cannot be imported"):
            run("up", "--directory", str(tmp_path / "up"), "--tasks", tasks)
    assert not (tmp_path / "up").exists()


def test_settings_are_shown_with_their_origin_and_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("joblog.toml").write_text("lanes = 8\n[postgres]\ndsn = 'postgresql://me:hunter2@db/x'\n")
    monkeypatch.setenv("JOBLOG_WORKER__SLOTS", "3")
    code, out, _ = run("config", "show", "--output", "json")
    rows = {row["setting"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0
    assert (rows["lanes"]["value"], rows["lanes"]["origin"]) == (8, "joblog.toml")
    assert (rows["worker.slots"]["value"], rows["worker.slots"]["origin"]) == (3, "environment")
    assert rows["worker.slots"]["variable"] == "JOBLOG_WORKER__SLOTS"
    assert rows["replication"]["origin"] == "default"
    assert rows["postgres.dsn"]["value"] == "(hidden)"
    assert "hunter2" not in out
    assert "hunter2" not in run("config", "show")[1]


def test_secrets_among_the_properties_of_librdkafka_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = {
        "sasl.oauthbearer.client.secret": "hunter2",
        "sasl.oauthbearer.assertion.private.key.passphrase": "hunter2",
        "sasl.oauthbearer.assertion.private.key.pem": "hunter2",
        "ssl.key.password": "hunter2",
        "ssl.keystore.password": "hunter2",
        "ssl.key.pem": "hunter2",
    }
    known = {"client.rack": "r1", "sasl.oauthbearer.token.endpoint.url": "https://sso"}
    monkeypatch.setenv("JOBLOG_KAFKA__EXTRA", json.dumps(secret | known))
    _, out, _ = run("config", "show", "--output", "json")
    rows = {row["setting"]: row["value"] for row in map(json.loads, out.splitlines())}
    assert rows["kafka.extra"] == dict.fromkeys(secret, "(hidden)") | known
    assert "hunter2" not in run("config", "show")[1]


@pytest.mark.parametrize("dsn", ["postgresql://me:hunter2%zz@db/x", "hunter2", "host=db password='hunter2"])
@pytest.mark.parametrize("command", [("job", "list"), ("stats",), ("migrate",)], ids=" ".join)
def test_a_dsn_that_cannot_be_read_is_named_and_not_told(
    monkeypatch: pytest.MonkeyPatch, dsn: str, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("JOBLOG_POSTGRES__DSN", dsn)
    with pytest.raises(SettingsError, match="JOBLOG_POSTGRES__DSN") as told:
        run(*command)
    assert "hunter2" not in "".join(traceback.format_exception(told.value))


def test_addresses_of_an_end_are_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dsn = "postgresql://me:hunter2@127.0.0.1:1/x"
    (tmp_path / ".joblog").mkdir()
    write_addresses(tmp_path / ".joblog", {"postgres": {"dsn": dsn}})
    for given, hints in (("addresses", 1), ("environment", 0)):
        if given == "environment":
            monkeypatch.setenv("JOBLOG_POSTGRES__DSN", dsn)
        with pytest.raises(DatabaseAway) as told:
            run("migrate")
        assert len(getattr(told.value, "__notes__", ())) == hints


def worker(*queues: str) -> Worker:
    now = datetime.now(UTC)
    about: dict[str, Any] = {"slots": 1, "host": "h", "pid": 1, "started_at": now, "heartbeat": now, "processing": 0}
    return Worker(name="w", state="running", queues=queues, tasks=("a.b",), **about)


def test_what_keeps_a_job_waiting_is_told() -> None:
    assert unserved("shop", "a.b", []) == "no running worker serves the queue shop"
    assert unserved("shop", "c", [worker("default")]) == "no running worker serves the queue shop"
    assert (
        unserved("shop", "a.b", [worker("default"), worker("x", "default")])
        == "no running worker serves the queue shop; those that know a.b serve default, x (--queue)"
    )
    assert unserved("shop", "c", [worker("shop")]) == "no running worker of the queue shop knows the task c"
    assert unserved("shop", "a.v", [worker("shop")]) == (
        "no running worker of the queue shop knows the task a.v; did you mean a.b?"
    )
    assert unserved("shop", "a.b", [worker("default"), worker("shop")]) is None


def test_a_command_does_not_wait_for_a_postgres_that_is_nowhere() -> None:
    began = time.monotonic()
    assert Aside(Settings.load()).running() is None
    assert Aside(Settings.load(postgres={"dsn": "postgresql://me@127.0.0.1:1/x"})).running() is None
    assert time.monotonic() - began < ASIDE_S


def test_a_list_without_rows_says_so_and_is_empty_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], ("id",), Output.TABLE)
    print_rows([], ("id",), Output.JSON)
    assert capsys.readouterr().out == "none\n"


def test_dead_letters_without_a_broker_are_no_matter_of_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBLOG_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    with pytest.raises(BrokersAway, match=r"127\.0\.0\.1:1"):
        run("deadletters", "list")


def test_notes_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    note("hello")
    assert capsys.readouterr() == ("", "hello\n")
