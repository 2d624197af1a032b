"""Milliseconds from the call that creates a job to its start, with and without load; lateness of scheduled jobs."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from confluent_kafka import Message
from joblog.services.bench.log import EventWatch
from joblog.services.bench.measurement import Measurement, percentile
from joblog.services.bench.processes import BenchProcesses, Cluster
from joblog.services.bench.tasks import noop, stamp
from joblog.services.bench.throughput import PREFETCH, SLOTS, TEXT, calls, client
from msgspec import Struct, json

PERCENTS: Final = (50, 95, 99)
LOAD_STEP_S: Final = 0.02
#: A slot is occupied from assignment to report, some 15 ms; the jobs measured must not wait for one.
MANY_SLOTS: Final = 20


class _Data(Struct):
    result: float | None = None


class _Succeeded(Struct):
    subject: str
    data: _Data


_decode: Final = json.Decoder(_Succeeded).decode


class Starts:
    """When each stamped job started, in unix milliseconds, which is its result."""

    def __init__(self) -> None:
        self.of: dict[str, float] = {}

    def note(self, message: Message) -> None:
        event = _decode(message.value() or b"")
        if event.data.result is not None:
            self.of[event.subject] = event.data.result


def latency(cluster: Cluster, jobs: int, timeout_s: float) -> Iterator[Measurement]:
    """One job after the other; each is waited for, so that no other job runs."""
    starts = Starts()
    latencies = []
    with (
        BenchProcesses(cluster, "elector", "worker", worker={"slots": SLOTS}),
        EventWatch(cluster, starts.note) as watch,
        client(cluster) as sender,
    ):
        for number in range(jobs + 20):
            began = time.time() * 1000
            job_id = sender.enqueue(stamp, TEXT)
            watch.wait(number + 1, timeout_s)
            latencies.append(starts.of[job_id] - began)
    run = {"jobs": jobs, "lanes": cluster.lanes, "load": 0}
    yield from _percentiles("latency", "latency", latencies[20:], run)


def latency_under_load(cluster: Cluster, load: float, seconds: float, timeout_s: float) -> Iterator[Measurement]:
    """The same while `load` other jobs per second are created and run."""
    starts, stop, sent = Starts(), threading.Event(), [0]
    latencies = {}
    with (
        BenchProcesses(cluster, "elector", "worker", worker={"slots": SLOTS, "prefetch": PREFETCH}),
        EventWatch(cluster, starts.note) as watch,
        client(cluster) as sender,
    ):
        thread = threading.Thread(target=load_for, args=(cluster, load, stop, sent))
        thread.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            began = time.time() * 1000
            latencies[sender.enqueue(stamp, TEXT)] = began
            time.sleep(0.01)
        stop.set()
        thread.join()
        watch.wait(sent[0] + len(latencies), timeout_s)
    run = {"jobs": len(latencies), "lanes": cluster.lanes, "load": round(sent[0] / seconds)}
    yield from _percentiles("latency", "latency_loaded", [starts.of[job] - at for job, at in latencies.items()], run)


def load_for(cluster: Cluster, rate: float, stop: threading.Event, sent: list[int]) -> None:
    """Create `rate` jobs per second until `stop`; `sent` holds how many there are."""
    began = time.perf_counter()
    with client(cluster) as sender:
        while not stop.wait(LOAD_STEP_S):
            wanted = round((time.perf_counter() - began) * rate) - sent[0]
            if wanted > 0:
                sender.enqueue_many(noop, calls(wanted))
                sent[0] += wanted


def delays(cluster: Cluster, jobs: int, timeout_s: float) -> Iterator[Measurement]:
    """Jobs scheduled 1 to 6 s ahead: how long after that time they start."""
    starts = Starts()
    due = {}
    with (
        BenchProcesses(cluster, "elector", "delays", "worker", worker={"slots": MANY_SLOTS}),
        EventWatch(cluster, starts.note) as watch,
        client(cluster) as sender,
    ):
        for number in range(jobs):
            at = datetime.now(UTC) + timedelta(seconds=1 + 5 * number / jobs)
            # The log keeps milliseconds.
            at = at.replace(microsecond=at.microsecond // 1000 * 1000)
            due[sender.schedule(stamp, TEXT, at=at)] = at.timestamp() * 1000
        watch.wait(jobs, timeout_s)
    run = {"jobs": jobs, "lanes": cluster.lanes, "slots": MANY_SLOTS}
    yield from _percentiles("delays", "lateness", [starts.of[job] - at for job, at in due.items()], run)


def _percentiles(bench: str, metric: str, values: list[float], run: dict[str, Any]) -> Iterator[Measurement]:
    for percent in PERCENTS:
        yield Measurement(bench, f"{metric}_p{percent}", percentile(values, percent), "ms", run)
