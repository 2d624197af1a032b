"""Elect-state filters: they see the candidate state of a job and may replace it.

The retry policy is one of them. A filter never stops a lane: if it raises, the candidate is kept, and the event's
reason names the error. Custom filters are entry points of the group `joblog.elect_filters`, each an `ElectFilter`.
"""

from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from traceback import format_exception_only
from typing import Any, Final, Protocol

from joblog.streams.contract import wire
from joblog.streams.contract.retry import DEFAULT_RETRY, OnExceeded, Retry, delay_s, is_retried, jitter
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.contract.timestamps import parse_time_ms
from joblog.streams.lane.job import Job, deleted, enqueued, scheduled
from joblog.streams.lane.times import is_too_late
from joblog.streams.lane.transitions import Expired, Lost
from joblog.streams.plugins import make_filter
from msgspec import json, structs

ENTRY_POINTS: Final = "joblog.elect_filters"
REASON_MESSAGE_MAX: Final = 50
REASON_MAX: Final = 9_000

#: The states that a filter may elect for any candidate; besides these, only the candidate's own.
ELECTABLE: Final = frozenset({State.ENQUEUED, State.SCHEDULED, State.FAILED, State.DELETED})

_spec = json.Decoder(wire.JobSpec)
_event = json.Decoder(wire.JobEvent)


class ElectFilter(Protocol):
    """A rule that may elect another state.

    - order: filters are called in ascending order; the retry filter has 20.
    - states: the candidate states for which it is called, which costs time for each such job.
    - tasks: if it has that, the names of the tasks for whose jobs it is called; None for all.
    """

    name: str
    order: int
    states: frozenset[State]

    def elect(self, job: Job, candidate: wire.JobEvent, what: Any, now_ms: int) -> wire.JobEvent | None:
        """Another event for this job (see `scheduled`, `enqueued`, `deleted` in job.py), or None to agree.

        - job: as it was before; one that is being created has version 0, and the candidate's state.
        - what: the command, report or other input that led to the candidate.
        """
        ...


class RetryFilter:
    """Failed is replaced by Scheduled while the job's retry policy, or else its task's, allows another try.

    - random: what spreads the delays; by default the job's id and the number of the retry do (`jitter`), so that the
      same failure is always decided in the same way.
    """

    name = "retry"
    order = 20
    states = frozenset({State.FAILED})

    def __init__(self, random: Callable[[], float] | None = None) -> None:
        self._random = random

    def elect(self, job: Job, candidate: wire.JobEvent, what: Any, now_ms: int) -> wire.JobEvent | None:
        policy = policy_of(job, what.retry if isinstance(what, wire.RunFailed | Lost) else None)
        exception = candidate.exception
        types = (exception.types or (exception.type,)) if exception is not None else ()
        # A lost worker is not an exception of the task, so the policy's exception names do not apply.
        if type(what) is not Lost and not is_retried(policy, types):
            return None
        retry = job.retries + 1
        message = shortened(exception.message) if exception is not None else ""
        if retry > policy.attempts:
            if policy.on_exceeded is OnExceeded.DELETE:
                return deleted(job, f"All {policy.attempts} retries were spent: {message}")
            return None
        unit = jitter(job.id, retry) if self._random is None else self._random()
        wait_s = delay_s(policy, retry, unit)
        due_ms = now_ms + round(wait_s * 1000)
        if is_too_late(job, due_ms):
            return _without_retry(job, policy, candidate, what)
        reason = f"Retry attempt {retry} of {policy.attempts}: {message}"
        if wait_s <= 0:
            return enqueued(job, reason, retries=retry)
        return scheduled(job, due_ms, reason, retries=retry)


def _without_retry(job: Job, policy: Retry, candidate: wire.JobEvent, what: Any) -> wire.JobEvent | None:
    """What becomes of a failure after which the deadline leaves no time for the retry."""
    if policy.on_exceeded is OnExceeded.DELETE:
        message = "" if candidate.exception is None else shortened(candidate.exception.message)
        return deleted(job, f"No retry before the deadline: {message}")
    if type(what) is Expired:
        return None
    return structs.replace(candidate, reason=f"{candidate.reason} (no retry before the deadline)")


