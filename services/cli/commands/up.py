"""`joblog up`: everything on this machine."""

import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from joblog.projections.outbox.operating import create as create_outbox
from joblog.projections.schema.prepare import prepare
from joblog.services.cli.commands.up_checks import ASKED_HOSTS, can_recur, look_for, refuse_idle
from joblog.services.cli.context import Output, OutputOption, note
from joblog.services.cli.extras import installing
from joblog.services.cli.output import print_document
from joblog.services.cli.values import Queues, given, settings_of
from joblog.services.embedded.ports import HOST, PORT_MAX, choose_ports
from joblog.services.embedded.stack import EmbeddedStack, StackAddresses
from joblog.services.monitoring.server import PrometheusServer, find_prometheus
from joblog.services.roles.runner import stopped_by_signals
from joblog.services.roles.supervisor import RoleCommand, Supervisor
from joblog.services.settings.model import Settings
from joblog.services.settings.sources import write_addresses
from joblog.streams.errors import SettingsError, StackError
from joblog.streams.kafka.admin import create_topics
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.triggers.handling import WAITING_FOR_TOPICS

_READY_TIMEOUT_S: Final = 90.0
_POLL_S: Final = 0.2
#: How often to check that the broker and the database still run; one that died is started again.
_SERVERS_S: Final = 5.0


