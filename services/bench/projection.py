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
#: Half of the jobs wait until so many were created after it, so that its events come in several batches; the others
#: start at once. Between start and end of a run lie so many jobs, as with a worker that holds jobs in advance.
WAITING: Final = 50_000
RUNNING: Final = 2_000
#: Neighbours in such a block have the same fate.
BLOCK: Final = 100


def projection(cluster: Cluster, jobs: int) -> Iterator[Measurement]:
    """Three events per job, as the elector writes them, applied by a projector in this process."""
    projector = projector_of(cluster)
    projector.step()
    write_log(cluster, jobs)
    began, began_cpu = time.perf_counter(), time.process_time()
    applied = 0
    while applied < jobs * EVENTS_PER_JOB:
        applied += projector.step()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    projector.close()
    run = {"events": applied, "lanes": cluster.lanes}
    yield Measurement("projection", "projection", applied / seconds, "events/s", run)
    yield Measurement("projection", "projection_cpu", cpu_seconds / applied * 1e6, "us/event", run)


def projector_of(cluster: Cluster) -> Projector:
    """A projector for this process; the caller closes it."""
    return Projector(
        cluster.kafka,
        cluster.names,
        cluster.lanes,
        cluster.dsn,
        cluster.schema,
        meters=Meters(),
        health=Health("projector"),
    )


def write_log(cluster: Cluster, jobs: int) -> None:
    """Write the log of so many jobs, made by the rules of the lanes."""
    writer = producer(cluster.kafka, "joblog-bench-events", linger_ms=5)
    now_ms = time.time_ns() // 1_000_000
    time_text = format_time(now_ms)
    events = _life(now_ms)
    ids = [new_job_id(number % cluster.lanes, now_ms) for number in range(jobs)]
    for number, place in order(jobs):
        job_id, lane, event = ids[number], number % cluster.lanes, events[place]
        envelope = wire.CloudEvent(
            "1.0",
            f"{job_id}/{event.version}",
            f"/joblog/lanes/{lane}",
            event_type(event),
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


def order(jobs: int) -> Iterator[tuple[int, int]]:
    """The number of a job, and which of its events comes next; every event of every job once, each job's in order."""
    waits = (0, WAITING)
    for now in range(jobs + WAITING + RUNNING):
        if now < jobs:
            yield now, 0
        for place, passed in ((1, 0), (2, RUNNING)):
            for kind, wait in enumerate(waits):
                number = now - wait - passed
                if 0 <= number < jobs and number // BLOCK % len(waits) == kind:
                    yield number, place


def _life(now_ms: int) -> list[wire.JobEvent]:
    """The events of a job that succeeds at once."""
    create = wire.CreateJob("bench.noop", Raw(encode([TEXT])), queue="bench")
    spec = encode(wire.JobSpec(create.args))
    first = first_event(create, spec, now_ms)
    job = new_job("", first, spec, 0, now_ms, create)
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
