import json
import stat
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from joblog.services.settings.errors import paths, variable
from joblog.services.settings.model import Settings
from joblog.services.settings.sources import origins, write_addresses
from joblog.streams.errors import SettingsError
from pydantic import BaseModel, ValidationError


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No file and no variable of the machine's own takes part."""
    for path in paths(Settings):
        monkeypatch.delenv(variable(path), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def set_all(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"JOBLOG_{name}", value)


def test_nothing_needs_to_be_set() -> None:
    settings = Settings.load()
    assert (settings.lanes, settings.topic_prefix, settings.worker.queues) == (4, "joblog.", ())


def test_sources_from_strong_to_weak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".joblog").mkdir()
    write_addresses(tmp_path / ".joblog", {"kafka": {"bootstrap_servers": "addresses"}, "topic_prefix": "a."})
    assert Settings.load().kafka.bootstrap_servers == "addresses"
    (tmp_path / "joblog.toml").write_text('lanes = 8\n[kafka]\nbootstrap_servers = "file"\n')
    assert Settings.load().kafka.bootstrap_servers == "file"
    (tmp_path / ".env").write_text("UNRELATED=1\nJOBLOG_KAFKA__BOOTSTRAP_SERVERS=dotenv\n")
    assert Settings.load().kafka.bootstrap_servers == "dotenv"
    set_all(monkeypatch, KAFKA__BOOTSTRAP_SERVERS="environment")
    assert Settings.load().kafka.bootstrap_servers == "environment"
    settings = Settings.load(kafka={"bootstrap_servers": "argument"})
    assert settings.kafka.bootstrap_servers == "argument"
    assert (settings.lanes, settings.topic_prefix) == (8, "a.")


def test_groups_are_merged_setting_by_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "joblog.toml").write_text("[elector]\nlease_s = 20\nbatch_max = 7\n")
    set_all(monkeypatch, ELECTOR__BATCH_MAX="9")
    settings = Settings.load(elector={"id": "one"})
    assert (settings.elector.lease_s, settings.elector.batch_max, settings.elector.id) == (20, 9, "one")


def test_the_file_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.toml").write_text("lanes = 3")
    assert Settings.load(tmp_path / "other.toml").lanes == 3
    set_all(monkeypatch, CONFIG="other.toml")
    assert Settings.load().lanes == 3


def test_the_directory_of_the_addresses_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    write_addresses(tmp_path / "data", {"lanes": 5})
    set_all(monkeypatch, DIRECTORY="data")
    assert Settings.load().lanes == 5


def test_empty_names_in_lists_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, WORKER__QUEUES="a,, b,", WORKER__TASKS="")
    settings = Settings.load()
    assert (settings.worker.queues, settings.worker.tasks) == (("a", "b"), ())


