"""`joblog bench`: how fast this installation is, measured from outside, one figure a line."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import typer
from joblog.projections import migrate
from joblog.projections.schema import drop
from joblog.services.bench_election import election, waiting
from joblog.services.bench_latency import delays, latency, latency_under_load
from joblog.services.bench_measurement import Measurement
from joblog.services.bench_projection import projection
from joblog.services.bench_roles import Cluster
from joblog.services.bench_throughput import enqueue_many, throughput
from joblog.services.cli_context import Output, OutputOption, note
from joblog.services.cli_values import settings_of
from joblog.services.output import print_rows
from joblog.streams.admin import create_topics
from joblog.streams.errors import SettingsError
from joblog.streams.kafka import KafkaConfig, admin
from joblog.streams.topics import TOPICS, TopicNames

app = typer.Typer(no_args_is_help=True)

COLUMNS: Final = ("bench", "metric", "value", "unit", "run")
TIMEOUT_S: Final = 600.0

JobsOption = Annotated[int, typer.Option("--jobs", min=1, help="How many jobs.")]
LanesOption = Annotated[int, typer.Option("--lanes", min=1, max=4096, help="Lanes of the benchmark's own topics.")]
EmbeddedOption = Annotated[
    bool, typer.Option("--embedded", help="Start a Kafka and a Postgres for this, instead of using the settings'.")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=1, help="Seconds until it is given up.")]


@app.callback()
def bench() -> None:
    """Measure this installation: topics and tables of its own, removed afterwards.

    Everything runs on this machine but the brokers and the database, which are the settings', or started here
    with --embedded. With --output json each figure is one object a line: bench, metric, value, unit, run.
    """


@contextmanager
def cluster_of(ctx: typer.Context, lanes: int, embedded: bool) -> Iterator[Cluster]:
    """Brokers and database, with fresh topics and tables that are removed at the end."""
    with ExitStack() as stack:
        if embedded:
            kafka, dsn = stack.enter_context(_embedded())
        else:
            settings = settings_of(ctx)
            kafka, dsn = settings.kafka.config(), settings.dsn()
        with fresh(kafka, dsn, lanes) as cluster:
            yield cluster


@contextmanager
def fresh(kafka: KafkaConfig, dsn: str, lanes: int) -> Iterator[Cluster]:
    """Topics and tables of a benchmark's own."""
    token = token_hex(4)
    names, schema = TopicNames(f"joblog-bench-{token}."), f"joblog_bench_{token}"
    create_topics(kafka, names, lanes)
    migrate.upgrade(dsn, schema)
    try:
        yield Cluster(kafka, dsn, names, schema, lanes)
    finally:
        client = admin(kafka)  # kept until the end: its answers go with it
        deletions = client.delete_topics([names.of(topic) for topic in TOPICS])
        for deletion in deletions.values():
            deletion.result(60)
        drop(dsn, schema)


@contextmanager
def _embedded() -> Iterator[tuple[KafkaConfig, str]]:
    # The embedded stack is an extra, which a benchmark of a real cluster does without.
    try:
        embedded = import_module("joblog.services.embedded")
    except ModuleNotFoundError as exc:
        raise SettingsError(f"--embedded needs the package {exc.name}: pip install 'joblog[embedded]'") from exc
    with (
        TemporaryDirectory(prefix="joblog-bench-") as directory,
        embedded.EmbeddedStack(Path(directory), progress=note) as stack,
    ):
        yield KafkaConfig(stack.addresses.bootstrap_servers), stack.addresses.dsn


def _print(measurements: Iterable[Measurement], output: Output) -> None:
    print_rows((one.row() for one in measurements), COLUMNS, output)


@app.command("throughput")
def throughput_command(
    ctx: typer.Context,
    jobs: JobsOption = 100_000,
    lanes: LanesOption = 4,
    embedded: EmbeddedOption = False,
    timeout: TimeoutOption = TIMEOUT_S,
    output: OutputOption = Output.TABLE,
) -> None:
    """Jobs per second, enqueued and worked at the same time: into the log, and into Postgres.

    Example: joblog bench throughput --jobs 100000 --output json
    """
    with cluster_of(ctx, lanes, embedded) as cluster:
        _print(enqueue_many(cluster, jobs), output)
    for postgres in (False, True):
        with cluster_of(ctx, lanes, embedded) as cluster:
            _print(throughput(cluster, jobs, timeout, postgres=postgres), output)


