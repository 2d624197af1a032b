"""One job in a worker, from its assignment to the report of its end; and the leases under which it runs."""

import logging
import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from threading import Lock
from typing import Any, Final, Protocol, TypeAlias

import msgspec
from joblog.services.tasks.context import CancellationToken
from joblog.services.tasks.scopes import WORKER, of_kind
from joblog.services.tasks.task import Isolation, Task, TaskRegistry
from joblog.services.worker.execution.arguments import ArgumentReader
from joblog.services.worker.execution.told import Told
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.wire import RunJob

log = logging.getLogger(__name__)

#: Job id and lease, which identify a run in its assignment, its cancellation and its report.
RunKey: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class KnownTask:
    """A task, and what is made once for all its runs."""

    task: Task[..., Any]
    arguments: ArgumentReader
    retry: Retry | None
    #: Whether it runs on the worker's event loop; an async function in a process has a loop of its own.
    is_async: bool
    #: Its own worker filters, in their order.
    filters: tuple[Any, ...] = ()

    @classmethod
    def of(cls, task: Task[..., Any]) -> "KnownTask":
        retry = msgspec.convert(task.retry.model_dump(mode="json"), Retry) if task.retry is not None else None
        return cls(
            task,
            ArgumentReader(task),
            retry,
            task.is_async and task.isolation is not Isolation.PROCESS,
            of_kind(task.filters, WORKER),
        )


def known_tasks(registry: TaskRegistry) -> dict[str, KnownTask]:
    """The tasks of a registry by name; SettingsError for one that no worker could call."""
    return {task.name: KnownTask.of(task) for task in registry}


#: Seconds of a clock that nobody sets and that goes on while the machine is suspended. Python's `time.monotonic`
#: stands still in a suspended Linux, and a lease does not (clock_gettime(2)).
clock: Final[Callable[[], float]] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)


#: Two threads of one run may speak first at once.
_TOLD: Final = Lock()


class AssignmentRecord(Protocol):
    """An assignment as it came (a confluent-kafka message): what goes to the dead letters if it cannot be handled."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> Any: ...
    def value(self) -> Any: ...


class Leases:
    """How long this worker surely keeps the jobs of each lane; all instants are those of `clock`.

    - renewed_at: for each lane, when the last renewal was sent that Kafka has acknowledged.

    The worker's loop notes the renewals. The threads that start runs ask it before each start, without a lock: a
    process that was stopped for longer than its lease wakes in all of its threads at once.
    """

    __slots__ = ("_lasts_s", "renewed_at")

    def __init__(self, lanes: Iterable[int], lasts_s: float, now: float) -> None:
        """A lease lasts for `lasts_s` seconds from when its renewal was sent."""
        self._lasts_s = lasts_s
        self.renewed_at = dict.fromkeys(lanes, now)

    def renew(self, lane: int, sent_at: float) -> None:
        """Kafka has acknowledged a renewal that was sent then; an older one changes nothing."""
        if lane in self.renewed_at:
            self.renewed_at[lane] = max(self.renewed_at[lane], sent_at)

    def begin(self, lane: int, now: float) -> None:
        """Have a lease from a further lane."""
        self.renewed_at[lane] = now

    def end(self, lane: int) -> None:
        """Have none any more: what this lane assigns is given back."""
        del self.renewed_at[lane]

    def is_held(self, lane: int, now: float) -> bool:
        return now - self.renewed_at.get(lane, -inf) <= self._lasts_s

    def over(self, now: float) -> set[int]:
        """The lanes whose electors may have given the worker's jobs to others."""
        return {lane for lane in self.renewed_at if not self.is_held(lane, now)}


@dataclass(slots=True, eq=False)
class Run:
    """One assignment while the worker has it.

    `held` are the worker's runs whose end is not reported yet. Whoever takes a run out of it, by `claim`, has to
    report it, and nobody else may: so a run that returns as it is cancelled or times out is reported once. Times are
    those of `clock`, except `started_ms`.
    """

    job: RunJob
    known: KnownTask
    worker: str
    held: MutableMapping[RunKey, "Run"]
    arrived_at: float
    leases: Leases
    record: AssignmentRecord
    key: RunKey = field(init=False)
    token: CancellationToken = field(init=False, default_factory=CancellationToken)
    started_at: float = 0.0
    started_ms: int = 0
    deadline: float = inf
    timeout_s: float = inf
    thread: int | None = None
    interrupt: Callable[[], object] | None = None
    told: Told | None = None

    def __post_init__(self) -> None:
        self.key = (self.job.job_id, self.job.lease)

    def begin(self) -> bool:
        """Note the time of the start; false if the job may be another worker's by now: then it must not start."""
        now = clock()
        if not self.leases.is_held(self.job.lane, now):
            return False
        self.started_at, self.started_ms = now, time.time_ns() // 1_000_000
        return True

    def limit(self, timeout_s: float | None) -> None:
        """Set the time-out, counted from the start; None for the task's own, if it has one."""
        chosen = self.known.task.timeout_s if timeout_s is None else timeout_s
        if chosen is not None:
            self.timeout_s = chosen
            self.deadline = self.started_at + chosen

    def progressed(self, progress: float, text: str | None) -> None:
        """The run says how much of its work is done."""
        self._told().progressed(progress, text)

    def logged(self, text: str) -> None:
        """The run logs a line, or several."""
        self._told().logged(text)

    def _told(self) -> Told:
        if self.told is None:
            with _TOLD:
                if self.told is None:
                    self.told = Told()
        return self.told

    def result_bytes_max(self, allowed: int) -> int:
        """The longest result, as JSON, where the worker allows so much."""
        own = self.known.task.result_bytes_max
        return allowed if own is None else min(own, allowed)

    def claim(self) -> bool:
        """Whether the caller has to report the end of this run: true once."""
        return self.held.pop(self.key, None) is not None

    def interruptible_by(self, interrupt: Callable[[], object]) -> None:
        """Let `stop` call this from now on; called here if the run has been stopped before."""
        # In this order: `stop` sets the token first and then looks for the interrupt.
        self.interrupt = interrupt
        if self.token.is_cancelled:
            interrupt()

    def stop(self, reason: str) -> None:
        """Ask the run to stop, and interrupt it where that can be done. Never raises."""
        self.token.cancel(reason)
        if self.interrupt is not None:
            try:
                self.interrupt()
            except Exception:  # the callers have more runs to stop, and this one to report
                log.exception("run.not_interrupted", extra={"job_id": self.job.job_id})

    @property
    def duration_ms(self) -> float:
        """How long the run has taken so far; 0 before it began."""
        return (clock() - self.started_at) * 1000 if self.started_at else 0.0