def test_lists_and_tables_in_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, WORKER__QUEUES="critical, default", WORKER__TASKS="a.b", QUEUE_SHARDS='{"hot": 2}')
    settings = Settings.load()
    assert settings.worker.queues == ("critical", "default")
    assert settings.worker.tasks == ("a.b",)
    assert settings.queue_shards == {"hot": 2}
    set_all(monkeypatch, QUEUE_SHARDS_BEFORE='{"hot": 4, "cold": 3}')
    assert Settings.load().shards_served == {"hot": 4, "cold": 3}


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"LANES": "x"}, "JOBLOG_LANES (lanes)"),
        ({"LANES": "4097"}, "JOBLOG_LANES (lanes)"),
        ({"QUEUE_SHARDS": "x"}, "JOBLOG_QUEUE_SHARDS (queue_shards): write a JSON object"),
        ({"KAFKA__EXTRA": "x"}, "JOBLOG_KAFKA__EXTRA (kafka.extra): write a JSON object"),
        ({"KAFKA__EXTRA": "[1]"}, "JOBLOG_KAFKA__EXTRA (kafka.extra): write a JSON object"),
        ({"QUEUE_SHARDS": '{"hot": 5}'}, "queue_shards"),
        ({"QUEUE_SHARDS": '{"Hot": 1}'}, "JOBLOG_QUEUE_SHARDS"),
        ({"QUEUE_SHARDS_BEFORE": '{"hot": 5}'}, "queue_shards_before: hot has 5"),
        ({"QUEUE_SHARDS_BEFORE": '{"hot": 1}'}, "queue_shards_before: hot has 1 now, too"),
        ({"QUEUE_SHARDS_BEFORE": '{"hot": 2}', "QUEUE_SHARDS": '{"hot": 2}'}, "leave it out"),
        ({"TOPIC_PREFIX": "a b"}, "JOBLOG_TOPIC_PREFIX"),
        ({"POSTGRES__SCHEMA_NAME": "a-b"}, "JOBLOG_POSTGRES__SCHEMA_NAME"),
        (
            {"POSTGRES__SCHEMA": "jobs"},
            "postgres.schema (JOBLOG_POSTGRES__SCHEMA) is not a setting; did you mean schema_name?",
        ),
        ({"POSTGRES__DSN": "a", "POSTGRES__DSN_FILE": "b"}, "both dsn and dsn_file"),
        ({"POSTGRES__DSN_FILE": "/nowhere"}, "dsn_file"),
        ({"WORKER__RENEW_S": "6"}, "elector.lease_s"),
        ({"HTTP__PORT": "70000"}, "JOBLOG_HTTP__PORT"),
        ({"LOGS__FORMAT": "xml"}, "JOBLOG_LOGS__FORMAT"),
        ({"ELECTOR__ID": "a b"}, "JOBLOG_ELECTOR__ID"),
        ({"KAFKA__SASL_USERNAME": "me"}, "security_protocol"),
        ({"KAFKA__SECURITY_PROTOCOL": "SASL_SSL"}, "sasl_mechanism"),
        ({"KAFKA__SECURITY_PROTOCOL": "SASL_SSL", "KAFKA__SASL_MECHANISM": "PLAIN"}, "sasl_password"),
        ({"KAFKA__SSL_CA_LOCATION": "ca.pem"}, "security_protocol"),
        ({"KAFKA__EXTRA": '{"acks": "0"}'}, "acks cannot be set here"),
        ({"KAFKA__EXTRA": '{"enable.idempotence": "false"}'}, "enable.idempotence cannot be set here"),
        ({"CONFIG": "/nowhere.toml"}, "/nowhere.toml"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str) -> None:
    set_all(monkeypatch, **variables)
    with pytest.raises(SettingsError) as told:
        Settings.load()
    assert named in str(told.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lane = 3", "lane (JOBLOG_LANE) is not a setting; did you mean lanes?"),
        ("[kafka]\nbootstrap_server = 'x'", "kafka.bootstrap_server"),
        ("[kafka]\nbootstrap_server = 'x'", "did you mean bootstrap_servers?"),
        ("[kakfa]\nbootstrap_servers = 'x'", "did you mean kafka?"),
        ("lanes =", "joblog.toml is not TOML"),
        ("lanes = '\xff'", "joblog.toml is not TOML"),
    ],
)
def test_unknown_keys_in_the_file_are_mistakes(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "joblog.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError) as refused:
        Settings.load()
    assert told in str(refused.value)


def test_all_mistakes_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, LANES="x", REPLICATION="0", HTTP__PORT="-1")
    with pytest.raises(SettingsError) as refused:
        Settings.load()
    assert len(str(refused.value).splitlines()) == 3


def test_a_mistyped_variable_of_dotenv_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("JOBLOG_LANE=3\n")
    with pytest.raises(SettingsError, match="did you mean lanes"):
        Settings.load()


def test_secrets_come_from_files_and_show_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dsn").write_text("postgresql://me:hunter2@db/x\n")
    (tmp_path / "password").write_text("hunter2\n")
    set_all(
        monkeypatch,
        POSTGRES__DSN_FILE="dsn",
        KAFKA__SECURITY_PROTOCOL="SASL_PLAINTEXT",
        KAFKA__SASL_MECHANISM="SCRAM-SHA-512",
        KAFKA__SASL_USERNAME="me",
        KAFKA__SASL_PASSWORD_FILE="password",  # noqa: S106 - a file's name
    )
    settings = Settings.load()
    assert settings.dsn() == "postgresql://me:hunter2@db/x"
    assert settings.kafka.config().options["sasl.password"] == "hunter2"
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_a_wrong_secret_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, KAFKA__SASL_PASSWORD="hunter2", KAFKA__SASL_MECHANISM="WRONG")  # noqa: S106
    with pytest.raises(SettingsError) as told:
        Settings.load()
    assert "hunter2" not in str(told.value)


