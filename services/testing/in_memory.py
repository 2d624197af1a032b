"""A whole Joblog in memory: a client whose jobs are decided and run in the calling thread, when the test says so."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from types import ModuleType, TracebackType
from typing import Any, Final, NoReturn

from joblog.projections.monitor.models import JobDetails, Rejected
from joblog.services.client.bulk import BulkOperations
from joblog.services.client.client import Client
from joblog.services.client.job_commands import AnyTask
from joblog.services.client.options import DEFAULT_OPTIONS, Call, ClientFilter, JobOptions, due_at, name_of
from joblog.services.client.recurring import RecurringJobs
from joblog.services.client.sending import Sender, TogetherSender
from joblog.services.client.templates import CommandRecord
from joblog.services.tasks.task import Task
from joblog.services.testing.assertions import Assertions
from joblog.services.testing.broker import Broker, NotSimulated
from joblog.services.testing.inline_worker import InlineWorker
from joblog.services.testing.told import EventLog
from joblog.services.worker.filters import WorkerFilter
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import ENQUEUED, State
from joblog.streams.contract.timestamps import time_ms
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import JoblogError, UnknownTask
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.lane.filters import ElectFilter
from joblog.streams.lane.rules import LaneRules

#: How long `drain` waits for jobs that are held back, at first and at last: a paused queue may never go on.
HELD_MS: Final = 100
HELD_MS_MAX: Final = 86_400_000
#: Jobs that one call runs at most: a job that creates itself again would never end.
RUNS_MAX: Final = 10_000


class RunRaised(JoblogError):
    """A task raised, and the call was asked to say so; the text has the traceback. The job is as it is then."""


class TooManyRuns(JoblogError):
    """So many jobs were run that one of them probably creates itself, or is retried, without end."""


class InMemoryJoblog(Assertions, Client):
    """A `Client` for tests: whatever it creates is decided at once, and runs in `run_next`, `run_all` or `drain`.

    - tasks: tasks, and modules with tasks. Those of jobs that are created outside of batches need not be given.
    - lanes, queue_shards, rules: as the installation has them; queues live in lanes as they do there.
    - now: the first instant of its clock, which stands still but for `advance` and a millisecond for each command.
    - client_filters, elect_filters, worker_filters: those of the installation; entry points are not looked at.
    """

    def __init__(
        self,
        *tasks: ModuleType | Task[..., Any],
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
        self._log = EventLog(lanes)
        self._broker = Broker(lanes, rules, elect_filters, time_ms(now or datetime.now(UTC)), self._log)
        self._worker = InlineWorker(lanes, self._broker.report, worker_filters, result_bytes_max)
        self._broker.on_cancel = self._worker.cancel
        self._broker.on_step = self._renew
        self._ready: list[tuple[int, int, str]] = []
        super().__init__(
            KafkaConfig("in-memory:9092"),
            TopicNames(),
            lanes,
            shards=rules.shards,
            shards_before=rules.shards_before,
            filters=client_filters,
            name="in-memory",
        )
        self.register(*tasks)
        self._renew()

    def register(self, *tasks: ModuleType | Task[..., Any]) -> None:
        """Let these tasks, and those in these modules, be run; SettingsError if two have one name."""
        self._worker.register(*tasks)

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
        return _OneByOne(self._broker), _Together(self._broker)

    def _recurring(self, config: KafkaConfig, names: TopicNames, client_id: str) -> RecurringJobs:
        return _NoRecurring(config, names, len(self._broker.lanes), client_id, self.create)

    def _bulk(self) -> BulkOperations:
        return _NoBulk(self.send, self.rules)

    # --- time ---

    @property
    def now(self) -> datetime:
        """The present, by its clock. Your own code sees the machine's clock."""
        return datetime.fromtimestamp(self._broker.now_ms / 1000, UTC)

    def advance(self, by: timedelta | float) -> None:
        """Let time pass (a timedelta or seconds): schedules and retries become due at their times; nothing runs."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        if seconds < 0:
            raise JoblogError(f"time does not go back: advance({by!r})")
        self._broker.advance_to(self._broker.now_ms + round(seconds * 1000))

    def _renew(self) -> None:
        """The worker lives, and has no slot free until something is to be run."""
        for lane in range(len(self._broker.lanes)):
            self._worker.announce(lane, None)

    # --- running ---

    def run_next(self, *, queue: str | None = None, raises: bool = False) -> JobDetails | None:
        """Run the job that is next: the highest priority, then the oldest; None if none is ready.

        - queue: only of this queue. raises: RunRaised if the task raises, whatever its retry policy makes of it.

        Raises UnknownTask if there are ready jobs, and only such whose task is not known here.
        """
        if self._worker.is_running:
            raise JoblogError("a job is running: a task cannot run others, it creates them")
        job_id = self._run_one(queue)
        if job_id is None:
            return None
        job = self.job(job_id)
        if raises:
            _raise_for(job)
        return job

    def run_all(self, *, queue: str | None = None, raises: bool = False, limit: int = RUNS_MAX) -> list[JobDetails]:
        """Run jobs until none is ready, those too that are created meanwhile; returns each run's job as it was then.

        Schedules and retries that lie ahead stay there: see `advance` and `drain`.
        """
        ran: list[JobDetails] = []
        while (job := self.run_next(queue=queue, raises=raises)) is not None:
            ran.append(job)
            if len(ran) > limit:
                raise TooManyRuns(f"{limit} jobs were run, and there are more: the last one was {job.task} {job.id}")
        return ran

    def drain(self, *, raises: bool = False, limit: int = RUNS_MAX) -> list[JobDetails]:
        """Run everything to its end: what is ready, then time passes to the next schedule or retry, and so on."""
        ran = self.run_all(raises=raises, limit=limit)
        waited_ms = 0
        while (until_ms := self._next_ms(waited_ms)) is not None:
            waited_ms = max(until_ms - self._broker.now_ms, 0)
            self._broker.advance_to(max(until_ms, self._broker.now_ms))
            more = self.run_all(raises=raises, limit=limit)
            ran += more
            waited_ms = 0 if more else waited_ms
            if len(ran) > limit:
                raise TooManyRuns(f"{limit} jobs were run, and more are scheduled: the last one was {ran[-1].task}")
        return ran

    def _next_ms(self, waited_ms: int) -> int | None:
        """Until when to wait: the next timer, or, if jobs are held back, twice as long as was waited in vain."""
        due_ms, now_ms = self._broker.next_due_ms, self._broker.now_ms
        is_held = any(self._broker.lanes[lane_of_job(job_id)].pipeline.store.held for _, _, job_id in self._ready)
        if not is_held or waited_ms > HELD_MS_MAX:
            return due_ms
        held_ms = now_ms + max(2 * waited_ms, HELD_MS)
        return held_ms if due_ms is None else min(due_ms, held_ms)

    def _run_one(self, queue: str | None) -> str | None:
        """Offer a slot to the queue of the oldest ready job, then of the next one, until a lane takes it."""
        for job_id in self._log.enqueued:
            self._note(job_id)
        self._log.enqueued.clear()
        passed: list[tuple[int, int, str]] = []
        try:
            return self._offer_to_first(queue, passed)
        finally:
            for entry in passed:
                heappush(self._ready, entry)

    def _offer_to_first(self, queue: str | None, passed: list[tuple[int, int, str]]) -> str | None:
        """Take jobs from `_ready`, those that are ready indeed into `passed`, until one could be run."""
        seen: set[tuple[int, str]] = set()
        unknown: set[str] = set()
        while self._ready:
            entry = heappop(self._ready)
            lane = lane_of_job(entry[2])
            job = self._broker.lanes[lane].jobs.get(entry[2])
            if job is None or job.state is not ENQUEUED:
                continue
            passed.append(entry)
            if queue is not None and job.queue != queue:
                continue
            if job.task not in self._worker.tasks:
                unknown.add(job.task)
            elif (lane, job.queue) not in seen:
                self._worker.check(job.task)
                seen.add((lane, job.queue))
                if (taken := self._offer(lane, job.queue)) is not None:
                    return taken
        if unknown:
            raise UnknownTask(
                f"jobs of {', '.join(sorted(unknown))} are ready, and no such task is known here: give it, or its "
                "module, to InMemoryJoblog(...) or register(...)"
            )
        return None

    def _note(self, job_id: str) -> None:
        job = self._broker.lanes[lane_of_job(job_id)].jobs.get(job_id)
        if job is not None and job.state is ENQUEUED:
            heappush(self._ready, (-job.priority, job.created_ms, job_id))

    def _offer(self, lane: int, queue: str) -> str | None:
        """Let the lane assign a job of this queue, if it will, and run it; returns its id."""
        broker = self._broker
        self._worker.announce(lane, queue)
        broker.settle()
        self._worker.announce(lane, None)
        broker.settle()
        if not broker.assigned:
            return None
        run = broker.assigned.popleft()
        self._worker.perform(run)
        broker.settle()
        return run.job_id

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


class _OneByOne:
    """Hands commands to the lanes, which decide them before the call returns."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def send(self, records: Sequence[CommandRecord]) -> None:
        for record in records:
            self._broker.command(lane_of_job(record.job_id) if record.lane is None else record.lane, record.value)

    def close(self) -> None:
        """There is nothing to close."""


class _Together(_OneByOne):
    """The same for those that become true together."""

    def send(self, records: Sequence[CommandRecord], _job_ids: Sequence[str] = ()) -> None:
        super().send(records)


class _NoRecurring(RecurringJobs):
    """Definitions are records of a topic, which is not there."""

    def _read(self, _partitions: Sequence[int] | None) -> NoReturn:
        raise JoblogError("recurring definitions are not simulated: create the job itself, as the definition would")

    def _send(self, _recurring_id: str, _aspects: Sequence[tuple[Any, Any]]) -> NoReturn:
        self._read(None)


class _NoBulk(BulkOperations):
    """Nobody is there to work an operation off."""

    def start(self, *_: Any, **__: Any) -> NoReturn:
        raise NotSimulated("bulk operations are not simulated: change each of joblog.jobs(...) instead")


def _raise_for(job: JobDetails) -> None:
    """Raise if the last run of the job raised."""
    for one in job.history:
        if one.type == "job.processing":
            return
        if one.type == "job.failed":
            exception = one.data["exception"]
            said = f"{job.task} {job.id} raised {exception['type']}: {exception.get('message', '')}"
            raise RunRaised(f"{said}\n{exception.get('details', '')}".rstrip())
