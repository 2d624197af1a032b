"""The job manager: turns requests into jobs.

It has no state: a run's id is the idempotency key of its jobs, so the job of a run is known without a table, and a
request that is read twice, as after a crash, creates no second job.
"""

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any, Final

from confluent_kafka import KafkaException, Message
from joblog.services.client.client import Client
from joblog.services.client.options import JobOptions
from joblog.services.detection.names import CLEANUP_QUEUE, CLEANUP_TASK, PRIORITY, RUN_ID, RUN_QUEUE, RUN_TASK
from joblog.services.detection.requests import RunRequested, RunWithdrawn, read_request
from joblog.streams.contract.ids import hashed_job_id, lane_of_queue
from joblog.streams.contract.record_headers import headers_of
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import ContinueOn
from joblog.streams.errors import ContractError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig

log = logging.getLogger(__name__)

RUN_DELAY: Final = timedelta(seconds=10)
RETRIES: Final = 3
HIGH: Final = 100
_POLL_S: Final = 0.2


def retry_policy(minute: timedelta) -> RetryPolicy:
    """Three retries, after 1, 2 and 4 minutes; a demonstration has shorter minutes."""
    return RetryPolicy.exponential(base_s=minute / timedelta(seconds=1), factor=2, attempts=RETRIES)


@dataclass(frozen=True, slots=True)
class ManagedRun:
    """A run and its two jobs."""

    run_id: str
    detection_job: str
    cleanup_job: str


def options_of(run_id: str, queue: str, retry: RetryPolicy, **more: Any) -> JobOptions:
    """Options for the jobs of a run: high priority, the run's id as a parameter, and the retry policy."""
    return JobOptions(
        queue=queue,
        priority=HIGH,
        retry=retry,
        parameters={RUN_ID: run_id, PRIORITY: "high"},
        idempotency_key=run_id,
        **more,
    )


def run_of(run_id: str, lanes: int) -> ManagedRun:
    """The run's jobs: their ids are made from its own, whoever creates them."""
    detection, cleanup = (hashed_job_id(lane_of_queue(one, lanes), one, run_id) for one in (RUN_QUEUE, CLEANUP_QUEUE))
    return ManagedRun(run_id, detection, cleanup)


class JobManager:
    """Reads requests and creates jobs; `on_run` is called for every run whose jobs were created."""

    def __init__(
        self,
        client: Client,
        lanes: int,
        workspace: Path,
        minute: timedelta,
        on_run: Callable[[ManagedRun], None],
    ) -> None:
        self._client = client
        self._lanes = lanes
        self._workspace = str(workspace)
        self._retry = retry_policy(minute)
        self._on_run = on_run

    def handle(self, request: RunRequested | RunWithdrawn) -> None:
        """Execute one request; when this returns, its commands are in the log."""
        if isinstance(request, RunRequested):
            self._on_run(self.start(request))
        else:
            self._client.delete(self.job_of(request.run_id), reason="the detection run was withdrawn")

    def start(self, request: RunRequested) -> ManagedRun:
        """Schedule the detection, and its clean-up for when it has ended, however it ends."""
        detection_job = self._client.schedule(
            RUN_TASK,
            delay=RUN_DELAY,
            photograph=request.photograph,
            workspace=self._workspace,
            options=self.options(request.run_id, RUN_QUEUE),
        )
        cleanup_job = self._client.continue_with(
            detection_job,
            CLEANUP_TASK,
            on=ContinueOn.ENDED,
            workspace=self._workspace,
            options=self.options(request.run_id, CLEANUP_QUEUE),
        )
        return ManagedRun(request.run_id, detection_job, cleanup_job)

    def options(self, run_id: str, queue: str) -> JobOptions:
        """Options for the jobs of a run, as all jobs here have them."""
        return options_of(run_id, queue, self._retry)

    def job_of(self, run_id: str) -> str:
        """The id of a run's detection job."""
        return run_of(run_id, self._lanes).detection_job


def manage(manager: JobManager, config: KafkaConfig, topic: str, group: str, stop: Event) -> None:
    """Handle requests until told to stop. A request's offset is committed after its jobs are in the log.

    Raises KafkaException or EnqueueError when it cannot go on; the next start continues with the same request.
    """
    options = {"auto.offset.reset": "earliest"}  # a new manager handles all requests
    consumer = clients.group_consumer(config, group, "detection-manager", **options)
    consumer.subscribe([topic])
    with closing(consumer):
        while not stop.is_set():
            message = consumer.poll(_POLL_S)
            if message is not None and _is_readable(message):
                _handle(manager, message)
                consumer.commit(message=message, asynchronous=False)


def _is_readable(message: Message) -> bool:
    """Whether it is a record. Other errors are logged; if they are not fatal, the consumer recovers by itself."""
    error = message.error()
    if error is None:
        return True
    if error.fatal():
        raise KafkaException(error)
    log.warning("detection.manager.waiting", extra={"reason": error.str()})
    return False


def _handle(manager: JobManager, message: Message) -> None:
    """Execute a request. One that cannot be read, or that no job can be made of, is logged and skipped."""
    try:
        manager.handle(read_request(message.value(), headers_of(message)))
    except ContractError as exc:
        log.warning("detection.request.refused", extra={"reason": exc.reason, "offset": message.offset()})