#: How each source, from strong to weak, says where Postgres is; the addresses know no files.
SOURCES = ("argument", "environment", ".env", "joblog.toml", "addresses")


def say(place: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str, value: str) -> dict[str, Any]:
    """Set postgres.`name` in one source; what `load` gets besides."""
    match source:
        case "argument":
            return {"postgres": {name: value}}
        case "environment":
            monkeypatch.setenv(f"JOBLOG_POSTGRES__{name.upper()}", value)
        case ".env":
            (place / ".env").write_text(f"JOBLOG_POSTGRES__{name.upper()}={value}\n")
        case "joblog.toml":
            (place / "joblog.toml").write_text(f"[postgres]\n{name} = '{value}'\n")
        case "addresses":
            (place / ".joblog").mkdir()
            write_addresses(place / ".joblog", {"postgres": {name: value}})
    return {}


@pytest.mark.parametrize(("strong", "weak"), list(combinations(SOURCES, 2)), ids=str)
@pytest.mark.parametrize("file_is_stronger", [True, False])
def test_a_secret_in_a_file_is_as_strong_as_the_source_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strong: str, weak: str, file_is_stronger: bool
) -> None:
    (tmp_path / "dsn").write_text("postgresql://strong")
    names = ("dsn_file", "dsn") if file_is_stronger else ("dsn", "dsn_file")
    # A file of a weaker source is not even looked for.
    given = say(tmp_path, monkeypatch, weak, names[1], "weak")
    given |= say(tmp_path, monkeypatch, strong, names[0], "dsn" if file_is_stronger else "postgresql://strong")
    assert Settings.load(**given).dsn() == "postgresql://strong"


@pytest.mark.parametrize("source", SOURCES[:4])
def test_a_secret_and_its_file_in_one_source_are_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    (tmp_path / "dsn").write_text("postgresql://x")
    given = say(tmp_path, monkeypatch, source, "dsn_file", "dsn")
    if given:
        given["postgres"]["dsn"] = "y"
    elif source == "environment":
        say(tmp_path, monkeypatch, source, "dsn", "y")
    else:
        with (tmp_path / source).open("a") as file:
            file.write("JOBLOG_POSTGRES__DSN=y\n" if source == ".env" else "dsn = 'y'\n")
    with pytest.raises(SettingsError, match="both dsn and dsn_file"):
        Settings.load(**given)


def test_the_origin_of_a_secret_is_the_source_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dsn").write_text("postgresql://x")
    say(tmp_path, monkeypatch, "addresses", "dsn", "weak")
    say(tmp_path, monkeypatch, "environment", "dsn_file", "dsn")
    settings = Settings.load()
    assert origins(Settings, settings.config, settings.directory) == {"postgres.dsn_file": "environment"}


def test_no_postgres_is_a_mistake_of_those_who_need_it() -> None:
    with pytest.raises(SettingsError, match="JOBLOG_POSTGRES__DSN"):
        Settings.load().dsn()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("REPLICATON", "REPLICATION"),
        ("LANEZ", "LANES"),
        ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA__BOOTSTRAP_SERVERS"),
        ("HTTP_PORT", "HTTP__PORT"),
        ("WORKR__SLOTS", "WORKER__SLOTS"),
    ],
)
def test_a_mistyped_variable_is_refused_as_it_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    with monkeypatch.context() as environment:
        environment.setenv(f"JOBLOG_{name}", "3")
        with pytest.raises(SettingsError, match=f"JOBLOG_{name} is not a setting; did you mean JOBLOG_{meant}"):
            Settings.load()
    (tmp_path / ".env").write_text(f"JOBLOG_{name}=3\n")
    with pytest.raises(SettingsError, match="is not a setting"):
        Settings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TEST_BOOTSTRAP", "127.0.0.1:9092"),
        ("HTTP_PORT", "tcp://10.0.0.1:9101"),
        ("ELECTOR_SERVICE_HOST", "10.0.0.1"),
        ("ELECTOR_PORT_9101_TCP_PORT", "9101"),
        ("VERSION", "1.2"),
        ("WORKER", '{"slots": 3}'),
    ],
)
def test_what_others_set_under_our_prefix_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"JOBLOG_{name}", value)
    Settings.load()


