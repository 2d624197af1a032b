"""`joblog bench`: how fast this installation is, one figure per line."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from inspect import Signature, signature
from math import isfinite
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import typer
from joblog.projections.replay.rebuild.share import BESIDE
from joblog.services.bench.batch import batch
from joblog.services.bench.beside import beside
from joblog.services.bench.election import election, waiting
from joblog.services.bench.features import FEATURES, feature
from joblog.services.bench.latency import delays, latency, latency_under_load
from joblog.services.bench.measurement import Measurement
from joblog.services.bench.processes import Cluster
from joblog.services.bench.projection import projection
from joblog.services.bench.rebuild import replay_rebuild
from joblog.services.bench.replay import replay
from joblog.services.bench.throughput import enqueue_many, throughput
from joblog.services.cli.commands.bench_servers import TIMEOUT_S, brokers, fresh
from joblog.services.cli.context import Output, OutputOption
from joblog.services.cli.output import print_rows
from joblog.streams.errors import InvalidData
from joblog.streams.kafka.clients import KafkaConfig

app = typer.Typer(no_args_is_help=True)

COLUMNS: Final = ("bench", "metric", "value", "unit", "run")
#: What `latency` measures if not told otherwise: so many jobs, or under load so many seconds.
UNLOADED_JOBS: Final = 300
LOADED_S: Final = 15.0
_LAST: Final = ("lanes", "embedded", "timeout", "output")

Clusters: TypeAlias = Callable[[], AbstractContextManager[Cluster]]
Bench = TypeVar("Bench", bound=Callable[..., Iterator[Measurement]])


def _finite(value: float) -> float:
    if not isfinite(value):
        raise typer.BadParameter("give a finite number")
    return value


JobsOption = Annotated[int, typer.Option("--jobs", min=1, help="Number of jobs.")]
LanesOption = Annotated[
    int, typer.Option("--lanes", min=1, max=4096, help="Number of lanes of the benchmark's topics.")
]
EmbeddedOption = Annotated[
    bool,
    typer.Option(
        "--embedded", help="Start Kafka and Postgres for the benchmark instead of using those of the settings."
    ),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=1, callback=_finite, help="Give up after this many seconds.")
]


@app.callback()
def bench() -> None:
    """Benchmark this installation, on topics and tables of its own that are removed afterwards.

    All of Joblog's processes run on this machine. Kafka and Postgres are those of the settings; with --embedded they
    are started here and warmed up first, which takes about half a minute. --output json prints one object per figure:
    bench, metric, value, unit, run.
    """


def _command(name: str) -> Callable[[Bench], Bench]:
    """Make a command of a function that measures: it gets clusters and its own options; shared options are added."""

    def made(measure: Bench) -> Bench:
        def command(
            ctx: typer.Context,
            lanes: LanesOption = 4,
            embedded: EmbeddedOption = False,
            output: OutputOption = Output.TABLE,
            **own: Any,
        ) -> None:
            where: list[tuple[KafkaConfig, str]] = []
            # Options are checked here, before servers are started; clusters are made when a benchmark begins.
            measurements = measure(lambda: fresh(*where[0], lanes), **own)
            with brokers(ctx, embedded) as found:
                where.append(found)
                print_rows((one.row() for one in measurements), COLUMNS, output)

        _, *own = signature(measure).parameters.values()
        *shared, _ = signature(command).parameters.values()
        options = sorted((*shared, *own), key=lambda one: _LAST.index(one.name) if one.name in _LAST else -1)
        command.__dict__["__signature__"] = Signature(options)
        command.__doc__ = measure.__doc__
        app.command(name)(command)
        return measure

    return made


@_command("throughput")
def throughput_command(
    cluster: Clusters, jobs: JobsOption = 100_000, timeout: TimeoutOption = TIMEOUT_S
) -> Iterator[Measurement]:
    """Jobs per second, created and run at the same time: into the log, and into Postgres.

    Example: joblog bench throughput --jobs 100000 --output json
    """
    with cluster() as one:
        yield from enqueue_many(one, jobs)
    for postgres in (False, True):
        with cluster() as one:
            yield from throughput(one, jobs, timeout, postgres=postgres)


@_command("features")
def features_command(
    cluster: Clusters, jobs: JobsOption = 50_000, timeout: TimeoutOption = TIMEOUT_S
) -> Iterator[Measurement]:
    """Jobs per second into the log of jobs with a mutex, with unique keys, in a batch, and plain ones beside them.

    Example: joblog bench features --embedded
    """
    for name in FEATURES:
        with cluster() as one:
            yield from feature(one, name, jobs, timeout)


@_command("latency")
def latency_command(
    cluster: Clusters,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Number of jobs without load.", show_default="300")
    ] = None,
    load: Annotated[
        float, typer.Option(min=0, callback=_finite, help="Other jobs per second meanwhile; 0 for none.")
    ] = 0,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="How long to measure under load.", show_default="15")
    ] = None,
    timeout: TimeoutOption = TIMEOUT_S,
) -> Iterator[Measurement]:
    """Milliseconds from creating a job to its start, without other jobs or under load.

    Example: joblog bench latency --load 5000
    """
    if load > 0 and jobs is not None:
        raise InvalidData("--jobs has no effect with --load: give --seconds instead")
    if load == 0 and seconds is not None:
        raise InvalidData("--seconds has no effect without --load: give --jobs instead")
    return _latency(cluster, jobs or UNLOADED_JOBS, load, seconds or LOADED_S, timeout)


def _latency(cluster: Clusters, jobs: int, load: float, seconds: float, timeout: float) -> Iterator[Measurement]:
    with cluster() as one:
        yield from latency_under_load(one, load, seconds, timeout) if load > 0 else latency(one, jobs, timeout)


@_command("delays")
def delays_command(
    cluster: Clusters, jobs: JobsOption = 1_000, timeout: TimeoutOption = TIMEOUT_S
) -> Iterator[Measurement]:
    """Milliseconds from the time that a job is scheduled for to its start.

    Example: joblog bench delays --jobs 1000
    """
    with cluster() as one:
        yield from delays(one, jobs, timeout)


@_command("election")
def election_command(
    cluster: Clusters, jobs: JobsOption = 100_000, timeout: TimeoutOption = TIMEOUT_S
) -> Iterator[Measurement]:
    """Commands and reports per second that one elector decides.

    Example: joblog bench election --jobs 100000
    """
    with cluster() as one:
        yield from election(one, jobs, timeout)


@_command("waiting")
def waiting_command(
    cluster: Clusters,
    jobs: JobsOption = 100_000,
    waiting_jobs: Annotated[
        int, typer.Option("--waiting", min=1000, help="Number of jobs that wait while the elector is measured.")
    ] = 1_000_000,
    timeout: TimeoutOption = TIMEOUT_S,
) -> Iterator[Measurement]:
    """The cost of many waiting jobs: the elector's speed and memory, and the time of a take-over.

    Example: joblog bench waiting --waiting 1000000
    """
    with cluster() as one:
        yield from waiting(one, waiting_jobs, jobs, timeout)


@_command("batch")
def batch_command(
    cluster: Clusters,
    jobs: JobsOption = 100_000,
    size: Annotated[
        int, typer.Option("--size", min=1000, help="Number of jobs in the batch that waits.")
    ] = 1_000_000,
    timeout: TimeoutOption = TIMEOUT_S,
) -> Iterator[Measurement]:
    """The cost of one batch of very many jobs: memory, take-over, cancel; and how fast jobs of one are decided.

    Example: joblog bench batch --size 1000000
    """
    with cluster() as one:
        yield from batch(one, size, jobs, timeout)


@_command("projection")
def projection_command(cluster: Clusters, jobs: JobsOption = 100_000) -> Iterator[Measurement]:
    """Events per second that one projector applies.

    Example: joblog bench projection --jobs 100000
    """
    with cluster() as one:
        yield from projection(one, jobs)


@_command("replay")
def replay_command(
    cluster: Clusters,
    jobs: JobsOption = 100_000,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes that fill the new tables.")] = 2,
    beside_load: Annotated[
        bool,
        typer.Option("--beside", help="Measure what a rebuild costs elector, worker and projector at half load."),
    ] = False,
    load: Annotated[
        float,
        typer.Option(min=0, callback=_finite, help="With --beside: jobs per second; 0: half the throughput."),
    ] = 0,
    seconds: Annotated[float, typer.Option(min=1, help="With --beside: how long each of six turns takes.")] = 12,
    share: Annotated[
        float, typer.Option(min=0.05, max=1, help="With --beside: as of `joblog replay rebuild`.")
    ] = BESIDE,
    timeout: TimeoutOption = TIMEOUT_S,
) -> Iterator[Measurement]:
    """Events per second that `joblog replay` verifies, exports and builds new tables from.

    Also for how long the swap to the new tables keeps the projector waiting. With --beside, instead: throughput and
    latency of jobs without a rebuild and with one, in turns.

    Example: joblog bench replay --jobs 500000

    Example: joblog bench replay --beside --jobs 400000
    """
    if beside_load:
        with cluster() as one:
            yield from beside(one, jobs, load, seconds, share, timeout)
        return
    with cluster() as one:
        yield from replay(one, jobs)
    with cluster() as one:
        yield from replay_rebuild(one, jobs, processes)


@_command("all")
def all_command(
    cluster: Clusters, jobs: JobsOption = 100_000, timeout: TimeoutOption = TIMEOUT_S
) -> Iterator[Measurement]:
    """Run all benchmarks except `waiting`, `batch` and `features`; latency is also measured at half the throughput.

    Example: joblog bench all --embedded --output json
    """
    half = 0.0
    for one in throughput_command(cluster, jobs, timeout):
        half = half or (one.value / 2 if one.bench == "throughput" else 0.0)
        yield one
    yield from latency_command(cluster, timeout=timeout)
    yield from latency_command(cluster, load=half, timeout=timeout)
    yield from delays_command(cluster, timeout=timeout)
    yield from election_command(cluster, jobs, timeout)
    yield from projection_command(cluster, jobs)
    yield from replay_command(cluster, jobs)
