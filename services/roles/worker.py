"""The composition root of a worker."""

import logging
import threading
from collections.abc import Sequence
from functools import partial
from typing import Final

from joblog.services.client.registering import register
from joblog.services.roles.logs import configure_logs
from joblog.services.roles.runner import Builder
from joblog.services.roles.topics import on_checked_topics
from joblog.services.settings.model import Settings
from joblog.services.tasks.queue_names import is_template
from joblog.services.tasks.task import TaskRegistry
from joblog.services.worker.filters import WorkerFilter, installed_worker_filters
from joblog.services.worker.options import DEFAULT_SLOTS
from joblog.services.worker.worker import Worker
from joblog.streams.errors import SettingsError
from joblog.streams.health import Health
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

DEFAULT_QUEUE = "default"


def worker(settings: Settings) -> Builder:
    """The process that runs the jobs of the modules in `worker.tasks`."""
    chosen = settings.worker
    if not chosen.tasks:
        raise SettingsError("a worker needs modules with tasks: give --tasks myapp.tasks, or JOBLOG_WORKER__TASKS")
    registry = TaskRegistry.load(*chosen.tasks)

    def build(meters: Meters, health: Health) -> "Registering":
        made = Worker(
            settings.kafka.config(),
            settings.names,
            settings.lanes,
            registry,
            queues=queues_of(chosen.queues, registry),
            slots=chosen.slots or DEFAULT_SLOTS,
            prefetch=chosen.prefetch,
            name=chosen.name,
            shards=settings.shards_served,
            renew_s=chosen.renew_s,
            lease_s=settings.elector.lease_s,
            grace_s=chosen.grace_s,
            release_after_s=chosen.release_after_s,
            result_bytes_max=chosen.result_bytes_max,
            filters=(*_tracing(settings), *installed_worker_filters()),
            set_up_child=partial(configure_logs, settings.logs.format, settings.logs.level, "worker"),
            meters=meters,
            health=health,
        )
        return Registering(made, settings, registry)

    return on_checked_topics("worker", settings, build)


def _tracing(settings: Settings) -> tuple[WorkerFilter, ...]:
    if not settings.tracing.enabled:
        return ()
    from joblog.services.tracing.tracer import export_spans  # noqa: PLC0415 - of an extra
    from joblog.services.worker.tracing import TracingWorkerFilter  # noqa: PLC0415 - of an extra

    export_spans("worker")
    return (TracingWorkerFilter(),)


class Registering:
    """A worker that first registers what its tasks declare with @recurring."""

    def __init__(self, worker: Worker, settings: Settings, registry: TaskRegistry) -> None:
        self.worker: Final = worker
        self._settings = settings
        self._registry = registry

    def run(self, stop: threading.Event) -> None:
        register(self._settings, self._registry)
        self.worker.run(stop)


def queues_of(chosen: Sequence[str], registry: TaskRegistry) -> Sequence[str]:
    """The chosen queues, or, if none were chosen, those that the tasks declare, `default` last.

    Tasks whose queue is not among them are logged: their jobs wait for another worker, or for ever.
    """
    by_arguments = sorted(task.name for task in registry if is_template(task.queue))
    fixed = [task.queue for task in registry if not is_template(task.queue)]
    declared = sorted(dict.fromkeys(fixed), key=lambda queue: queue == DEFAULT_QUEUE)
    if not chosen:
        if by_arguments:
            raise SettingsError(
                f"the queues of {', '.join(by_arguments)} are made of arguments: name those to serve with --queues"
            )
        return declared
    for queue in declared:
        if queue not in chosen:
            tasks = sorted(task.name for task in registry if task.queue == queue)
            log.warning("worker.queue_not_served", extra={"queue": queue, "tasks": tasks, "serves": list(chosen)})
    return chosen
