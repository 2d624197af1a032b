"""Joblog's roles as child processes of a benchmark, which waits until each is ready."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any, Final, Self

from joblog.projections.projector.projector import Projector
from joblog.services.bench import tasks as bench_tasks
from joblog.services.roles.runner import Runnable
from joblog.services.tasks.task import TaskRegistry
from joblog.services.worker.worker import Worker
from joblog.streams.contract.topics import TopicNames
from joblog.streams.delays.process import Delays
from joblog.streams.elector.elector import Elector
from joblog.streams.errors import StackError
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.lane.rules import LaneRules
from joblog.streams.metrics import Meters

READY_TIMEOUT_S: Final = 120
STOP_TIMEOUT_S: Final = 60


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a benchmark runs on: brokers, a database, and topics and tables of its own."""

    kafka: KafkaConfig
    dsn: str
    names: TopicNames
    schema: str
    lanes: int

    @property
    def shards(self) -> Mapping[str, int]:
        """The benchmark's queue is spread over all lanes, as a busy one would be."""
        return {bench_tasks.QUEUE: self.lanes}


def _elector(cluster: Cluster, meters: Meters, health: Health, **_options: Any) -> Runnable:
    rules = LaneRules(shards=cluster.shards)
    return Elector(
        cluster.kafka, cluster.names, cluster.lanes, instance="bench", meters=meters, health=health, rules=rules
    )


def _worker(cluster: Cluster, meters: Meters, health: Health, **options: Any) -> Runnable:
    return Worker(
        cluster.kafka,
        cluster.names,
        cluster.lanes,
        TaskRegistry.of(bench_tasks),
        queues=[bench_tasks.QUEUE],
        shards=cluster.shards,
        meters=meters,
        health=health,
        **options,
    )


def _delays(cluster: Cluster, meters: Meters, health: Health, **_options: Any) -> Runnable:
    return Delays(cluster.kafka, cluster.names, cluster.lanes, meters=meters, health=health)


def _projector(cluster: Cluster, meters: Meters, health: Health, **_options: Any) -> Runnable:
    return Projector(
        cluster.kafka, cluster.names, cluster.lanes, cluster.dsn, cluster.schema, meters=meters, health=health
    )


_BUILD: Final[Mapping[str, Callable[..., Runnable]]] = {
    "elector": _elector,
    "worker": _worker,
    "delays": _delays,
    "projector": _projector,
}


def _child(role: str, cluster: Cluster, options: Mapping[str, Any], ready: Any) -> None:
    """The child process: run the role, and set `ready` once it is."""
    stop, health = threading.Event(), Health(role)
    logging.getLogger().addHandler(
        logging.NullHandler()
    )  # the terminal is for the figures; a crash prints its traceback
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the benchmark stops its children

    def announce() -> None:
        while not health.ready and not stop.wait(0.005):
            pass
        ready.set()

    threading.Thread(target=announce, daemon=True).start()
    _BUILD[role](cluster, Meters(), health, **options).run(stop)


class BenchProcess:
    """A role that a benchmark started; StackError if it does not become ready."""

    def __init__(self, role: str, cluster: Cluster, **options: Any) -> None:
        context = get_context("spawn")
        ready = context.Event()
        self.name = role
        self.process: BaseProcess = context.Process(target=_child, args=(role, cluster, options, ready), daemon=True)
        self.process.start()
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not ready.wait(0.01):
            if not self.process.is_alive() or time.monotonic() > deadline:
                raise StackError(f"the {role} did not become ready; its output is above")

    def memory_bytes(self) -> int:
        """Resident memory, from Linux's /proc."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:  # noqa: PTH123
            kilobytes = next(line.split()[1] for line in status if line.startswith("VmRSS"))
        return int(kilobytes) * 1024

    def stop(self) -> None:
        """Stop it in order; StackError if that takes too long."""
        self.process.terminate()
        self.process.join(STOP_TIMEOUT_S)
        if self.process.is_alive():
            self.process.kill()
            raise StackError(f"the {self.name} did not stop within {STOP_TIMEOUT_S} s")


class BenchProcesses(ExitStack):
    """Several roles, started in this order, and stopped in the opposite one on leaving."""

    def __init__(self, cluster: Cluster, *roles: str, **options: Mapping[str, Any]) -> None:
        super().__init__()
        self.cluster = cluster
        self._wanted: Sequence[str] = roles
        self._options = options

    def __enter__(self) -> Self:
        super().__enter__()
        for role in self._wanted:
            self.callback(BenchProcess(role, self.cluster, **self._options.get(role, {})).stop)
        return self
