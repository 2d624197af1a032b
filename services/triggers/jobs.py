"""What a trigger function returns, and the create commands that it becomes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from joblog.services.client.checks import agreeing
from joblog.services.client.options import (
    DEFAULT_OPTIONS,
    Call,
    JobOptions,
    drafted,
    filtered,
    filters_of,
    name_of,
    with_options,
)
from joblog.services.client.templates import CreateTemplate, Rules
from joblog.services.tasks.task import Task
from joblog.streams.contract.ids import hashed_job_id, lane_of_shard
from joblog.streams.contract.shards import shards_of
from joblog.streams.errors import InvalidData
from joblog.streams.triggers.handling import Command
from joblog.streams.triggers.incoming import IncomingEvent

#: The most jobs that one event can be, for one function: they are sent together.
JOBS_MAX: Final = 10_000


class Job:
    """A job to be created: a task or its name, and the arguments, as in `Client.enqueue`.

    Its id is made from the event, so `options.idempotency_key` and `options.job_id` are only for jobs that shall be
    the same for different events.
    """

    __slots__ = ("args", "kwargs", "options", "task")

    def __init__(
        self, task: Task[..., Any] | str, /, *args: Any, options: JobOptions = DEFAULT_OPTIONS, **kwargs: Any
    ) -> None:
        self.task: Final = task
        self.args: Final[Sequence[Any]] = args
        self.kwargs: Final[Mapping[str, Any]] = kwargs
        self.options: Final = options

    def __repr__(self) -> str:
        return f"<job of {name_of(self.task)}>"


def commands_of(event: IncomingEvent, trigger: str, returned: Any, rules: Rules) -> list[Command]:
    """The commands for what a function returned: a Job, several, or None. Raises InvalidData if it is none of these.

    The event and the place in what was returned make the ids: the same again are the same jobs. A function that
    looks at anything but the event may return others in another order; those are created, too.
    """
    made = (_command(event, trigger, index, job, rules) for index, job in enumerate(_jobs(returned)))
    return [command for command in made if command is not None]


def _jobs(returned: Any) -> list[Job]:
    if returned is None:
        return []
    if isinstance(returned, Job):
        return [returned]
    if not isinstance(returned, Iterable) or isinstance(returned, str | bytes | Mapping):
        raise InvalidData(f"it returned {_kind(returned)}: return a Job, a list of them, or None")
    jobs: list[Job] = []
    for one in returned:
        if not isinstance(one, Job):
            raise InvalidData(f"it returned {_kind(one)} among its jobs: return a Job, a list of them, or None")
        if len(jobs) == JOBS_MAX:
            raise InvalidData(f"it returned more than {JOBS_MAX} jobs for one event")
        jobs.append(one)
    return jobs


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.60}"


def _command(event: IncomingEvent, trigger: str, index: int, job: Job, rules: Rules) -> Command | None:
    """The command that creates a job; None if a filter of its task cancels that."""
    if not isinstance(job.options, JobOptions):
        raise InvalidData(f"options={job.options!r:.60} are no JobOptions")
    draft = filtered(drafted(job.task, Call(job.args, job.kwargs), job.options), filters_of((), job.task))
    if draft is None:
        return None
    options = draft.options
    if options.job_id is None and options.idempotency_key is None:
        options = with_options(options, job_id=job_id_of(event, trigger, index, options, rules))
    template = CreateTemplate(draft.task, with_options(options, job_id=None), rules)
    call = Call(draft.args, draft.kwargs, options.idempotency_key, options.job_id)
    record = template.fill(call) if options.job_id is None else agreeing(template, call)
    return Command(record.job_id, record.value)


def job_id_of(event: IncomingEvent, trigger: str, index: int, options: JobOptions, rules: Rules) -> str:
    """The id of the job at this place (from 0) of what a function returns for an event."""
    queue = options.queue or "default"
    key = f"{event.source} {event.id} {index}" if options.unique is None else options.unique.key
    shard = shards_of(queue, rules.shards, rules.shards_before).of_key(key)
    lane = lane_of_shard(queue, rules.lanes, shard)
    return hashed_job_id(lane, "trigger", trigger, event.source, event.id, str(index))
