"""The infrastructure of a demonstration: Kafka, Postgres, topics, tables, and the roles as processes."""

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from joblog.projections.schema.migrate import upgrade
from joblog.services.detection.names import CLEANUP_QUEUE, MINUTE_S, RUN_QUEUE, SERVER, WORKSPACE
from joblog.services.detection.requests import create_topic
from joblog.services.detection.uploads import UPLOADS
from joblog.services.embedded.ports import HOST, choose_ports
from joblog.services.embedded.stack import EmbeddedStack
from joblog.services.roles.supervisor import RoleCommand, Supervisor
from joblog.services.settings.errors import PREFIX, variable
from joblog.services.settings.model import Settings
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import StackError
from joblog.streams.kafka import clients
from joblog.streams.kafka.admin import create_topics, delete_topics
from joblog.streams.kafka.clients import KafkaConfig

LANES: Final = 4
SLOTS: Final = 2 * (os.cpu_count() or 1)
ROLES: Final = ("projector", "elector", "delays", "worker", "triggers", "recurring")
#: How long brokers may take to create the topics, or to answer at all.
TOPICS_TIMEOUT_S: Final = 30
_TOPICS: Final = "demo-"
# librdkafka would write to stderr, between the lines of the demonstration; its errors are raised anyway.
_QUIET: Final = {"log_level": "2"}

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything is. Topics, groups and tables belong to this demonstration only."""

    kafka: KafkaConfig
    names: TopicNames
    lanes: int
    dsn: str
    schema: str
    directory: Path
    minute: timedelta = timedelta(minutes=1)
    supervisor: Supervisor | None = None
    http_ports: Mapping[str, int] = field(default_factory=dict)

    @property
    def config_file(self) -> Path:
        """A settings file with which `joblog` commands use this demonstration."""
        return self.directory / "joblog.toml"

    @property
    def logs(self) -> Path:
        """The directory of the roles' logs."""
        return self.directory / "logs"

    @property
    def metrics(self) -> Mapping[str, str]:
        """Where each role tells its metrics to Prometheus."""
        return {role: f"http://{HOST}:{port}/metrics" for role, port in self.http_ports.items()}

    def check(self) -> None:
        """Restart roles that died; StackError if one keeps dying."""
        assert self.supervisor is not None
        try:
            self.supervisor.check()
        except StackError as exc:
            raise StackError(f"{exc} in {self.logs}") from exc

    def unready(self) -> Mapping[str, str]:
        """The roles that are not ready, and why."""
        assert self.supervisor is not None
        return self.supervisor.unready()


@contextmanager
def set_up(
    directory: Path, bootstrap: str | None, dsn: str | None, minute: timedelta, progress: Progress
) -> Iterator[Stage]:
    """Start everything in `directory`, and stop it on leaving. Kafka and Postgres are started unless given.

    Raises StackError, TopicsError or ProjectionError if something cannot be set up; nothing is left running then.
    """
    with ExitStack() as cleanup:
        if not (bootstrap and dsn):
            started = EmbeddedStack(directory / "stack", progress=progress, kafka=not bootstrap, postgres=not dsn)
            addresses = cleanup.enter_context(started).addresses
        name = secrets.token_hex(3)
        stage = Stage(
            kafka=_given(bootstrap) if bootstrap else KafkaConfig(addresses.bootstrap_servers, _QUIET),
            names=TopicNames(f"{_TOPICS}{name}."),
            lanes=LANES,
            dsn=dsn or addresses.dsn,
            schema=f"demo_{name}",
            directory=directory / name,
            minute=minute,
        )
        stage.logs.mkdir(parents=True)
        progress("creating topics and tables ...")
        if not bootstrap:
            delete_earlier(stage.kafka)
        create_topics(stage.kafka, stage.names, stage.lanes, timeout_s=TOPICS_TIMEOUT_S)
        create_topic(stage.kafka, stage.names.prefix + UPLOADS, timeout_s=TOPICS_TIMEOUT_S)
        upgrade(stage.dsn, stage.schema)
        write_settings(stage)
        progress(f"starting {', '.join(ROLES)} ...")
        ports = choose_ports(directory / "http-ports.json", dict.fromkeys(ROLES, None), progress)
        roles = [RoleCommand(role, [role], ports[role]) for role in ROLES]
        supervisor = Supervisor(roles, environment(stage, is_given=bool(bootstrap)), _writer(stage.logs))
        cleanup.callback(supervisor.stop)
        yield replace(stage, supervisor=supervisor, http_ports=ports)


def delete_earlier(config: KafkaConfig) -> None:
    """Delete the topics of earlier demonstrations from our own broker, which they would slow down."""
    client = clients.admin(config)
    earlier = [name for name in client.list_topics(timeout=TOPICS_TIMEOUT_S).topics if name.startswith(_TOPICS)]
    if earlier:
        delete_topics(client, earlier, TOPICS_TIMEOUT_S)


def _given(bootstrap: str) -> KafkaConfig:
    """An existing cluster; its credentials come from the usual settings."""
    config = Settings.load(kafka={"bootstrap_servers": bootstrap}).kafka.config()
    return replace(config, options={**config.options, **_QUIET})


def _writer(logs: Path) -> Callable[[str, str], None]:
    def write(role: str, line: str) -> None:
        with (logs / f"{role}.log").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    return write


def environment(stage: Stage, *, is_given: bool) -> dict[str, str]:
    """The roles' environment: none of this process's settings, except the credentials of a given cluster."""
    kept = f"{PREFIX}KAFKA__" if is_given else None
    others = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) or (kept is not None and name.startswith(kept))
    }
    ours = {variable(path): _text(value) for path, value in _settings(stage).items()}
    # They are probed by HTTP, whatever a settings file here says.
    asked = {f"{PREFIX}HTTP__ENABLED": "true", f"{PREFIX}HTTP__HOST": HOST}
    own = {WORKSPACE: str(stage.directory), MINUTE_S: str(stage.minute / timedelta(seconds=1))}
    return {**others, **ours, **asked, **own, "PYTHONUNBUFFERED": "1"}


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def write_settings(stage: Stage) -> None:
    """Write the settings file; only its owner can read it, as the DSN may hold a password."""
    lines: list[str] = []
    section: tuple[str, ...] = ()
    for path, value in _settings(stage).items():
        if path[:-1] != section:
            section = path[:-1]
            lines.append(f"[{'.'.join(section)}]")
        # Text, numbers and lists are written alike in JSON and TOML.
        lines.append(f"{path[-1]} = {json.dumps(value)}")
    with os.fdopen(os.open(stage.config_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n".join(lines) + "\n")


def _settings(stage: Stage) -> Mapping[tuple[str, ...], Any]:
    return {
        ("topic_prefix",): stage.names.prefix,
        ("lanes",): stage.lanes,
        ("kafka", "bootstrap_servers"): stage.kafka.bootstrap_servers,
        ("postgres", "dsn"): stage.dsn,
        ("postgres", "schema_name"): stage.schema,
        ("worker", "name"): SERVER,
        ("worker", "tasks"): ["joblog.services.detection.tasks"],
        ("worker", "queues"): [RUN_QUEUE, CLEANUP_QUEUE],
        ("worker", "slots"): SLOTS,
        ("triggers", "modules"): ["joblog.services.detection.triggers"],
        ("logs", "format"): "json",
    }
