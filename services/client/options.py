"""What a job is created with besides its task and arguments, and what client filters get to see of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

from joblog.services.tasks.task import Task
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import ContinueOn
from joblog.streams.errors import InvalidData, JoblogError


class CreationCancelled(JoblogError):
    """A client filter wanted this job not to be created; nothing was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """How a job shall run; what is left out comes from its task, or else from Joblog's defaults.

    - queue: the task's own, or `default`, if None.
    - priority: higher first, within the queue; -1000 to 1000.
    - retry: None for the task's policy, or else ten attempts on Hangfire's curve.
    - timeout: the longest run, a timedelta or seconds.
    - parameters: small JSON values that jobs and filters can read, and commands can change.
    - idempotency_key: a job with the same queue and key is created once, while it lives and for a while after.
    - job_id: an id made before, to repeat a call whose outcome is unknown.
    - run_at: not before this instant, which needs a time zone; a past one means now.
    - parent, on: run when the job of this id has ended in this way.
    - traceparent: W3C trace context, handed to the run.
    """

    queue: str | None = None
    priority: int = 0
    retry: RetryPolicy | None = None
    timeout: timedelta | float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    job_id: str | None = None
    run_at: datetime | None = None
    parent: str | None = None
    on: ContinueOn = ContinueOn.SUCCEEDED
    traceparent: str | None = None


DEFAULT_OPTIONS: Final = JobOptions()


class Call(NamedTuple):
    """One of many calls of a task. Key and id are as in JobOptions, but of this one job."""

    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    idempotency_key: str | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class JobDraft:
    """A job that is about to be created; a filter makes another one with `dataclasses.replace`."""

    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: JobOptions


class ClientFilter(Protocol):
    """Looks at each job around its creation; runs in the thread that creates, in the order of the filters."""

    def on_creating(self, draft: JobDraft) -> JobDraft | None:
        """The draft to go on with, changed or not; None to cancel the creation."""

    def on_created(self, job_id: str, draft: JobDraft) -> None:
        """The job's command is in the log; called in reverse order. What it raises is logged, and goes no further."""


def drafted(task: Task[..., Any] | str, call: Call, options: JobOptions) -> JobDraft:
    """The job that a call asks for; a task brings its queue if the options name none."""
    from_call = {
        "queue": queue_of(task) if options.queue is None else options.queue,
        "idempotency_key": options.idempotency_key if call.idempotency_key is None else call.idempotency_key,
        "job_id": options.job_id if call.job_id is None else call.job_id,
    }
    return JobDraft(name_of(task), call.args, call.kwargs, with_options(options, **from_call))


def with_options(options: JobOptions, **changes: Any) -> JobOptions:
    """The options with some changed; `dataclasses.replace` is slower, and would name the wrong mistake."""
    values = {name: getattr(options, name) for name in JobOptions.__slots__}
    return JobOptions(**values | changes)


def name_of(task: Task[..., Any] | str) -> str:
    return task if isinstance(task, str) else task.name


def queue_of(task: Task[..., Any] | str) -> str:
    return "default" if isinstance(task, str) else task.queue


def due_at(delay: timedelta | float | None, at: datetime | None) -> datetime:
    """The instant that a delay from now (a timedelta or seconds) or a time names; one of them is given."""
    if (delay is None) == (at is None):
        raise InvalidData("give either a delay or a time (at)")
    if at is not None:
        return at
    try:
        return datetime.now(UTC) + (delay if isinstance(delay, timedelta) else timedelta(seconds=delay or 0))
    except (OverflowError, ValueError) as exc:
        raise InvalidData(f"a delay of {delay} leads beyond the calendar") from exc
