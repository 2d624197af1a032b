"""What a job is created with besides its task and arguments, and what client filters get to see of it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

from joblog.services.tasks.limits import has_places, limited
from joblog.services.tasks.queue_names import is_template, queue_of_call, queue_problem
from joblog.services.tasks.scopes import CLIENT, of_kind
from joblog.services.tasks.task import Task
from joblog.services.tasks.unique import keyed
from joblog.streams.contract.cloudevents import explained
from joblog.streams.contract.commands import Limit, Parents, Unique
from joblog.streams.contract.relations import PARENT_PARAMETER, Need
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import ContinueOn
from joblog.streams.errors import InvalidData, JoblogError
from pydantic import ValidationError

#: https://www.w3.org/TR/trace-context/#traceparent-header
_is_traceparent: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{1,900})?").fullmatch


class CreationCancelled(JoblogError):
    """A client filter wanted this job not to be created; nothing was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """How a job is to run; what is left out comes from its task, or else from Joblog's defaults.

    - queue: the task's own, or `default`, if None.
    - priority: higher first, within the queue; -1000 to 1000.
    - retry: None for the task's policy, or else ten retries on Hangfire's curve.
    - timeout: the longest run, a timedelta or seconds; None for the task's own. When it is over, the attempt fails; a
      task with `isolation="process"` is killed, others are asked to stop by their cancellation token.
    - parameters: small JSON values that jobs and filters can read, and commands can change.
    - idempotency_key: a job with the same queue and key is created once, while it lives and for a while after.
    - job_id: an id made before, to repeat a call whose outcome is unknown.
    - run_at: not before this instant, which needs a time zone; a past one means now.
    - parent: run when the job with this id has ended; on: how it has to end, by default ContinueOn.SUCCEEDED.
    - traceparent: W3C trace context, handed to the run.

    - after_batch: run when the batch with this id has ended; `on` says how.
    - parents: run when several jobs have ended: all of them, or any one.
    - limits: mutexes, semaphores and rates that it shares with other jobs (tasks/limits.py), beside its task's.
    - unique: a key of which one job of the queue lives at a time, and what becomes of another one.
    - batch: the id of the batch that it belongs to.
    - deadline: it does not start after this instant, and a run that lasts beyond it is cancelled.
    - expires_in: it is deleted if it has not started so long after its creation, a timedelta or seconds.

    Raises InvalidData for what would have no effect.
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
    on: ContinueOn | None = None
    traceparent: str | None = None
    after_batch: str | None = None
    parents: Parents | None = None
    limits: Sequence[Limit] = ()
    unique: Unique | None = None
    batch: str | None = None
    deadline: datetime | None = None
    expires_in: timedelta | float | None = None

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise InvalidData(problem)
        if (self.parent is not None or self.after_batch is not None) and self.on is None:
            object.__setattr__(self, "on", ContinueOn.SUCCEEDED)

    def _problems(self) -> Iterator[str]:
        yield from self._parent_problems()
        if self.queue is not None and (problem := queue_problem(self.queue)) is not None:
            yield problem
        for limit in self.limits:
            if not isinstance(limit, Limit):
                yield f'limits: {limit!r:.60} is no limit: write limits=[Limit.mutex("invoice-7")]'
        if self.unique is not None and not isinstance(self.unique, Unique):
            yield f'unique={self.unique!r:.60} is no unique key: write unique=Unique(key="order-17")'
        if self.retry is not None and not isinstance(self.retry, RetryPolicy):
            yield f"retry={self.retry!r:.60} is not a policy: write retry=RetryPolicy(attempts=3)"
        if self.traceparent is not None and not _is_traceparent(self.traceparent):
            yield f"traceparent {self.traceparent!r:.60} is not in the W3C form 00-TRACE_ID-PARENT_ID-FLAGS"

    def _parent_problems(self) -> Iterator[str]:
        if self.parent is not None and self.after_batch is not None:
            yield "a job waits for a job (parent) or for a batch (after_batch), not for both"
        if self.on is not None and self.parent is None and self.after_batch is None:
            yield f"on has no effect without a parent: write parent=JOB_ID, on={self.on!s}, or leave it out"
        if self.parents is not None and self.parent is not None:
            yield "parent has no effect with parents: name all of them in parents"
        if self.parents is not None and self.after_batch is not None:
            yield "a job waits for other jobs (parents) or for a batch (after_batch), not for both"
        if self.parents is not None and not isinstance(self.parents, Parents):
            yield f"parents={self.parents!r:.60} are no Parents: write parents=Parents(job_ids=[...], need=Need.ANY)"
        for name in self.parameters:
            if str(name).startswith(PARENT_PARAMETER):
                yield f"parameter {name!r:.60}: names that begin with {PARENT_PARAMETER} tell how parents ended"


DEFAULT_OPTIONS: Final = JobOptions()
#: How each of many jobs gets a unique key of its own.
KEY_FOR_EACH: Final = 'write @task(..., unique=Unique(key="{order_id}")) above the task, with a parameter\'s name'


class Call(NamedTuple):
    """One of many calls of a task. Key and id are as in JobOptions, for this one job."""

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
    """Looks at each job around its creation; runs in the thread that creates, in the order of the filters.

    Those of a client see all that it creates; those of a task, what is created with the task itself: by a client, or
    by a trigger, which only asks `on_creating`. Jobs of recurring definitions pass none.

    A filter may have an `order` (scopes.py).
    """

    def on_creating(self, draft: JobDraft) -> JobDraft | None:
        """The draft to go on with, changed or not; None to cancel the creation."""

    def on_created(self, job_id: str, draft: JobDraft) -> None:
        """The job's command is in the log; called in reverse order. What it raises is logged, and goes no further."""


