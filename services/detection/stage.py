"""What a demonstration takes place on: Kafka, Postgres, topics, tables, and the roles as processes."""

import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGTERM
from typing import Any, Final

from joblog.projections.migrate import upgrade
from joblog.services.detection.names import CLEANUP_QUEUE, RUN_QUEUE, SERVER
from joblog.services.embedded import EmbeddedStack
from joblog.services.embedded_process import ServerProcess
from joblog.streams.admin import create_topics
from joblog.streams.errors import StackError
from joblog.streams.kafka import KafkaConfig
from joblog.streams.topics import TopicNames

LANES: Final = 4
SLOTS: Final = 2 * (os.cpu_count() or 1)
ROLES: Final = ("elector", "delays", "projector", "worker")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything is. Topics, groups and tables are of this demonstration alone."""

    kafka: KafkaConfig
    names: TopicNames
    lanes: int
    dsn: str
    schema: str
    directory: Path
    roles: Sequence[ServerProcess] = ()

    @property
    def config_file(self) -> Path:
        """The settings of this demonstration, for any command of `joblog`."""
        return self.directory / "joblog.toml"

    @property
    def logs(self) -> Path:
        """What the roles write."""
        return self.directory / "logs"

    def check(self) -> None:
        """StackError, with the end of its log, when a role has ended."""
        for role in self.roles:
            if not role.is_running:
                tail = role.log_file.read_text(errors="replace").splitlines()[-5:]
                raise StackError("\n".join([f"{role.name} has ended; the end of {role.log_file}:", *tail]))


@contextmanager
def set_up(directory: Path, bootstrap: str | None, dsn: str | None, progress: Progress) -> Iterator[Stage]:
    """Everything up, in `directory`; everything down again on leaving. What is given is used, else started.

    Raises StackError, TopicsError, ProjectionError when something cannot be set up; nothing is left running then.
    """
    name = secrets.token_hex(3)
    with ExitStack() as cleanup:
        if not (bootstrap and dsn):
            started = EmbeddedStack(directory / "stack", progress=progress, kafka=not bootstrap, postgres=not dsn)
            addresses = cleanup.enter_context(started).addresses
            bootstrap, dsn = bootstrap or addresses.bootstrap_servers, dsn or addresses.dsn
        stage = Stage(
            # Of what librdkafka says, only errors: it writes to stderr, between the lines that people read.
            kafka=KafkaConfig(bootstrap, {"log_level": "3"}),
            names=TopicNames(f"demo-{name}."),
            lanes=LANES,
            dsn=dsn,
            schema=f"demo_{name}",
            directory=directory / name,
        )
        stage.directory.mkdir(parents=True)
        progress("creating topics and tables ...")
        create_topics(stage.kafka, stage.names, stage.lanes)
        upgrade(stage.dsn, stage.schema)
        write_settings(stage)
        yield cleanup.enter_context(_roles(stage, progress))


@contextmanager
def _roles(stage: Stage, progress: Progress) -> Iterator[Stage]:
    """The stage with its roles running, each with a guard that ends it should this process die."""
    started: list[ServerProcess] = []
    progress(f"starting {', '.join(ROLES)} ...")
    try:
        for role in ROLES:
            started.append(_start(stage, role))  # noqa: PERF401 - those that started are stopped if one does not
        yield replace(stage, roles=started)
    finally:
        # The worker first: its last reports shall still be elected and projected.
        for process in reversed(started):
            process.ask_to_stop()
            process.wait()


def _start(stage: Stage, role: str) -> ServerProcess:
    command = [sys.executable, "-m", "joblog.services.cli", "--config", str(stage.config_file), role]
    log_file = stage.logs / f"{role}.log"
    stage.logs.mkdir(exist_ok=True)
    return ServerProcess(role, command, directory=stage.directory, log_file=log_file, polite=SIGTERM)


def write_settings(stage: Stage) -> None:
    """The settings file of a demonstration; only its owner can read it, as the DSN may hold a password."""
    settings: Mapping[str, Mapping[str, Any]] = {
        "kafka": {"bootstrap_servers": stage.kafka.bootstrap_servers},
        "postgres": {"dsn": stage.dsn, "schema": stage.schema},
        "worker": {
            "name": SERVER,
            "tasks": ["joblog.services.detection.tasks"],
            "queues": [RUN_QUEUE, CLEANUP_QUEUE],
            "slots": SLOTS,
        },
        "logs": {"format": "json"},
    }
    # What JSON writes for text, numbers and lists of them means the same in TOML.
    lines = [f"topic_prefix = {json.dumps(stage.names.prefix)}", f"lanes = {stage.lanes}"]
    for section, values in settings.items():
        lines += ["", f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    with os.fdopen(os.open(stage.config_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n".join(lines) + "\n")
