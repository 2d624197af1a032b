"""Jobs per second, created and run at the same time: into the log, and into Postgres."""

import time
from collections.abc import Iterator
from typing import Final

from joblog.projections.monitor.monitor import Monitor
from joblog.services.bench.log import EventWatch, TooSlow
from joblog.services.bench.measurement import Measurement
from joblog.services.bench.processes import BenchProcesses, Cluster
from joblog.services.bench.tasks import noop
from joblog.services.client.client import Client
from joblog.services.client.options import Call

#: With its brackets and quotes about 200 bytes.
TEXT: Final = "x" * 190
#: Jobs that the worker holds beyond those it runs, so that it never waits for the elector.
PREFETCH: Final = 2_000
SLOTS: Final = 2


def client(cluster: Cluster) -> Client:
    """A client for the benchmark's queue."""
    return Client(cluster.kafka, cluster.names, cluster.lanes, shards=cluster.shards, name="bench")


def calls(count: int) -> list[Call]:
    """`count` calls with about 200 bytes of arguments."""
    return [Call((TEXT,))] * count


def enqueue_many(cluster: Cluster, jobs: int) -> Iterator[Measurement]:
    """How fast one client creates jobs while nothing else runs."""
    with client(cluster) as sender:
        sender.enqueue_many(noop, calls(100))
        began = time.perf_counter()
        sender.enqueue_many(noop, calls(jobs))
        seconds = time.perf_counter() - began
    yield Measurement(
        "enqueue_many", "enqueue_many", jobs / seconds, "jobs/s", {"jobs": jobs, "lanes": cluster.lanes}
    )


def throughput(cluster: Cluster, jobs: int, timeout_s: float, *, postgres: bool) -> Iterator[Measurement]:
    """From the client's first call to the success of the last job."""
    roles = ("elector", "worker", "projector") if postgres else ("elector", "worker")
    run = {"jobs": jobs, "lanes": cluster.lanes, "slots": SLOTS, "prefetch": PREFETCH, "projector": postgres}
    with (
        BenchProcesses(cluster, *roles, worker={"slots": SLOTS, "prefetch": PREFETCH}),
        EventWatch(cluster) as watch,
        client(cluster) as sender,
    ):
        sender.enqueue_many(noop, calls(200))
        watch.wait(200, 60)
        began = time.perf_counter()
        sender.enqueue_many(noop, calls(jobs))
        ended = watch.wait(200 + jobs, timeout_s)
        if not postgres:
            yield Measurement("throughput", "throughput_log", jobs / (ended - began), "jobs/s", run)
            return
        _wait_for_rows(cluster, 200 + jobs, timeout_s)
        seconds = time.perf_counter() - began
    yield Measurement("throughput", "throughput_postgres", jobs / seconds, "jobs/s", run)


def _wait_for_rows(cluster: Cluster, succeeded: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    with Monitor(cluster.dsn, cluster.schema) as monitor:
        while (there := monitor.statistics().succeeded) < succeeded:
            if time.monotonic() > deadline:
                raise TooSlow(f"{there} of {succeeded} jobs reached Postgres within {timeout_s:g} s")
            time.sleep(0.02)
