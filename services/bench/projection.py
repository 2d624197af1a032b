"""The projector alone: events per second from a log that is written beforehand."""

import time
from collections.abc import Iterator
from typing import Final

from joblog.projections.projector.projector import Projector
from joblog.services.bench.measurement import Measurement
from joblog.services.bench.processes import Cluster
from joblog.services.bench.throughput import TEXT
from joblog.streams.contract import wire
from joblog.streams.contract.codec import encode
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.states import State
from joblog.streams.contract.timestamps import format_time
from joblog.streams.health import Health
from joblog.streams.kafka.clients import producer
from joblog.streams.lane.job import event_type, evolve, first_event, new_job
from joblog.streams.lane.transitions import Assigned, Election, decide
from joblog.streams.metrics import Meters
from msgspec import Raw

EVENTS_PER_JOB: Final = 3


def projection(cluster: Cluster, jobs: int) -> Iterator[Measurement]:
    """Three events per job, as the elector writes them, applied by a projector in this process."""
    _write(cluster, jobs)
    projector = Projector(
        cluster.kafka,
        cluster.names,
        cluster.lanes,
        cluster.dsn,
        cluster.schema,
        meters=Meters(),
        health=Health("projector"),
    )
    applied = projector.step()
    began = time.perf_counter()
    first = applied
    while applied < jobs * EVENTS_PER_JOB:
        applied += projector.step()
    seconds = time.perf_counter() - began
    projector.close()
    run = {"events": applied, "lanes": cluster.lanes}
    yield Measurement("projection", "projection", (applied - first) / seconds, "events/s", run)


def _write(cluster: Cluster, jobs: int) -> None:
    """Write the log of so many jobs, made by the rules of the lanes."""
    writer = producer(cluster.kafka, "joblog-bench-events", linger_ms=5)
    now_ms = time.time_ns() // 1_000_000
    time_text = format_time(now_ms)
    for number in range(jobs):
        lane = number % cluster.lanes
        job_id = new_job_id(lane, now_ms)
        for event in _life(now_ms):
            kind = event_type(event)
            envelope = wire.CloudEvent(
                "1.0",
                f"{job_id}/{event.version}",
                f"/joblog/lanes/{lane}",
                kind,
                job_id,
                time_text,
                "application/json",
                "cause",
                None,
                event,
            )
            while True:
                try:
                    writer.produce(cluster.names.events, encode(envelope), job_id, lane)
                    break
                except BufferError:
                    writer.poll(0.1)
    writer.flush()


def _life(now_ms: int) -> list[wire.JobEvent]:
    """The events of a job that succeeds at once."""
    create = wire.CreateJob("bench.noop", Raw(encode([TEXT])), queue="bench")
    spec = encode(wire.JobSpec(create.args))
    first = first_event(create, spec, now_ms)
    job = new_job("", first, spec, 0, now_ms)
    election = Election(now_ms, now_ms, lambda _job, candidate, _what, _now: (candidate,), frozenset[State]())
    events = [first]
    for what in (
        Assigned("bench"),
        wire.RunSucceeded(job_id="", lease=2, worker="bench", duration_ms=1.0, started_ms=now_ms),
    ):
        decided = decide(job, what, election)
        assert isinstance(decided, tuple)
        job = evolve(job, decided[0], now_ms)
        events += decided
    return events
