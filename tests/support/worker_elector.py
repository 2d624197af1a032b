"""A test that plays the elector for one worker, which runs in a thread of the test."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from confluent_kafka import TopicPartition
from joblog.services.tasks.task import TaskRegistry
from joblog.services.worker.worker import Worker
from joblog.streams.contract.ids import lane_of_queue, new_job_id
from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import (
    AnyReport,
    CancelJob,
    RunFailed,
    RunJob,
    RunReleased,
    RunSucceeded,
    WorkerAnnounced,
)
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from msgspec import Raw

#: Long, since the machine may be busy with other tests; nothing waits for it to pass.
TIMEOUT_S = 60


class Elector:
    """Hands jobs to one worker and hears its reports."""

    def __init__(self, config: KafkaConfig, names: TopicNames, lanes: int) -> None:
        self._names = names
        self._producer = clients.producer(config, "test-elector")
        self._consumer = clients.reader(config, "test-elector", **{"enable.partition.eof": False})
        self._consumer.assign([TopicPartition(names.reports, lane, 0) for lane in range(lanes)])
        self._lanes = lanes
        self.heard: list[tuple[int, AnyReport]] = []

    def close(self) -> None:
        self._producer.flush(TIMEOUT_S)
        self._consumer.close()

    def listen(self) -> None:
        for message in self._consumer.consume(1_000, 0.02):
            if message.error() is None:
                report = msgspec.json.decode(message.value() or b"", type=AnyReport)
                self.heard.append((message.partition() or 0, report))

    def until(self, condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"in vain; heard {self.heard}"
            self.listen()
        return found

    def of(self, kind: type[Any]) -> list[Any]:
        return [report for _, report in self.heard if isinstance(report, kind)]

    @property
    def ends(self) -> list[Any]:
        return [report for _, report in self.heard if isinstance(report, RunSucceeded | RunFailed | RunReleased)]

    def end(self, count: int = 1) -> Any:
        """The last of so many ends of runs."""
        self.until(lambda: len(self.ends) >= count)
        return self.ends[count - 1]

    def offered(self, lane: int) -> int:
        """What the worker last offered to a lane; -1 before it did."""
        said = [r.slots for at, r in self.heard if at == lane and isinstance(r, WorkerAnnounced)]
        return said[-1] if said else -1

    def assign(self, name: str, *args: Any, queue: str = "default", **spec: Any) -> RunJob:
        lane = lane_of_queue(queue, self._lanes)
        job = RunJob(
            job_id=new_job_id(lane, 1_800_000_000_000),
            lease=1,
            attempt=1,
            lane=lane,
            task=name,
            queue=queue,
            spec=Raw(msgspec.json.encode({"args": args, **spec})),
            ready_ms=time.time_ns() // 1_000_000,
        )
        self.write(job)
        return job

    def settle(self) -> None:
        """Return when the worker has taken all earlier assignments: it gives back at once what it does not know."""
        probe = self.assign("nobody knows this task")
        came = self.until(lambda: [r for r in self.ends if r.job_id == probe.job_id])
        self.heard = [(lane, report) for lane, report in self.heard if report is not came[0]]

    def write(self, assignment: RunJob | CancelJob) -> None:
        worker = self.of(WorkerAnnounced)[-1]
        value = msgspec.json.encode(assignment)
        self._producer.produce(self._names.assignments, value, worker.worker, worker.partition)
        self._producer.flush(TIMEOUT_S)


class Running:
    """A worker in a thread of the test."""

    def __init__(self, worker: Worker, health: Health, meters: Meters, elector: Elector) -> None:
        self.worker, self.health, self.meters, self.elector = worker, health, meters, elector
        self.stop = threading.Event()
        self.thread = threading.Thread(target=worker.run, args=[self.stop])
        self.thread.start()
        elector.until(lambda: elector.of(WorkerAnnounced))

    def started(self, name: str) -> float:
        """How many runs of a task have begun."""
        return self.count("joblog_jobs_started_total", queue="default", task=name)

    def count(self, metric: str, **labels: str) -> float:
        return self.meters.registry.get_sample_value(metric, labels) or 0


@contextmanager
def running(
    config: KafkaConfig, names: TopicNames, lanes: int, registry: TaskRegistry, **settings: Any
) -> Iterator[Running]:
    elector, health, meters = Elector(config, names, lanes), Health("worker"), Meters()
    worker = Worker(
        config,
        names,
        lanes,
        registry,
        meters=meters,
        health=health,
        **{"queues": ["default"], "slots": 4, "name": "tester", "grace_s": 1.0, **settings},
    )
    it = Running(worker, health, meters, elector)
    try:
        yield it
    finally:
        it.stop.set()
        it.thread.join(TIMEOUT_S)
        elector.close()
        assert not it.thread.is_alive()
