"""Jobs per second of jobs that use a feature, and of plain ones beside them: mutexes, unique keys, a batch."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Final

from joblog.services.bench.log import EndWatch
from joblog.services.bench.measurement import Measurement
from joblog.services.bench.processes import BenchProcesses, Cluster
from joblog.services.bench.tasks import keyed, noop
from joblog.services.bench.throughput import PREFETCH, SLOTS, TEXT, WARM_UP, WARM_UP_S, calls, client
from joblog.services.client.client import Client
from joblog.services.client.options import Call, JobOptions
from joblog.services.tasks.limits import Limit

#: So many mutexes share the jobs: with fewer ones, each job would wait for the one before.
MUTEXES: Final = 1_000


def plain(sender: Client, jobs: int) -> None:
    """Jobs that use no feature."""
    sender.enqueue_many(noop, calls(jobs))


def mutexes(sender: Client, jobs: int) -> None:
    """Jobs that each have one of many mutexes."""
    for number in range(MUTEXES):
        count = jobs // MUTEXES + (number < jobs % MUTEXES)
        sender.enqueue_many(noop, calls(count), JobOptions(limits=(Limit.mutex(f"bench-{number}"),)))


def unique(sender: Client, jobs: int) -> None:
    """Jobs that each have a unique key of their own."""
    sender.enqueue_many(keyed, [Call((TEXT, str(number))) for number in range(jobs)])


def batch(sender: Client, jobs: int) -> None:
    """Jobs of one batch, created in one transaction."""
    with sender.batch("bench") as made:
        made.enqueue_many(noop, calls(jobs))


FEATURES: Final[Mapping[str, Callable[[Client, int], None]]] = {
    "plain": plain,
    "mutex": mutexes,
    "unique": unique,
    "batch": batch,
}


def feature(cluster: Cluster, name: str, jobs: int, timeout_s: float) -> Iterator[Measurement]:
    """From the client's first call to the success of the last job, in the log."""
    run = {"jobs": jobs, "lanes": cluster.lanes, "slots": SLOTS, "prefetch": PREFETCH}
    with (
        BenchProcesses(cluster, "elector", "worker", worker={"slots": SLOTS, "prefetch": PREFETCH}),
        closing(EndWatch(cluster)) as watch,
        client(cluster) as sender,
    ):
        sender.enqueue_many(noop, calls(WARM_UP))
        watch.wait(WARM_UP, WARM_UP_S)
        began = time.perf_counter()
        FEATURES[name](sender, jobs)
        seconds = watch.wait(jobs, timeout_s) - began
    yield Measurement("features", f"throughput_{name}", jobs / seconds, "jobs/s", run)
