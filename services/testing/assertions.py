"""Assertions about jobs, with messages that show what there is instead. AssertionError is all that they raise."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn

from joblog.projections.monitor.models import JobDetails, Rejected
from joblog.services.client.json_values import encode_json
from joblog.services.client.options import name_of
from joblog.services.tasks.task import Task
from joblog.services.testing.telling import DeadLetter, history_of, jobs_of, letters_of, rejections_of, why_of
from joblog.streams.contract.states import State
from msgspec import json

#: The states of jobs that wait for something.
WAITING: Final = (State.AWAITING, State.SCHEDULED, State.ENQUEUED)
#: An instant is met if it is this close: a delay is counted from when the job was created.
CLOSE: Final = timedelta(seconds=1)


class Assertions:
    """What `InMemoryJoblog` has of this."""

    def jobs(
        self,
        *,
        state: State | Collection[State] | None = None,
        task: Task[..., Any] | str | None = None,
        queue: str | None = None,
    ) -> list[JobDetails]:
        """Jobs in the order of their creation."""
        raise NotImplementedError

    @property
    def rejected(self) -> list[Rejected]:
        """The commands that could not be done."""
        raise NotImplementedError

    @property
    def parked(self) -> list[DeadLetter]:
        """The events that could not become jobs."""
        raise NotImplementedError

    def assert_enqueued(
        self,
        task: Task[..., Any] | str,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        state: State | None = None,
        priority: int | None = None,
        at: datetime | None = None,
        parameters: Mapping[str, Any] | None = None,
        count: int | None = None,
    ) -> JobDetails:
        """Of this task a job waits to be run (or is in `state`), with what is given; returns the first one.

        - args, kwargs: all of them; compared as JSON, as they are sent.
        - at: when a scheduled job is due, to the second. parameters: among those of the job.
        - count: how many there are; at least one, if left out.
        """
        wanted = _Wanted(args, kwargs, priority, at, parameters)
        there = self.jobs(task=task, queue=queue, state=state or WAITING)
        found = [job for job in there if wanted.fits(job)]
        if not found or (count is not None and len(found) != count):
            many = f"{count} jobs" if count is not None else "a job"
            self._fail(
                f"expected {many} of {name_of(task)} {wanted.text(queue, state)}; there are {len(found)}", task
            )
        return found[0]

    def assert_not_enqueued(
        self,
        task: Task[..., Any] | str,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
    ) -> None:
        """Of this task no job waits to be run, with these arguments if they are given."""
        wanted = _Wanted(args, kwargs)
        found = [job for job in self.jobs(task=task, queue=queue, state=WAITING) if wanted.fits(job)]
        if found:
            self._fail(f"expected no job of {name_of(task)} {wanted.text(queue, None)}; there are {len(found)}", task)

    def assert_nothing_enqueued(self) -> None:
        """No job at all waits to be run."""
        if self.jobs(state=WAITING):
            self._fail("expected no job that waits", None)

    def assert_state(self, job_id: str, state: State) -> JobDetails:
        """The job is in this state; returns it."""
        job = next((one for one in self.jobs() if one.id == job_id), None)
        if job is None:
            self._fail(f"there is no job {job_id}", None)
        if job.state is not state:
            why = why_of(job)
            details = f"\n{job.exception.details}" if job.exception is not None and job.exception.details else ""
            said = f"job {job_id} of {job.task} is {job.state}, not {state}{why}{details.rstrip()}"
            raise AssertionError(f"{said}\n{history_of(job)}")
        return job

    def _fail(self, what: str, task: Task[..., Any] | str | None) -> NoReturn:
        lines = jobs_of(self.jobs(task=task) or self.jobs())
        raise AssertionError("\n".join([what, *lines, *rejections_of(self.rejected), *letters_of(self.parked)]))


class _Wanted:
    """What a job must have."""

    def __init__(
        self,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        priority: int | None = None,
        at: datetime | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self._args = None if args is None else tuple(_sent(list(args), "args"))
        self._kwargs = None if kwargs is None else _sent(dict(kwargs), "kwargs")
        self._parameters = {} if parameters is None else _sent(dict(parameters), "parameters")
        self._priority, self._at = priority, at

    def fits(self, job: JobDetails) -> bool:
        return (
            (self._args is None or self._args == job.args)
            and (self._kwargs is None or self._kwargs == job.kwargs)
            and (self._priority is None or self._priority == job.priority)
            and (self._at is None or (job.due is not None and abs(job.due - self._at) <= CLOSE))
            and self._parameters.items() <= job.parameters.items()
        )

    def text(self, queue: str | None, state: State | None) -> str:
        said = {
            "args": self._args,
            "kwargs": self._kwargs,
            "priority": self._priority,
            "at": self._at,
            "parameters": self._parameters or None,
            "queue": queue,
            "state": state,
        }
        given = [f"{name}={value}" for name, value in said.items() if value is not None]
        return f"with {', '.join(given)}" if given else "that waits"


def _sent(value: Any, what: str) -> Any:
    """A value as it is after its way through the log."""
    return json.decode(encode_json(value, what))
