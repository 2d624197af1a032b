"""A whole Joblog in memory: a client whose jobs are decided and run in the calling thread, when the test says so."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from types import ModuleType, TracebackType
from typing import Any

from joblog.projections.monitor.models import JobDetails, Rejected
from joblog.services.client.bulk import BulkOperations
from joblog.services.client.client import Client
from joblog.services.client.job_commands import AnyTask
from joblog.services.client.options import DEFAULT_OPTIONS, Call, ClientFilter, JobOptions, due_at, name_of
from joblog.services.client.queue_settings import SettingsOfQueues
from joblog.services.client.recurring import RecurringJobs
from joblog.services.client.sending import Sender, TogetherSender
from joblog.services.tasks.recurring import recurrences_of
from joblog.services.tasks.task import Task
from joblog.services.testing.assertions import Assertions
from joblog.services.testing.broker import Broker
from joblog.services.testing.incidents import Incidents
from joblog.services.testing.inline_worker import InlineWorker
from joblog.services.testing.publishing import Publishing, Topics
from joblog.services.testing.ready_jobs import ReadyJobs
from joblog.services.testing.recurring import RecurringInMemory, Scheduler
from joblog.services.testing.relaying import Relaying
from joblog.services.testing.running import Running
from joblog.services.testing.stand_ins import NoBulk, NoSettingsOfQueues, OneByOne, Together
from joblog.services.testing.told import EventLog
from joblog.services.triggers.trigger import Trigger
from joblog.services.worker.filters import WorkerFilter
from joblog.streams.contract.states import State
from joblog.streams.contract.timestamps import time_ms
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import JoblogError
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.lane.filters import ElectFilter
from joblog.streams.lane.rules import LaneRules
from joblog.streams.recurring.jobs import Installation

Source = ModuleType | Task[..., Any] | Trigger[..., Any]


class InMemoryJoblog(Running, Publishing, Relaying, Assertions, Client):
    """A `Client` for tests: whatever it creates is decided at once, and runs in `run_next`, `run_all` or `drain`.

    - sources: tasks and triggers, and modules with them. Tasks of which jobs are created outside of batches need not
      be given.
    - lanes, queue_shards, rules: as the installation has them; queues live in lanes as they do there.
    - now: the first instant of its clock, which stands still but for `advance` and a millisecond for each command.
    - client_filters, elect_filters, worker_filters: those of the installation; entry points are not looked at.
    """

    def __init__(
        self,
        *sources: Source,
        lanes: int = 4,
        now: datetime | None = None,
        queue_shards: Mapping[str, int] | None = None,
        rules: LaneRules | None = None,
        client_filters: Sequence[ClientFilter] = (),
        elect_filters: Iterable[ElectFilter] = (),
        worker_filters: Sequence[WorkerFilter] = (),
        result_bytes_max: int = 262_144,
    ) -> None:
        rules = rules or LaneRules(shards=dict(queue_shards or {}))
        where = Installation(lanes, rules.shards, rules.shards_before)
        self._log = EventLog(lanes)
        self._broker = Broker(lanes, rules, elect_filters, time_ms(now or datetime.now(UTC)), self._log)
        self._incidents = Incidents(self._broker)
        filters = (self._incidents, *worker_filters)
        self._worker = InlineWorker(self._broker, rules.lease_ms, filters, result_bytes_max)
        self._incidents.belong_to(self._worker)
        self._scheduler = Scheduler(self._broker, self._log, where)
        self._ready = ReadyJobs(self._broker, self._log, self._worker)
        self._broker.on_cancel = self._worker.cancel
        self._broker.on_step = self._worker.renew
        self._broker.alarms += [self._worker, self._scheduler]
        super().__init__(
            KafkaConfig("in-memory:9092"),
            TopicNames(),
            lanes,
            shards=rules.shards,
            shards_before=rules.shards_before,
            filters=client_filters,
            name="in-memory",
        )
        self._topics = Topics(self._broker, where, self.rules.args_bytes_max)
        self.register(*sources)
        self._worker.renew()

    def register(self, *sources: Source) -> None:
        """Let these tasks be run and these triggers be called, and those in these modules.

        SettingsError if two tasks, or two triggers, have one name.
        """
        self._worker.register(*(one for one in sources if not isinstance(one, Trigger)))
        self._topics.register(*(one for one in sources if not isinstance(one, Task)))

    # --- creating: as the client does ---

    def create(self, task: AnyTask, call: Call, options: JobOptions = DEFAULT_OPTIONS) -> str:
        """As `Client.create`."""
        self._learn(task)
        return super().create(task, call, options)

    def enqueue_many(
        self, task: AnyTask, calls: Iterable[Call | Sequence[Any]], options: JobOptions = DEFAULT_OPTIONS
    ) -> list[str]:
        """As `Client.enqueue_many`."""
        self._learn(task)
        return super().enqueue_many(task, calls, options)

    def _learn(self, task: AnyTask) -> None:
        if not isinstance(task, str):
            self.register(task)

    def _due(self, delay: timedelta | float | None, at: datetime | None) -> datetime:
        return due_at(delay, at, self.now)

    def _senders(self, *_: object) -> tuple[Sender, TogetherSender]:
        return OneByOne(self._broker), Together(self._broker)

    def _recurring(self, config: KafkaConfig, names: TopicNames, client_id: str) -> RecurringJobs:  # noqa: ARG002
        return RecurringInMemory(self._scheduler, config, names, len(self._broker.lanes), self.create, self._learn)

    def _settings_of_queues(
        self, config: KafkaConfig, names: TopicNames, client_id: str, lanes: int
    ) -> SettingsOfQueues:
        return NoSettingsOfQueues(config, names.queues, client_id, lanes)

    def _bulk(self) -> BulkOperations:
        return NoBulk(self.send, self.rules)

    def register_recurring(self) -> list[str]:
        """Write the definitions that the tasks declare with `@recurring`, as a process does that knows them.

        Returns the ids of those that are new or changed.
        """
        return self.recurring.register(recurrences_of(self._worker.tasks.values()))

    def recurring_outage(self) -> AbstractContextManager[None]:
        """In this block no process creates the jobs of definitions; at its end one decides on what was missed."""
        return self._scheduler.down()

    # --- looking ---

    def job(self, job_id: str) -> JobDetails:
        """A job as `Monitor.job` tells it: state, result, exception, parameters, history (newest first) and so on."""
        found = self._log.job(job_id)
        if found is None:
            why = next((one.reason for one in reversed(self.rejected) if one.job_id == job_id), None)
            raise JoblogError(f"there is no job {job_id}" + (f": its command was rejected: {why}" if why else ""))
        return found

    def jobs(
        self,
        *,
        state: State | Collection[State] | None = None,
        task: AnyTask | None = None,
        queue: str | None = None,
    ) -> list[JobDetails]:
        """Jobs in the order of their creation; of a state or several, of a task, of a queue."""
        states = {state} if isinstance(state, State) else set(State if state is None else state)
        wanted = None if task is None else name_of(task)
        found = (self.job(job_id) for job_id in self._log.ids())
        return [
            job
            for job in found
            if job.state in states
            and (wanted is None or job.task == wanted)
            and (queue is None or job.queue == queue)
        ]

    @property
    def rejected(self) -> list[Rejected]:
        """The commands that could not be done, oldest first; a real client does not hear of them either."""
        return list(self._log.rejected)

    def snapshot(self, job_id: str) -> dict[str, Any]:
        """What `requeue`, `reschedule` and `delete` need for a job that has ended, as `Monitor.snapshot` gives it."""
        job = self.job(job_id)
        names = ("version", "state", "attempt", "task", "queue", "spec", "parameters", "priority")
        return {**{name: getattr(job, name) for name in names}, "created_at": job.created_at.isoformat()}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
