"""Jobs per second, created and run at the same time: into the log, and into Postgres."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from joblog.projections.monitor.monitor import Monitor
from joblog.services.bench.log import EndWatch, TooSlow
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
#: Jobs that run before anything is measured, and for how long they may take.
WARM_UP: Final = 200
WARM_UP_S: Final = 60
#: How often Postgres is asked when this part of the jobs is left, and before.
NEAR: Final = 0.1
LOOK_S: Final = 0.02
SELDOM_S: Final = 0.2


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
        closing(RowWatch(cluster) if postgres else EndWatch(cluster)) as watch,
        client(cluster) as sender,
    ):
        sender.enqueue_many(noop, calls(WARM_UP))
        watch.wait(WARM_UP, WARM_UP_S)
        began = time.perf_counter()
        sender.enqueue_many(noop, calls(jobs))
        seconds = watch.wait(jobs, timeout_s) - began
    yield Measurement("throughput", f"throughput_{'postgres' if postgres else 'log'}", jobs / seconds, "jobs/s", run)


class RowWatch:
    """Asks Postgres how many jobs succeeded: seldom, until most of them have."""

    def __init__(self, cluster: Cluster) -> None:
        self._monitor = Monitor(cluster.dsn, cluster.schema)
        self._succeeded = 0

    def close(self) -> None:
        self._monitor.close()

    def wait(self, succeeded: int, timeout_s: float) -> float:
        """Wait until so many jobs more have succeeded; returns when they had, by `time.perf_counter()`."""
        self._succeeded += succeeded
        deadline = time.monotonic() + timeout_s
        while (left := self._succeeded - self._monitor.statistics().succeeded) > 0:
            if time.monotonic() > deadline:
                raise TooSlow(f"{left} of {succeeded} jobs did not reach Postgres within {timeout_s:g} s")
            time.sleep(LOOK_S if left <= succeeded * NEAR else SELDOM_S)
        return time.perf_counter()
