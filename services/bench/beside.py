"""What a rebuild costs the roles at work beside it: throughput and latency at a load, with and without, in turns."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from statistics import median
from typing import Any, Final, NamedTuple

from joblog.projections.replay.rebuild.place import Place
from joblog.projections.replay.rebuild.rebuild import FILLING, SWAPPING, rebuild
from joblog.projections.schema.schema import drop
from joblog.services.bench.latency import Starts, load_for
from joblog.services.bench.log import EventWatch
from joblog.services.bench.measurement import Measurement, percentile
from joblog.services.bench.processes import BenchProcesses, Cluster
from joblog.services.bench.projection import write_log
from joblog.services.bench.tasks import stamp
from joblog.services.bench.throughput import PREFETCH, SLOTS, TEXT, WARM_UP, RowWatch, client, throughput
from joblog.streams.errors import StackError
from joblog.streams.progress import Stopped

TURNS: Final = 3
#: Jobs by which the throughput is measured.
MEASURED: Final = 40_000
PERCENTS: Final = (50, 99)
#: Before a turn is measured, the load runs for so long.
SETTLE_S: Final = 3.0
BEGIN_S: Final = 60.0


class _Turn(NamedTuple):
    """Of one turn: jobs/s that succeeded, and the latencies of single jobs in ms."""

    rate: float
    latencies: list[float]


def beside(
    cluster: Cluster, jobs: int, load: float, seconds: float, share: float, timeout_s: float
) -> Iterator[Measurement]:
    """Turns of `seconds` with `load` jobs/s (0: half of what is measured), without and with a rebuild of `jobs` jobs.

    The cost is that of the medians: how much of the throughput is lost, and by how much latency grows, in per cent.
    """
    others = 0
    if not load:
        others = MEASURED + WARM_UP
        load = next(throughput(cluster, MEASURED, timeout_s, postgres=True)).value / 2
    turns: dict[bool, list[_Turn]] = {False: [], True: []}
    with BenchProcesses(cluster, "elector", "worker", "projector", worker={"slots": SLOTS, "prefetch": PREFETCH}):
        write_log(cluster, jobs)  # not before there is an elector, who would take the lanes' state for lost
        with closing(RowWatch(cluster)) as watch:
            watch.wait(jobs + others, timeout_s)
        for _ in range(TURNS):
            for with_rebuild in (False, True):
                with _rebuilding(cluster, share, with_rebuild):
                    turns[with_rebuild].append(_turn(cluster, load, seconds, timeout_s))
    run = {
        "load": round(load),
        "seconds": seconds,
        "turns": TURNS,
        "lanes": cluster.lanes,
        "events": 3 * jobs,
        "share": share,
    }
    yield from _compared("throughput", "jobs/s", turns, lambda turn: turn.rate, run)
    for percent in PERCENTS:
        value = partial(_latency, percent)
        yield from _compared(f"latency_p{percent}", "ms", turns, value, run)


def _latency(percent: int, turn: _Turn) -> float:
    return percentile(turn.latencies, percent)


def _compared(
    name: str, unit: str, turns: Mapping[bool, list[_Turn]], value: Callable[[_Turn], float], run: dict[str, Any]
) -> Iterator[Measurement]:
    without, with_it = (median(map(value, turns[it])) for it in (False, True))
    yield Measurement("beside", f"{name}_alone", without, unit, run)
    yield Measurement("beside", f"{name}_beside", with_it, unit, run)
    yield Measurement("beside", f"{name}_change", (with_it / without - 1) * 100, "%", run)


def _turn(cluster: Cluster, load: float, seconds: float, timeout_s: float) -> _Turn:
    starts, stop, sent = Starts(), threading.Event(), [0]
    latencies: dict[str, float] = {}
    with EventWatch(cluster, starts.note) as watch, client(cluster) as sender:
        thread = threading.Thread(target=load_for, args=(cluster, load, stop, sent))
        thread.start()
        time.sleep(SETTLE_S)
        began, before = time.monotonic(), watch.succeeded
        while time.monotonic() < began + seconds:
            called = time.time() * 1000
            latencies[sender.enqueue(stamp, TEXT)] = called
            time.sleep(0.01)
        rate = (watch.succeeded - before) / (time.monotonic() - began)
        stop.set()
        thread.join()
        watch.wait(sent[0] + len(latencies), timeout_s)
    return _Turn(rate, [starts.of[job] - at for job, at in latencies.items()])


@contextmanager
def _rebuilding(cluster: Cluster, share: float, wanted: bool) -> Iterator[None]:
    """A rebuild in a process of its own, from its first events on; what it has built is dropped."""
    if not wanted:
        yield
        return
    context = get_context("spawn")
    begun, stop = context.Event(), context.Event()
    place = Place(cluster.kafka, cluster.names, cluster.lanes, cluster.dsn, cluster.schema)
    process = context.Process(target=_rebuild, args=(place, share, begun, stop))
    process.start()
    try:
        if not begun.wait(BEGIN_S):
            raise StackError("the rebuild did not begin; its output is above")
        yield
        if not process.is_alive():
            raise StackError("the rebuild ended too early: give more --jobs, or fewer --seconds")
    finally:
        stop.set()
        process.join()
        drop(cluster.dsn, place.schemas.new)


def _rebuild(place: Place, share: float, begun: Any, stop: Any) -> None:
    parent = os.getppid()

    def told(step: str, done: int, _total: int) -> None:
        if step == FILLING and done:
            begun.set()
        if step == SWAPPING or stop.is_set() or os.getppid() != parent:
            raise Stopped(step)

    with suppress(Stopped):
        rebuild(place, told, share=share, anew=True, verify=False)
