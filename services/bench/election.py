"""The elector alone: inputs per second, with few and with many jobs waiting; memory; take-over."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from confluent_kafka import Producer
from joblog.services.bench.log import GroupWatch
from joblog.services.bench.measurement import Measurement
from joblog.services.bench.processes import BenchProcess, Cluster
from joblog.services.bench.tasks import QUEUE, noop
from joblog.services.bench.throughput import calls, client
from joblog.services.client.client import Client
from joblog.services.client.options import JobOptions
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.ids import lane_of_job, lane_of_shard
from joblog.streams.kafka.clients import producer
from msgspec import Raw

WORKER: Final = "bench"
#: No worker knows it, so its jobs wait.
UNKNOWN_TASK: Final = "bench.unknown"


def election(cluster: Cluster, jobs: int, timeout_s: float) -> Iterator[Measurement]:
    """Half the inputs are commands (each leads to two events and an assignment), half are reports."""
    rate = _rate(cluster, jobs, timeout_s)
    yield Measurement("election", "election", rate, "inputs/s", {"inputs": 2 * jobs, "lanes": cluster.lanes})


def waiting(cluster: Cluster, waiting_jobs: int, jobs: int, timeout_s: float) -> Iterator[Measurement]:
    """The same with many jobs waiting; the memory that these take; how long it takes to take their lanes over."""
    run = {"waiting": waiting_jobs, "inputs": 2 * jobs, "lanes": cluster.lanes}
    few = _rate(cluster, jobs, timeout_s)
    elector = BenchProcess("elector", cluster)
    before = elector.memory_bytes()
    watch = GroupWatch(cluster, cluster.names.commands)
    with client(cluster) as sender:
        done = watch.read()
        for start in range(0, waiting_jobs, 50_000):
            count = min(50_000, waiting_jobs - start)
            sender.enqueue_many(UNKNOWN_TASK, calls(count), JobOptions(queue=QUEUE))
        watch.rate(done + waiting_jobs, timeout_s)
    yield Measurement(
        "waiting", "memory_per_waiting_job", (elector.memory_bytes() - before) / waiting_jobs, "bytes", run
    )
    elector.stop()
    began = time.perf_counter()
    elector = BenchProcess("elector", cluster)
    yield Measurement("waiting", "takeover", time.perf_counter() - began, "s", run)
    elector.stop()
    watch.close()
    many = _rate(cluster, jobs, timeout_s)
    yield Measurement("waiting", "election_few_waiting", few, "inputs/s", {**run, "waiting": 0})
    yield Measurement("waiting", "election_many_waiting", many, "inputs/s", run)
    yield Measurement("waiting", "election_many_to_few", many / few, "ratio", run)


def _rate(cluster: Cluster, jobs: int, timeout_s: float) -> float:
    return rate_of(cluster, timeout_s, jobs, lambda sender: sender.enqueue_many(noop, calls(jobs)))


def rate_of(cluster: Cluster, timeout_s: float, jobs: int, create: Callable[[Client], list[str]]) -> float:
    """Inputs per second over the commands that create so many jobs, and as many reports.

    Each kind is written before the elector starts.
    """
    commands, reports = GroupWatch(cluster, cluster.names.commands), GroupWatch(cluster, cluster.names.reports)
    writer = producer(cluster.kafka, "joblog-bench-reports", linger_ms=5)
    _announce(cluster, writer, slots=jobs)
    with client(cluster) as sender:
        done = commands.read()
        ids = create(sender)
    elector = BenchProcess("elector", cluster)
    rates = [commands.rate(done + jobs, timeout_s)]
    elector.stop()
    done = reports.read()
    _succeed(cluster, writer, ids)
    elector = BenchProcess("elector", cluster)
    rates.append(reports.rate(done + jobs, timeout_s))
    elector.stop()
    commands.close()
    reports.close()
    return 2 / sum(1 / rate for rate in rates)


def _announce(cluster: Cluster, writer: Producer, slots: int) -> None:
    for shard in range(cluster.lanes):
        lane = lane_of_shard(QUEUE, cluster.lanes, shard)
        word = wire.WorkerAnnounced(
            worker=WORKER,
            partition=0,
            queues=(QUEUE,),
            all_queues=(QUEUE,),
            slots=slots,
            all_slots=slots,
            tasks=(noop.name,),
            started_at=datetime.now(UTC),
            home=shard == 0,
        )
        writer.produce(cluster.names.reports, encode(word), WORKER, lane)
    writer.flush()


def _succeed(cluster: Cluster, writer: Producer, ids: list[str]) -> None:
    """Report success for jobs that were assigned once: their lease is their second version."""
    now_ms = time.time_ns() // 1_000_000
    for job_id in ids:
        report = wire.RunSucceeded(
            job_id=job_id, lease=2, worker=WORKER, result=Raw(b"null"), duration_ms=1.0, started_ms=now_ms
        )
        while True:
            try:
                writer.produce(cluster.names.reports, encode(report), job_id, lane_of_job(job_id))
                break
            except BufferError:
                writer.poll(0.1)
    writer.flush()
