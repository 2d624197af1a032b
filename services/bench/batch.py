"""One batch of very many jobs: the elector's memory and speed, a take-over, and how soon a cancel has ended it."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from joblog.services.bench.election import UNKNOWN_TASK, rate_of
from joblog.services.bench.log import BatchWatch, GroupWatch
from joblog.services.bench.measurement import Measurement
from joblog.services.bench.processes import BenchProcess, Cluster
from joblog.services.bench.tasks import QUEUE, noop
from joblog.services.bench.throughput import calls, client
from joblog.services.client.client import Client
from joblog.services.client.options import JobOptions
from joblog.streams.contract.ids import new_job_id

CALLS: Final = 50_000


def batch(cluster: Cluster, size: int, jobs: int, timeout_s: float) -> Iterator[Measurement]:
    """A batch of `size` jobs that wait, and is cancelled; then batches of `jobs` jobs beside plain ones."""
    yield from _waiting(cluster, size, timeout_s)
    run = {"inputs": 2 * jobs, "lanes": cluster.lanes}
    plain = rate_of(cluster, timeout_s, jobs, lambda sender: sender.enqueue_many(noop, calls(jobs)))
    rate = rate_of(cluster, timeout_s, jobs, lambda sender: _created(sender, _an_id(), noop.name, jobs))
    yield Measurement("batch", "election_of_batch", rate, "inputs/s", run)
    yield Measurement("batch", "election_of_batch_to_plain", rate / plain, "ratio", run)


def _waiting(cluster: Cluster, size: int, timeout_s: float) -> Iterator[Measurement]:
    run = {"size": size, "lanes": cluster.lanes}
    elector, batch_id = BenchProcess("elector", cluster), _an_id()
    empty = elector.memory_bytes()
    with (
        closing(GroupWatch(cluster, cluster.names.commands)) as commands,
        client(cluster) as sender,
    ):
        done, began = commands.read(), time.perf_counter()
        _created(sender, batch_id, UNKNOWN_TASK, size)
        yield Measurement("batch", "create", size / (time.perf_counter() - began), "jobs/s", run)
        commands.rate(done + size, timeout_s)
        yield Measurement("batch", "create_and_decide", size / (time.perf_counter() - began), "jobs/s", run)
        yield Measurement("batch", "memory_per_job", (elector.memory_bytes() - empty) / size, "bytes", run)
        elector.stop()
        began = time.perf_counter()
        elector = BenchProcess("elector", cluster)
        yield Measurement("batch", "takeover", time.perf_counter() - began, "s", run)
        memory = (elector.memory_bytes() - empty) / size
        yield Measurement("batch", "memory_per_job_after_takeover", memory, "bytes", run)
        with closing(BatchWatch(cluster, batch_id)) as watch:
            began = time.perf_counter()
            sender.cancel_batch(batch_id)
            yield Measurement("batch", "cancel", watch.wait("batch.cancelled", timeout_s) - began, "s", run)
            seconds = watch.wait("batch.deleted", timeout_s) - began  # the end of the batch, behind that of its jobs
            yield Measurement("batch", "cancelled_jobs", size / seconds, "jobs/s", run)
    elector.stop()


def _created(sender: Client, batch_id: str, task: str, jobs: int) -> list[str]:
    """The ids of the jobs of a batch that is created with this id."""
    with sender.batch("bench", batch_id=batch_id, in_parts=True) as made:
        for start in range(0, jobs, CALLS):
            made.enqueue_many(task, calls(min(CALLS, jobs - start)), JobOptions(queue=QUEUE))
    return made.job_ids


def _an_id() -> str:
    return new_job_id(0, time.time_ns() // 1_000_000)
