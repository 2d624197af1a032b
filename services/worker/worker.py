"""A worker: runs the jobs that electors assign to it, and reports how each one ended.

One thread, the loop (session.py), reads assignments (assignments.py, intake.py), renews the leases (announcing.py)
and checks time-outs. Jobs run in slots (slots.py): in threads, asyncio tasks or processes (execution/), which report
for themselves (reports.py, report_sender.py). A task that holds Python's interpreter lock for seconds, as some C
extensions do, stops the loop and loses the lease: declare it with `isolation="process"`.

A worker works in sessions. When it loses its leases or cannot read its assignments, it ends the session and begins
another one under a new id, so that no elector waits for the jobs of the old one.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from socket import gethostname
from threading import Event
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from joblog.services.tasks.task import Isolation, TaskRegistry
from joblog.services.worker.announcing import new_worker_id
from joblog.services.worker.assignments import Assignments
from joblog.services.worker.execution.loop import LoopExecutor
from joblog.services.worker.execution.performing import Performer
from joblog.services.worker.execution.processes import ProcessRuns, check_importable
from joblog.services.worker.execution.run import known_tasks
from joblog.services.worker.execution.threads import ThreadExecutor
from joblog.services.worker.filters import WorkerFilter
from joblog.services.worker.options import DEFAULT_SLOTS, WorkerOptions
from joblog.services.worker.report_sender import ReportSender
from joblog.services.worker.reports import Endings, Reports, RunMeters
from joblog.services.worker.session import FLUSH_S, Parts, Session
from joblog.services.worker.slots import Slots
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.durable_producer import DurableProducer
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

_NO_TOPIC: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
CONNECT_RETRY_S: Final = 1.0
#: How often within a lease the broker is asked whether there are assignments that did not arrive.
ENDS_PER_LEASE: Final = 5


class Worker:
    """Its options are those of `WorkerOptions`, which explains them."""

    def __init__(
        self,
        config: KafkaConfig,
        names: TopicNames,
        lanes: int,
        registry: TaskRegistry,
        *,
        queues: Sequence[str],
        meters: Meters,
        health: Health,
        slots: int = DEFAULT_SLOTS,
        prefetch: int = 0,
        name: str | None = None,
        shards: Mapping[str, int] | None = None,
        renew_s: float = 3.0,
        lease_s: float = 15.0,
        grace_s: float = 25.0,
        result_bytes_max: int = 262_144,
        release_after_s: float = 1.0,
        filters: Sequence[WorkerFilter] = (),
        set_up_child: Callable[[], object] | None = None,
    ) -> None:
        """SettingsError when an option is out of its range or a task cannot be run. Does not connect to Kafka.

        `set_up_child` is called first in each process of process-isolated tasks, to set up its logs for example.
        """
        self._settings = WorkerOptions(
            queues=tuple(queues),
            lanes=lanes,
            slots=slots,
            prefetch=prefetch,
            name=name or gethostname(),
            shards=dict(shards or {}),
            renew_s=renew_s,
            lease_s=lease_s,
            grace_s=grace_s,
            result_bytes_max=result_bytes_max,
            release_after_s=release_after_s,
        )
        self._known = known_tasks(registry)
        for task in registry:
            if task.isolation is Isolation.PROCESS:
                check_importable(task)
        self._config = config
        self._names = names
        self._meters = meters
        self._health = health
        self._filters = tuple(filters)
        self._set_up_child = set_up_child
        self.id = new_worker_id(self._settings.name, self._settings.home)

    def run(self, stop: Event) -> None:
        """Work until `stop` is set and what runs has ended or was given back.

        Waits for a broker that is not available. TopicsError when the topics have other partitions than `lanes` says.
        """
        sender, admin = self._sender(), clients.admin(self._config, self._settings.name)
        with self._executors(sender) as parts:
            while not stop.is_set():
                assignments = self._open(sender, admin, stop)
                if assignments is None:
                    break
                log.info(
                    "worker.started",
                    extra={"worker": self.id, "queues": self._settings.queues, "tasks": sorted(self._known)},
                )
                with closing(assignments):
                    if not Session(parts, self.id, assignments).run(stop):
                        stop.wait(CONNECT_RETRY_S)
                # An elector that did not miss the worker would go on waiting for the jobs of the old id.
                self.id = new_worker_id(self._settings.name, self._settings.home)
        sender.drain(FLUSH_S)

    def _sender(self) -> ReportSender:
        settings = self._settings
        # With jobs at hand a slot does not wait for the elector to have its report, and larger requests are cheaper.
        linger_ms = 5 if settings.prefetch else 1
        timeout_ms = round(settings.lease_s * 1000)
        producer = DurableProducer(
            partial(clients.producer, self._config, settings.name, linger_ms=linger_ms, timeout_ms=timeout_ms),
            on_replaced=partial(self._meters.inc, "joblog_producer_rebuilds_total", "worker"),
        )
        return ReportSender(producer, self._names, self._meters)

    @contextmanager
    def _executors(self, sender: ReportSender) -> Iterator[Parts]:
        """Slots and what runs jobs in them; ended on leaving, even if jobs still run."""
        settings, reports, meters = self._settings, Reports(sender), RunMeters(self._meters)
        endings = Endings(reports, meters)
        slots = Slots(settings.slots, settings.queues)
        processes = ProcessRuns(settings.result_bytes_max, self._set_up_child)
        performer = Performer(endings, meters, processes, self._filters, settings.result_bytes_max)
        threads = ThreadExecutor(slots, performer.perform)
        loop = LoopExecutor(slots, performer.perform_async)
        slots.connect(threads, loop, endings.fault)
        if any(known.is_async for known in self._known.values()):
            loop.open()
        self._meters.set("joblog_worker_slots", settings.slots)
        meters.show(known.task for known in self._known.values())
        try:
            yield Parts(settings, self._known, slots, sender, reports, endings, meters, self._health, self._meters)
        finally:
            processes.close()
            loop.close()
            threads.close()
            meters.flush()

    def _open(self, sender: ReportSender, admin: AdminClient, stop: Event) -> Assignments | None:
        """Wait for Kafka and start to read assignments; None when `stop` is set before."""
        settings = self._settings
        while not stop.is_set():
            self._health.beat()
            sender.turn()
            admin.poll(0)  # what it logs would pile up in it
            try:
                return Assignments.open(
                    self._config,
                    self._names,
                    settings.lanes,
                    self.id,
                    self._meters,
                    admin,
                    settings.lease_s / ENDS_PER_LEASE,
                )
            except KafkaException as exc:
                error = exc.args[0]
                hint = "; joblog topics create creates the topics" if error.code() in _NO_TOPIC else ""
                reason = f"waiting for Kafka: {error.str()}{hint}"
                log.warning("worker.waiting", extra={"reason": reason})
                self._health.set_unready(reason)
                stop.wait(CONNECT_RETRY_S)
        return None