def test_a_name_that_no_queue_can_have_is_told_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, WORKER__QUEUES="default,bad queue")
    with pytest.raises(SettingsError, match=r"JOBLOG_WORKER__QUEUES \(worker.queues\): 'bad queue'"):
        Settings.load()


@pytest.mark.parametrize("given", ["tasks.py", "./tasks", "./tasks.py"])
def test_a_file_is_no_module(given: str) -> None:
    with pytest.raises(SettingsError, match=r"JOBLOG_WORKER__TASKS.*is not a module name: write tasks$"):
        Settings.load(worker={"tasks": given})


def test_the_clients_get_what_is_set() -> None:
    kafka: dict[str, Any] = {
        "bootstrap_servers": "a:1,b:2",
        "security_protocol": "SSL",
        "ssl_ca_location": "ca.pem",
        "ssl_certificate_location": "me.pem",
        "ssl_key_location": "me.key",
        "ssl_key_password": "secret",
        "extra": {"client.rack": "r1"},
    }
    config = Settings.load(kafka=kafka).kafka.config()
    options = {name: value for name, value in config.options.items() if name != "logger"}
    assert config.bootstrap_servers == "a:1,b:2"
    assert options == {
        "security.protocol": "SSL",
        "ssl.ca.location": "ca.pem",
        "ssl.certificate.location": "me.pem",
        "ssl.key.location": "me.key",
        "ssl.key.password": "secret",
        "client.rack": "r1",
    }


def test_settings_never_change() -> None:
    settings = Settings.load()
    with pytest.raises(ValidationError):
        settings.lanes = 5  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.kafka.bootstrap_servers = "x"  # type: ignore[misc]


def test_addresses_are_for_their_owner_only_and_replaced_whole(tmp_path: Path) -> None:
    write_addresses(tmp_path, {"lanes": 3, "topic_prefix": "a."})
    path = write_addresses(tmp_path, {"lanes": 4})
    assert json.loads(path.read_text()) == {"lanes": 4}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["{", "", "[1]", "null"])
def test_broken_addresses_are_told_with_their_file(tmp_path: Path, text: str) -> None:
    (tmp_path / ".joblog").mkdir()
    (tmp_path / ".joblog" / "addresses.json").write_text(text)
    with pytest.raises(SettingsError, match=r"addresses\.json"):
        Settings.load()


def test_origins_name_the_strongest_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "joblog.toml").write_text("lanes = 8\nreplication = 3\n")
    (tmp_path / ".env").write_text("JOBLOG_REPLICATION=2\nJOBLOG_HTTP__PORT=1\n")
    set_all(monkeypatch, HTTP__PORT="2")
    settings = Settings.load()
    assert origins(Settings, settings.config, settings.directory) == {
        "lanes": "joblog.toml",
        "replication": ".env",
        "http.port": "environment",
    }


