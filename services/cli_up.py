"""`joblog up`: everything on this machine."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from joblog.projections.migrate import upgrade
from joblog.services.cli_context import note
from joblog.services.cli_supervisor import Role, Supervisor
from joblog.services.cli_values import given, settings_of
from joblog.services.embedded import EmbeddedStack, StackAddresses
from joblog.services.embedded_ports import HOST, PORT_MAX, choose_ports
from joblog.services.process import stopped_by_signals
from joblog.services.settings import Settings
from joblog.services.settings_sources import write_addresses
from joblog.streams.admin import create_topics
from joblog.streams.errors import SettingsError, StackError
from joblog.streams.kafka import KafkaConfig

_READY_TIMEOUT_S: Final = 90.0
_POLL_S: Final = 0.2
#: How often it is looked whether the broker and the database still run; one that died is started again.
_SERVERS_S: Final = 5.0
#: Where a role may listen so that it can be asked on this machine whether it is ready.
_ASKED_HOSTS: Final = frozenset({HOST, "localhost", "0.0.0.0"})  # noqa: S104 - the user's choice


def up(
    ctx: typer.Context,
    *,
    directory: Annotated[Path | None, typer.Option(help="Where all data is kept; ./.joblog if not given.")] = None,
    kafka_port: Annotated[
        int | None, typer.Option(min=0, max=PORT_MAX, help="Kafka's port; a free one, and then always that.")
    ] = None,
    postgres_port: Annotated[int | None, typer.Option(min=0, max=PORT_MAX, help="Postgres' port, likewise.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Run a worker, too, with the tasks of these modules.")] = None,
    queues: Annotated[str | None, typer.Option(help="The worker's queues, with commas between them.")] = None,
    only_stack: Annotated[bool, typer.Option("--only-stack", help="Kafka and Postgres, and no roles.")] = False,
) -> None:
    """Run everything on this machine: Kafka, Postgres and all roles.

    Nothing has to be installed; a start after the first takes seconds. Other commands of this machine, called
    in the same directory, find the addresses by themselves. Ctrl-C stops all in order.

    Example: joblog up --tasks myapp.tasks --queues critical,default
    """
    settings = settings_of(ctx, **given(directory=directory))
    if settings.kafka.security_protocol != "PLAINTEXT":
        raise SettingsError(
            f"joblog up starts a Kafka of its own, which knows no {settings.kafka.security_protocol}: "
            "unset kafka.security_protocol, kafka.sasl_* and kafka.ssl_* here (JOBLOG_KAFKA__SECURITY_PROTOCOL ...)"
        )
    stop = threading.Event()
    with stopped_by_signals(stop):
        stack = EmbeddedStack(settings.directory, kafka_port=kafka_port, postgres_port=postgres_port, progress=note)
        try:
            addresses = stack.start()
            _prepare(settings, addresses)
            roles = [] if only_stack else _roles(stack.directory, tasks, queues)
            _run(stack, addresses, settings, roles, stop)
        finally:
            note("stopping Kafka and Postgres ...")
            stack.stop()


def _prepare(settings: Settings, addresses: StackAddresses) -> None:
    """Topics and tables, and the addresses for other commands."""
    note("creating topics and tables ...")
    config = KafkaConfig(addresses.bootstrap_servers)
    create_topics(config, settings.names, settings.lanes)
    upgrade(addresses.dsn, settings.postgres.schema_name)
    write_addresses(
        settings.directory,
        {
            "kafka": {"bootstrap_servers": addresses.bootstrap_servers},
            "postgres": {"dsn": addresses.dsn, "schema": settings.postgres.schema_name},
            "topic_prefix": settings.topic_prefix,
            "lanes": settings.lanes,
            "queue_shards": settings.queue_shards,
        },
    )


def _roles(directory: Path, tasks: str | None, queues: str | None) -> Sequence[Role]:
    """In the order in which they start, each with a port that it keeps."""
    arguments = {"projector": ["projector"], "elector": ["elector", "--id", "up"], "delays": ["delays"]}
    if tasks:
        queued = ["--queues", queues] if queues else []
        arguments["worker"] = ["worker", "--tasks", tasks, *queued]
    ports = choose_ports(directory / "http-ports.json", dict.fromkeys(arguments, None), note)
    return [Role(name, arguments[name], ports[name]) for name in arguments]


def _run(
    stack: EmbeddedStack, addresses: StackAddresses, settings: Settings, roles: Sequence[Role], stop: threading.Event
) -> None:
    """Until told to stop: look after the roles and the servers."""
    supervisor = Supervisor(roles, _environment(settings, addresses), _write)
    try:
        _wait_until_ready(supervisor, stop)
        if not stop.is_set():
            _tell(addresses, roles, settings)
        looked_at = time.monotonic()
        while not stop.wait(_POLL_S):
            supervisor.check()
            if time.monotonic() - looked_at > _SERVERS_S:
                stack.start()
                looked_at = time.monotonic()
    finally:
        supervisor.stop()


def _wait_until_ready(supervisor: Supervisor, stop: threading.Event) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    supervisor.check()
    while (waiting := supervisor.unready()) and not stop.wait(_POLL_S):
        supervisor.check()
        if time.monotonic() > deadline:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in waiting.items())
            raise StackError(f"not ready after {_READY_TIMEOUT_S:.0f} s: {reasons}")


def _environment(settings: Settings, addresses: StackAddresses) -> dict[str, str]:
    """What the roles get: this environment, and above all the addresses of this stack, and to answer how they are."""
    host = settings.http.host
    ours = {
        "JOBLOG_DIRECTORY": str(settings.directory.resolve()),
        "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": addresses.bootstrap_servers,
        "JOBLOG_POSTGRES__DSN": addresses.dsn,
        "JOBLOG_HTTP__ENABLED": "true",
        "JOBLOG_HTTP__HOST": host if host in _ASKED_HOSTS else HOST,
        "JOBLOG_LOGS__FORMAT": "json" if settings.logs.format == "json" else "console",
        "PYTHONUNBUFFERED": "1",
    }
    config = {"JOBLOG_CONFIG": str(settings.config)} if settings.config else {}
    others = {name: value for name, value in os.environ.items() if name != "JOBLOG_POSTGRES__DSN_FILE"}
    return {**others, **config, **ours}


def _write(name: str, line: str) -> None:
    note(f"{name:<9} | {line}")


def _tell(addresses: StackAddresses, roles: Sequence[Role], settings: Settings) -> None:
    """Where everything is, on stdout, for people and for scripts that wait for the last line."""
    rows = [("Kafka", addresses.bootstrap_servers), ("Postgres", addresses.dsn)]
    rows += [(role.name, f"{role.url}/metrics") for role in roles]
    for name, address in rows:
        print(f"{name:<10} {address}")
    print(f"ready: data in {settings.directory}; Ctrl-C stops all", flush=True)
