"""What a running job can know about itself, and how it learns that it should stop."""

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from threading import Event, Lock
from typing import Any, Final, Protocol

import msgspec
from joblog.services.tasks.parents import ParentEnd, ends_of
from joblog.streams.contract.wire import RunJob
from joblog.streams.errors import TaskError

log = logging.getLogger(__name__)


class JobCancelled(TaskError):
    """Raised inside a job by `CancellationToken.raise_if_cancelled`; its text is the token's reason."""


class Cause(StrEnum):
    """Why a worker stops a run; the reason of a token begins with it."""

    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    LEASE_LOST = "lease lost"
    SHUTDOWN = "shutdown"


# One for all tokens: it is held for nanoseconds, and a lock for each job would cost a microsecond.
_TOKENS: Final = Lock()


class CancellationToken:
    """Tells a run that it should stop: set by the worker, from any thread, and read by the job."""

    __slots__ = ("_event", "_reason")

    def __init__(self) -> None:
        self._reason: str | None = None
        self._event: Event | None = None  # made when the job waits, since most never do

    @property
    def is_cancelled(self) -> bool:
        return self._reason is not None

    @property
    def reason(self) -> str | None:
        """Why the run should stop: a `Cause`, possibly with a colon and details; None while it should go on."""
        return self._reason

    def raise_if_cancelled(self) -> None:
        if self._reason is not None:
            raise JobCancelled(self._reason)

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep for `timeout` seconds, or until the run should stop; returns whether it should."""
        with _TOKENS:
            if self._event is None:
                self._event = Event()
                if self._reason is not None:
                    self._event.set()
        return self._event.wait(timeout)

    def cancel(self, reason: str) -> None:
        """Ask the run to stop; later calls do not change the reason."""
        with _TOKENS:
            if self._reason is None:
                self._reason = reason
            if self._event is not None:
                self._event.set()


class _Created(msgspec.Struct, gc=False):
    """The one part of a JobSpec that is needed here."""

    parameters: dict[str, Any] = {}


class Listener(Protocol):
    """Who takes what a run says of itself."""

    def progressed(self, progress: float, text: str | None) -> None: ...
    def logged(self, text: str) -> None: ...


class JobContext:
    """One run, as its task sees it. A parameter that is annotated with this class gets it."""

    __slots__ = ("_job", "_listener", "_parameters", "cancellation", "worker")

    def __init__(
        self,
        job: RunJob,
        worker: str,
        cancellation: CancellationToken | None = None,
        listener: Listener | None = None,
    ) -> None:
        """Without a listener, as in a task's tests, what the run says goes to Python's log."""
        self._job = job
        self._listener = listener
        self._parameters: Mapping[str, Any] | None = None
        self.worker = worker
        self.cancellation = cancellation or CancellationToken()

    @property
    def job_id(self) -> str:
        return self._job.job_id

    @property
    def attempt(self) -> int:
        """The number of this run, from 1; a run that was released before it started does not count."""
        return self._job.attempt

    @property
    def lease(self) -> int:
        return self._job.lease

    @property
    def queue(self) -> str:
        return self._job.queue

    @property
    def task(self) -> str:
        return self._job.task

    @property
    def ready_at(self) -> datetime:
        """When the job (last) became ready for a worker, in UTC, to the millisecond."""
        return datetime.fromtimestamp(self._job.ready_ms / 1000, UTC)

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context that the job was created with."""
        return self._job.traceparent

    @property
    def idempotency_key(self) -> str:
        """A key for side effects that differs between attempts; the job id is the key for what must happen once."""
        return f"{self._job.job_id}:{self._job.attempt}"

    def progress(self, share: float, text: str | None = None) -> None:
        """Show how much of the work is done, 0 to 1, and what to say of it. Sent at most once a second."""
        if not 0 <= share <= 1:
            raise ValueError(f"the progress of a job is a number from 0 to 1, not {share!r:.50}")
        if self._listener is None:
            log.info("job.progressed", extra={"progress": share, "text": text})
        else:
            self._listener.progressed(float(share), None if text is None else str(text))

    def log(self, text: str) -> None:
        """Add a line, or several, to what is shown of this job.

        Of more than 99 lines, or 64 KiB, in a second the oldest are dropped, and a line says how many.
        """
        if self._listener is None:
            log.info("job.logged", extra={"text": text})
        else:
            self._listener.logged(str(text))

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The job's parameters as they were when it was assigned."""
        if self._parameters is None:
            created = msgspec.json.decode(self._job.spec, type=_Created).parameters
            self._parameters = created | msgspec.json.decode(self._job.parameters, type=dict[str, Any])
        return self._parameters

    @property
    def parents(self) -> Mapping[str, ParentEnd]:
        """How the jobs that this one waited for ended, by id; without those that had not when it became ready."""
        return ends_of(self._job.parameters)

    @property
    def parent(self) -> ParentEnd | None:
        """How the job that this one waited for ended; None if it waited for none. TaskError if for several."""
        ends = self.parents
        if len(ends) > 1:
            raise TaskError(
                f"job {self.job_id} waited for {len(ends)} jobs: read context.parents, which has all by id"
            )
        return next(iter(ends.values()), None)


#: The job that runs in this thread, or in this asyncio task. Set by the worker only.
CURRENT: Final[ContextVar[JobContext]] = ContextVar("joblog_current_job")


def current_job() -> JobContext:
    """The context of the job that runs in this thread or asyncio task; TaskError if none does."""
    try:
        return CURRENT.get()
    except LookupError as exc:
        raise TaskError("no job runs in this thread or asyncio task") from exc


class JobLogFilter(logging.Filter):
    """Adds job_id, attempt, queue and task to what is logged while a job runs. Lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        job = CURRENT.get(None)
        if job is not None:
            record.job_id, record.attempt = job.job_id, job.attempt
            record.queue, record.task = job.queue, job.task
        return True