def up(
    ctx: typer.Context,
    *,
    directory: Annotated[
        Path | None, typer.Option(help="Directory for all data and addresses.", show_default="./.joblog")
    ] = None,
    kafka_port: Annotated[
        int | None,
        typer.Option(min=0, max=PORT_MAX, help="Port for Kafka.", show_default="a free one, kept for the next start"),
    ] = None,
    postgres_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=PORT_MAX, help="Port for Postgres.", show_default="a free one, kept for the next start"
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(help="Also run a worker with the tasks of these modules, comma-separated.", show_default="none"),
    ] = None,
    queues: Queues = None,
    monitor: Annotated[
        bool,
        typer.Option("--monitor", help="Also run Prometheus on the metrics of all roles, with Joblog's alerts."),
    ] = False,
    no_recurring: Annotated[bool, typer.Option("--no-recurring", help="Leave the recurring process out.")] = False,
    triggers: Annotated[
        str | None,
        typer.Option(help="Also run the triggers of these modules, comma-separated.", show_default="none"),
    ] = None,
    hooks: Annotated[
        str | None,
        typer.Option(help="Also run the hooks of these modules, comma-separated.", show_default="none"),
    ] = None,
    outbox: Annotated[
        bool, typer.Option("--outbox", help="Also make an outbox in this Postgres, and run its relay.")
    ] = False,
    only_stack: Annotated[bool, typer.Option("--only-stack", help="Start Kafka and Postgres only.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run everything on this machine: Kafka, Postgres and all roles.

    Nothing has to be installed. The first start takes about a minute, later ones seconds; data is kept. Other joblog
    commands in the same directory find the addresses by themselves. Press Ctrl-C to stop everything.

    Example: joblog up --tasks myapp.tasks --queues critical,default
    """
    settings = settings_of(
        ctx,
        **given(directory=directory),
        worker=given(tasks=tasks, queues=queues),
        triggers=given(modules=triggers),
        hooks=given(modules=hooks),
    )
    for is_wrong, what in (
        (
            only_stack and no_recurring,
            "--no-recurring has no effect with --only-stack, which runs no role",
        ),
        (only_stack and tasks is not None, "--tasks has no effect with --only-stack, which runs no worker"),
        (only_stack and queues is not None, "--queues has no effect with --only-stack, which runs no worker"),
        (only_stack and monitor, "--monitor has no effect with --only-stack, which runs no roles"),
        (only_stack and triggers is not None, "--triggers has no effect with --only-stack, which runs no roles"),
        (only_stack and hooks is not None, "--hooks has no effect with --only-stack, which runs no roles"),
        (only_stack and outbox, "--outbox has no effect with --only-stack, which runs no roles"),
        (
            outbox and settings.outbox.dsn is not None,
            "--outbox makes one in this Postgres: leave outbox.dsn out, or run `joblog outbox` beside `joblog up`",
        ),
        (queues is not None and not settings.worker.tasks, "--queues has no effect without --tasks: no worker runs"),
    ):
        if is_wrong:
            raise SettingsError(what)
    refuse_idle(settings)
    for name in settings.worker.tasks:
        look_for(name, "tasks")
    for name in settings.triggers.modules:
        look_for(name, "triggers")
    for name in settings.hooks.modules:
        look_for(name, "hooks")
    if settings.triggers.modules and find_spec("faust") is None:
        raise SettingsError(f"triggers need the package faust: {installing('faust')}")
    if monitor:
        find_prometheus()  # an error before anything starts
    stop = threading.Event()
    with stopped_by_signals(stop):
        stack = EmbeddedStack(settings.directory, kafka_port=kafka_port, postgres_port=postgres_port, progress=note)
        addresses = stack.start()
        try:
            _prepare(settings, addresses)
            if outbox:
                create_outbox(addresses.dsn, settings.outbox.schema_name)
            recurring = not only_stack and not no_recurring and can_recur()
            roles = [] if only_stack else _roles(stack.directory, settings, recurring=recurring, outbox=outbox)
            with _monitored(stack.directory, roles, monitor) as prometheus:
                _run(stack, addresses, settings, roles, stop, output, prometheus)
        finally:
            note("stopping Kafka and Postgres ...")
            stack.stop()


def _prepare(settings: Settings, addresses: StackAddresses) -> None:
    """Topics and tables, and the addresses for other commands."""
    note("creating topics and tables ...")
    config = KafkaConfig(addresses.bootstrap_servers)
    create_topics(config, settings.names, settings.lanes)
    prepare(addresses.dsn, settings.postgres.schema_name)
    write_addresses(
        settings.directory,
        {
            "kafka": {"bootstrap_servers": addresses.bootstrap_servers},
            "postgres": {"dsn": addresses.dsn, "schema_name": settings.postgres.schema_name},
            "topic_prefix": settings.topic_prefix,
            "lanes": settings.lanes,
            "queue_shards": settings.queue_shards,
            "queue_shards_before": settings.queue_shards_before,
        },
    )


def _roles(
    directory: Path, settings: Settings, *, recurring: bool = False, outbox: bool = False
) -> Sequence[RoleCommand]:
    """The roles in the order in which they start, each with a port that it keeps."""
    elector = f"up-{blake2b(str(directory).encode(), digest_size=4).hexdigest()}"  # a name that nobody else chooses
    arguments = {"projector": ["projector"], "elector": ["elector", "--id", elector], "delays": ["delays"]}
    if recurring:
        arguments["recurring"] = ["recurring"]
    if settings.worker.tasks:
        queued = ["--queues", ",".join(settings.worker.queues)] if settings.worker.queues else []
        arguments["worker"] = ["worker", "--tasks", ",".join(settings.worker.tasks), *queued]
    if settings.triggers.modules:
        arguments["triggers"] = ["triggers", "--modules", ",".join(settings.triggers.modules)]
    if settings.hooks.modules:
        arguments["hooks"] = ["hooks", "--modules", ",".join(settings.hooks.modules)]
    if outbox:
        arguments["outbox"] = ["outbox"]
    ports = choose_ports(directory / "http-ports.json", dict.fromkeys(arguments, None), note)
    return [RoleCommand(name, arguments[name], ports[name]) for name in arguments]


@contextmanager
def _monitored(directory: Path, roles: Sequence[RoleCommand], monitor: bool) -> Iterator[PrometheusServer | None]:
    """A Prometheus that reads the metrics of these roles, if one is wanted; it stops after them."""
    if not monitor:
        yield None
        return
    targets = {role.name: [f"{HOST}:{role.http_port}"] for role in roles}
    with PrometheusServer(directory / "prometheus", targets, note) as server:
        yield server


def _run(
    stack: EmbeddedStack,
    addresses: StackAddresses,
    settings: Settings,
    roles: Sequence[RoleCommand],
    stop: threading.Event,
    output: Output,
    prometheus: PrometheusServer | None,
) -> None:
    """Keep the roles and the servers running until told to stop."""
    supervisor = Supervisor(roles, _environment(settings, addresses), _write)
    try:
        _wait_until_ready(supervisor, stop)
        if not stop.is_set():
            _tell(addresses, roles, settings, output, prometheus)
        looked_at = time.monotonic()
        while not stop.wait(_POLL_S):
            supervisor.check()
            if time.monotonic() - looked_at > _SERVERS_S:
                stack.start()
                if prometheus is not None:
                    prometheus.start()
                looked_at = time.monotonic()
    finally:
        supervisor.stop()


def _wait_until_ready(supervisor: Supervisor, stop: threading.Event) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    supervisor.check()
    while (waiting := _hindering(supervisor.unready())) and not stop.wait(_POLL_S):
        supervisor.check()
        if time.monotonic() > deadline:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in waiting.items())
            raise StackError(f"not ready after {_READY_TIMEOUT_S:.0f} s: {reasons}")


def _hindering(unready: Mapping[str, str]) -> Mapping[str, str]:
    """The roles without which nothing is ready: not triggers whose topics another service has still to create."""
    return {name: reason for name, reason in unready.items() if not reason.startswith(WAITING_FOR_TOPICS)}


def _environment(settings: Settings, addresses: StackAddresses) -> dict[str, str]:
    """The roles' environment: this one, the addresses of this stack, and HTTP, by which they are probed."""
    host = settings.http.host
    ours = {
        "JOBLOG_DIRECTORY": str(settings.directory.resolve()),
        "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": addresses.bootstrap_servers,
        "JOBLOG_POSTGRES__DSN": addresses.dsn,
        "JOBLOG_HTTP__ENABLED": "true",
        "JOBLOG_HTTP__HOST": host if host in ASKED_HOSTS else HOST,
        "JOBLOG_LOGS__FORMAT": "json" if settings.logs.format == "json" else "console",
        "PYTHONUNBUFFERED": "1",
    }
    config = {"JOBLOG_CONFIG": str(settings.config)} if settings.config else {}
    others = {name: value for name, value in os.environ.items() if name != "JOBLOG_POSTGRES__DSN_FILE"}
    return {**others, **config, **ours}


def _write(name: str, line: str) -> None:
    note(f"{name:<9} | {line}")


def _tell(
    addresses: StackAddresses,
    roles: Sequence[RoleCommand],
    settings: Settings,
    output: Output,
    prometheus: PrometheusServer | None = None,
) -> None:
    """Print where everything is, on stdout; the last line says that all is ready."""
    rows = [("Kafka", addresses.bootstrap_servers), ("Postgres", without_password(addresses.dsn))]
    rows += [(role.name, f"{role.url}/metrics") for role in roles]
    if prometheus is not None:
        rows.append(("Prometheus", prometheus.url))
    if output is Output.JSON:
        print_document({**{name.lower(): at for name, at in rows}, "directory": str(settings.directory)}, output)
        sys.stdout.flush()
        return
    if roles and not settings.worker.tasks:
        rows.append(("no worker", "jobs will wait: start again with --tasks, such as --tasks myapp.tasks"))
    for name, address in rows:
        print(f"{name:<10} {address}")
    print(f"ready: data in {settings.directory}; press Ctrl-C to stop", flush=True)


def without_password(dsn: str) -> str:
    """A DSN that may be shown; the file with the addresses has the password."""
    return re.sub(r"(//[^:/@]*):[^@/]*@", r"\1@", dsn)