@app.command("latency")
def latency_command(
    ctx: typer.Context,
    jobs: JobsOption = 300,
    load: Annotated[float, typer.Option(min=0, help="Other jobs a second; 0 for none.")] = 0,
    seconds: Annotated[float, typer.Option(min=1, help="How long to measure under load.")] = 15,
    lanes: LanesOption = 4,
    embedded: EmbeddedOption = False,
    timeout: TimeoutOption = TIMEOUT_S,
    output: OutputOption = Output.TABLE,
) -> None:
    """Milliseconds from the call that creates a job to its start, at rest or under load.

    Example: joblog bench latency --load 5000
    """
    with cluster_of(ctx, lanes, embedded) as cluster:
        if load > 0:
            _print(latency_under_load(cluster, load, seconds, timeout), output)
        else:
            _print(latency(cluster, jobs, timeout), output)


@app.command("delays")
def delays_command(
    ctx: typer.Context,
    jobs: JobsOption = 1_000,
    lanes: LanesOption = 4,
    embedded: EmbeddedOption = False,
    timeout: TimeoutOption = TIMEOUT_S,
    output: OutputOption = Output.TABLE,
) -> None:
    """Milliseconds from the instant a job is scheduled for to its start.

    Example: joblog bench delays --jobs 1000
    """
    with cluster_of(ctx, lanes, embedded) as cluster:
        _print(delays(cluster, jobs, timeout), output)


@app.command("election")
def election_command(
    ctx: typer.Context,
    jobs: JobsOption = 100_000,
    lanes: LanesOption = 4,
    embedded: EmbeddedOption = False,
    timeout: TimeoutOption = TIMEOUT_S,
    output: OutputOption = Output.TABLE,
) -> None:
    """Commands and reports per second that one elector decides.

    Example: joblog bench election --jobs 100000
    """
    with cluster_of(ctx, lanes, embedded) as cluster:
        _print(election(cluster, jobs, timeout), output)


@app.command("waiting")
def waiting_command(
    ctx: typer.Context,
    jobs: JobsOption = 100_000,
    waiting_jobs: Annotated[int, typer.Option("--waiting", min=1000, help="Jobs that wait meanwhile.")] = 1_000_000,
    lanes: LanesOption = 4,
    embedded: EmbeddedOption = False,
    timeout: TimeoutOption = TIMEOUT_S,
    output: OutputOption = Output.TABLE,
) -> None:
    """What many waiting jobs cost: an elector's speed beside them, its memory, its take-over.

    Example: joblog bench waiting --waiting 1000000
    """
    with cluster_of(ctx, lanes, embedded) as cluster:
        _print(waiting(cluster, waiting_jobs, jobs, timeout), output)


@app.command("projection")
def projection_command(
    ctx: typer.Context,
    jobs: JobsOption = 100_000,
    lanes: LanesOption = 4,
    embedded: EmbeddedOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Events per second that one projector applies.

    Example: joblog bench projection --jobs 100000
    """
    with cluster_of(ctx, lanes, embedded) as cluster:
        _print(projection(cluster, jobs), output)


@app.command("all")
def all_command(
    ctx: typer.Context,
    jobs: JobsOption = 100_000,
    lanes: LanesOption = 4,
    embedded: EmbeddedOption = False,
    timeout: TimeoutOption = TIMEOUT_S,
    output: OutputOption = Output.TABLE,
) -> None:
    """All of them but `waiting`, one after the other; latency also at half the measured throughput.

    Example: joblog bench all --embedded --output json
    """
    with ExitStack() as stack:
        if embedded:
            kafka, dsn = stack.enter_context(_embedded())
        else:
            settings = settings_of(ctx)
            kafka, dsn = settings.kafka.config(), settings.dsn()
        _print(_all(kafka, dsn, jobs, lanes, timeout), output)


def _all(kafka: KafkaConfig, dsn: str, jobs: int, lanes: int, timeout: float) -> Iterator[Measurement]:
    with fresh(kafka, dsn, lanes) as cluster:
        yield from enqueue_many(cluster, jobs)
    half = 0.0
    for postgres in (False, True):
        with fresh(kafka, dsn, lanes) as cluster:
            for one in throughput(cluster, jobs, timeout, postgres=postgres):
                half = half or one.value / 2
                yield one
    with fresh(kafka, dsn, lanes) as cluster:
        yield from latency(cluster, 300, timeout)
    with fresh(kafka, dsn, lanes) as cluster:
        yield from latency_under_load(cluster, half, 15, timeout)
    with fresh(kafka, dsn, lanes) as cluster:
        yield from delays(cluster, 1_000, timeout)
    with fresh(kafka, dsn, lanes) as cluster:
        yield from election(cluster, jobs, timeout)
    with fresh(kafka, dsn, lanes) as cluster:
        yield from projection(cluster, jobs)