def shortened(message: str) -> str:
    """An exception's text, cut to the length that Hangfire uses in reasons."""
    return message if len(message) <= REASON_MESSAGE_MAX else f"{message[: REASON_MESSAGE_MAX - 1]}…"


def policy_of(job: Job, task_policy: Retry | None = None) -> Retry:
    """The job's own retry policy, else its task's, else the default."""
    return _spec.decode(job.spec).retry or task_policy or DEFAULT_RETRY


class FilterChain:
    """The filters in their order; `elect` calls one after the other.

    - on_error: called with the name of a filter that raised, or elected an event that the job cannot take.
    """

    def __init__(
        self,
        filters: Iterable[ElectFilter],
        on_error: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._filters = tuple(sorted(filters, key=lambda one: one.order))
        self._on_error = on_error
        self.watched = frozenset(state for one in self._filters for state in one.states)

    def elect(self, job: Job, candidate: wire.JobEvent, what: Any, now_ms: int) -> tuple[wire.JobEvent, ...]:
        """The events that are written: the elected one, after the failure it replaced if there was one."""
        elected = candidate
        for one in self._filters:
            if elected.state in one.states and _concerns(one, job):
                try:
                    answer = one.elect(job, elected, what, now_ms)
                    if answer is not None:
                        elected = self._checked(job, answer, elected, candidate.state, what)
                except Exception as error:  # noqa: BLE001  # user code: whatever it raises, the lane goes on
                    self._on_error(one.name)
                    elected = structs.replace(elected, reason=_with_error(elected.reason, one.name, error))
        if elected.state is candidate.state or candidate.state is not State.FAILED:
            return (elected,)
        traversed = structs.replace(candidate, traversed=True)
        return (traversed, structs.replace(elected, version=candidate.version + 1))

    def _checked(self, job: Job, answer: Any, candidate: wire.JobEvent, first: State, what: Any) -> wire.JobEvent:
        """The answer with the candidate's version; raises ValueError or TypeError if the job cannot take it."""
        if type(answer) is not wire.JobEvent:
            raise TypeError(f"a filter elects a JobEvent or None, not {type(answer).__name__}")
        spec = candidate.spec  # of a first event; filters do not change what a job was created with
        answer = structs.replace(answer, version=candidate.version, spec=spec)
        state = answer.state
        if state not in ELECTABLE and (
            structs.replace(answer, reason=candidate.reason, result=candidate.result) != candidate
        ):
            raise ValueError(f"{state} is not for a filter to elect")
        if state is State.ENQUEUED and first is State.PROCESSING:
            raise ValueError("a job that was about to start is Enqueued already: it would be elected again at once")
        if type(what) is Expired and state not in FINAL_STATES:
            raise ValueError("the job's time is over: it would be ended again at once")
        if state is State.FAILED and answer.exception is None:
            raise ValueError("a Failed job has an exception")
        if state is State.SCHEDULED:
            parse_time_ms(answer.due or "")
        if answer.task != job.task:
            raise ValueError("a filter does not change a job's task")
        if answer.queue != job.queue and job.extras is not None and job.extras.unique is not None:
            raise ValueError("a job with a unique key stays in its queue")
        # Encode and decode it as readers of the log will: what fails here must not get there.
        return structs.replace(_event.decode(json.encode(structs.replace(answer, spec=None))), spec=spec)


def _concerns(one: ElectFilter, job: Job) -> bool:
    tasks = getattr(one, "tasks", None)
    return tasks is None or job.task in tasks


def _with_error(reason: str | None, name: str, error: Exception) -> str:
    said = f"filter {name} raised {''.join(format_exception_only(error))}"[:200].strip()
    said = said.encode(errors="replace").decode().replace("\x00", "?")  # neither can be kept in Postgres
    return f"{(reason or '')[:REASON_MAX]} ({said})".strip()


def installed_filters() -> tuple[ElectFilter, ...]:
    """The custom filters that installed packages offer; SettingsError names one that cannot be made."""
    return tuple(
        make_filter(found, lambda made: FilterChain([made]), "name, order, states and elect")
        for found in entry_points(group=ENTRY_POINTS)
    )