def drafted(task: Task[..., Any] | str, call: Call, options: JobOptions) -> JobDraft:
    """The job that a call asks for; a task brings its queue if the options name none."""
    from_call: dict[str, Any] = {
        "queue": queue_for(task, options.queue, call.args, call.kwargs),
        "idempotency_key": options.idempotency_key if call.idempotency_key is None else call.idempotency_key,
        "job_id": options.job_id if call.job_id is None else call.job_id,
    }
    own = unique_of(task)
    if own is not None and options.unique is None:
        assert isinstance(task, Task)
        from_call["unique"] = keyed(own, task, call.args, call.kwargs)
    if limits := limits_of(task):
        assert isinstance(task, Task)
        from_call["limits"] = (*options.limits, *limited(limits, task, call.args, call.kwargs))
    return JobDraft(name_of(task), call.args, call.kwargs, with_options(options, **from_call))


def with_options(options: JobOptions, **changes: Any) -> JobOptions:
    """The options with some changed; `dataclasses.replace` is slower, and would name the wrong mistake."""
    values = {name: getattr(options, name) for name in JobOptions.__slots__}
    return JobOptions(**values | changes)


def name_of(task: Task[..., Any] | str) -> str:
    return task if isinstance(task, str) else task.name


def continuing(options: JobOptions, parent: str | Sequence[str], on: ContinueOn, need: Need) -> JobOptions:
    """The options of a job that waits for this parent, or for several."""
    if options.parent is not None or options.parents is not None:
        given = "parent" if options.parent is not None else "parents"
        raise InvalidData(f"options.{given} has no effect in continue_with(): give the parent as its first argument")
    if isinstance(parent, str):
        if need is not Need.ALL:
            raise InvalidData(f"need={need!s} has no effect on one parent: give a list of ids, or leave it out")
        return with_options(options, parent=parent, on=on)
    try:
        return with_options(options, parents=Parents(job_ids=tuple(parent), on=on, need=need))
    except ValidationError as exc:
        raise InvalidData(f"parents: {explained(exc)}") from exc


def unique_of(task: Task[..., Any] | str) -> Unique | None:
    """The unique key that a task's jobs have, with places for their arguments."""
    return None if isinstance(task, str) else task.unique


def limits_of(task: Task[..., Any] | str) -> Sequence[Limit]:
    """The limits that a task's jobs have, with places for their arguments."""
    return () if isinstance(task, str) else task.limits


def queue_for(task: Task[..., Any] | str, chosen: str | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The chosen queue, else the task's; made of the job's arguments if it is a template."""
    own, function = ("default", None) if isinstance(task, str) else (task.queue, task.function)
    queue = own if chosen is None else chosen
    return queue_of_call(queue, name_of(task), function, args, kwargs) if is_template(queue) else queue


def has_places_in(task: Task[..., Any] | str, options: JobOptions) -> bool:
    """Whether each job may have another queue, unique key or limit, made of its arguments."""
    if isinstance(task, str):
        return is_template(options.queue or "")
    return is_template(options.queue or task.queue) or task.unique is not None or has_places(task.limits)


def filters_of(everywhere: tuple[ClientFilter, ...], task: Task[..., Any] | str) -> tuple[ClientFilter, ...]:
    """The filters around the creation of a job: those of the client, then those of its task."""
    if isinstance(task, str) or not task.filters:
        return everywhere
    return (*everywhere, *of_kind(task.filters, CLIENT))


def filtered(draft: JobDraft, filters: Sequence[ClientFilter]) -> JobDraft | None:
    """What the filters make of a draft; None if one cancels the creation."""
    for one in filters:
        changed = one.on_creating(draft)
        if changed is None:
            return None
        draft = changed
    return draft


def due_at(delay: timedelta | float | None, at: datetime | None, now: datetime | None = None) -> datetime:
    """The instant that a delay from now (a timedelta or seconds) or a time names; a negative delay is in the past.

    `now` is the present, if it is not that of the machine's clock.

    Raises InvalidData unless exactly one is given, and for a delay that is no number or leads beyond the year 9999.
    """
    if delay is None and at is None:
        raise InvalidData("give a delay or a time: delay=60, delay=timedelta(...) or at=datetime(...)")
    if delay is not None and at is not None:
        raise InvalidData("give a delay or a time (at), not both")
    if at is not None:
        return at
    try:
        return (now or datetime.now(UTC)) + (delay if isinstance(delay, timedelta) else timedelta(seconds=delay or 0))
    except (OverflowError, ValueError) as exc:
        raise InvalidData(f"a delay of {delay} s does not lead to an instant before the year 10000") from exc