SASL = {"KAFKA__SECURITY_PROTOCOL": "SASL_SSL", "KAFKA__SASL_MECHANISM": "GSSAPI"}
SSL = {"KAFKA__SECURITY_PROTOCOL": "SSL"}


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"HTTP__ENABLED": "false", "HTTP__PORT": "9101"}, "http.port has no effect: http.enabled is false"),
        ({"HTTP__ENABLED": "false", "HTTP__HOST": "10.0.0.1"}, "http.host has no effect: http.enabled is false"),
        ({**SASL, "KAFKA__SASL_USERNAME": "me"}, "GSSAPI does not use sasl_username"),
        ({**SASL, "KAFKA__SASL_MECHANISM": "OAUTHBEARER", "KAFKA__SASL_PASSWORD": "x"}, "does not use sasl_password"),
        ({**SSL, "KAFKA__SSL_KEY_PASSWORD": "x"}, "ssl_key_password has no effect without ssl_key_location"),
        ({**SSL, "KAFKA__SSL_KEY_LOCATION": "k"}, "ssl_key_location has no effect without ssl_certificate_location"),
        ({**SSL, "KAFKA__SSL_CERTIFICATE_LOCATION": "k"}, "ssl_certificate_location needs ssl_key_location"),
        ({"KAFKA__EXTRA": '{"debug": 1}'}, "kafka.extra"),
        ({"WORKER__QUEUES": "a,b,a"}, "queue a is listed twice"),
        ({"WORKER__TASKS": "a,a"}, "module a is listed twice"),
        ({"WORKER__QUEUES": "Images"}, "'Images' is not a queue name: write images"),
        ({"QUEUE_SHARDS": '{"Hot": 1}'}, "'Hot' is not a queue name: write hot"),
        ({"CLIENT__TIMEOUT_S": "nan"}, "JOBLOG_CLIENT__TIMEOUT_S"),
        ({"CLIENT__TIMEOUT_S": "inf"}, "JOBLOG_CLIENT__TIMEOUT_S"),
        ({"WORKER__GRACE_S": "nan"}, "JOBLOG_WORKER__GRACE_S"),
        ({"WORKER__GRACE_S": "-1"}, "JOBLOG_WORKER__GRACE_S"),
        ({"WORKER__SLOTS": "0"}, "JOBLOG_WORKER__SLOTS"),
        ({"WORKER__PREFETCH": "-1"}, "JOBLOG_WORKER__PREFETCH"),
        ({"LOGS__LEVEL": "info"}, "JOBLOG_LOGS__LEVEL"),
    ],
    ids=str,
)
def test_what_would_have_no_effect_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str
) -> None:
    set_all(monkeypatch, **variables)
    with pytest.raises(SettingsError) as refused:
        Settings.load()
    assert told in str(refused.value)


@pytest.mark.parametrize("path", list(paths(Settings)), ids=".".join)
def test_an_empty_variable_is_as_if_it_were_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...]
) -> None:
    before = Settings.load()
    monkeypatch.setenv(variable(path), "")
    assert Settings.load() == before
    monkeypatch.delenv(variable(path))
    (tmp_path / ".env").write_text(f"{variable(path)}=\n")
    assert Settings.load() == before


@pytest.mark.parametrize(
    "text",
    [
        "directory = ''",
        "[kafka]\nbootstrap_servers = ''",
        "[kafka]\nsasl_username = ''",
        "[postgres]\ndsn = ''",
        "[postgres]\ndsn_file = ''",
        "[postgres]\nschema_name = ''",
        "[http]\nhost = ''",
        "[client]\nname = ''",
        "[elector]\nid = ''",
        "[worker]\nname = ''",
        "[worker]\nqueues = ['']",
        "[worker]\ntasks = ['']",
    ],
)
def test_an_empty_text_in_the_file_is_a_mistake(tmp_path: Path, text: str) -> None:
    (tmp_path / "joblog.toml").write_text(text)
    with pytest.raises(SettingsError, match="JOBLOG"):
        Settings.load()


def test_a_file_cannot_name_another_file(tmp_path: Path) -> None:
    (tmp_path / "joblog.toml").write_text("config = 'other.toml'")
    with pytest.raises(
        SettingsError, match=r"joblog\.toml: config has no effect in a file; .*--config.*JOBLOG_CONFIG"
    ):
        Settings.load()


def test_settings_have_one_name_in_code_files_and_the_environment() -> None:
    groups = [field.annotation for field in Settings.model_fields.values()]
    models = [Settings, *(one for one in groups if isinstance(one, type) and issubclass(one, BaseModel))]
    assert [name for model in models for name, field in model.model_fields.items() if field.alias] == []
