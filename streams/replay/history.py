"""What happened to one job, as another policy or filter could have had it: its runs, and what came from outside."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import FINAL_STATES, State
from joblog.streams.lane.job import Job, evolve, is_transition, new_job
from joblog.streams.lane.transitions import Lost
from joblog.streams.replay.inputs import by_elector, creation_of, input_of
from joblog.streams.replay.stored import StoredEvent
from msgspec import Struct, json, structs

#: What ended jobs may hold together until a command moves them again, about.
ENDED_BYTES_MAX: Final = 64 * 1024 * 1024
#: What a job and one of its steps hold, about.
JOB_BYTES: Final = 1_500
STEP_BYTES: Final = 500

#: How the cause of an event begins that deletes a job of a cancelled batch.
CANCELLED: Final = "cancelled/"

_spec: Final = json.Decoder(wire.JobSpec).decode


#: When a job or a batch came into a state (unix milliseconds), and into which.
End = tuple[int, State]


class Run(Struct):
    """One run of a job.

    - waited_ms: from when the job was ready, or due, to the start. lasted_ms: from there to the outcome.
    - outcome: RunSucceeded, RunFailed, RunReleased or Lost; None if a command ended the run, or it is not over.
    """

    waited_ms: int
    lasted_ms: int = 0
    outcome: Any = None


class Outside(Struct):
    """What no policy or filter decides: a command, or the end of the job's parent.

    - before: the job's state. due_ms: if that is Scheduled, for when; it was not made due until then.
    """

    at_ms: int
    what: Any
    before: State
    due_ms: int = 0


class Cancelled(Struct, frozen=True):
    """The job's batch was cancelled. A job that runs goes on, unless `running`, but starts no more."""

    reason: str
    running: bool = False


class History(Struct):
    """A job: how it was created, what happened then, and how that came out.

    - job: as its events leave it. policy: its task's own retry policy, as its failures tell it.
    - retries, waited_ms: automatic retries, and how long they let the job wait. starts: when its runs began.
    - ends: when it came into a final state, and into which; and into which it went from there, if it was moved again.
    """

    create: wire.CreateJob
    spec: bytes
    created_ms: int
    job: Job
    steps: list[Run | Outside]
    starts: list[int]
    policy: Retry | None = None
    retries: int = 0
    waited_ms: int = 0
    is_replaced: bool = False
    ready_ms: int = 0
    ends: list[End] = []

    @property
    def is_open(self) -> bool:
        """Whether the job had not ended when the log was read."""
        return self.job.state not in FINAL_STATES

    @property
    def size(self) -> int:
        """The bytes that it holds, about."""
        return JOB_BYTES + 2 * len(self.spec) + STEP_BYTES * len(self.steps)

    def take(self, stored: StoredEvent) -> None:
        """The job's next event."""
        _, event, at_ms, cause = stored
        job = self.job
        self.policy = event.policy or self.policy
        if is_transition(event):
            if self.is_replaced:
                self._count_retry(stored)
            elif event.state is State.PROCESSING:
                self.starts.append(at_ms)
                self.steps.append(Run(max(at_ms - self.ready_ms, 0)))
            else:
                self._note(self._input(stored), at_ms)
            self.is_replaced = event.traversed
            if event.state is State.ENQUEUED:
                is_due = job.state is State.SCHEDULED and by_elector(cause)
                self.ready_ms = min(job.due_ms, at_ms) if is_due else at_ms
        elif event.outcome is not None:
            self._note(input_of(job, event, cause), at_ms)
        self.job = evolve(job, event, at_ms)
        if is_transition(event) and not event.traversed:
            note_end(self.ends, at_ms, event.state)

    def _input(self, stored: StoredEvent) -> Any:
        what = input_of(self.job, stored.event, stored.cause)
        if isinstance(what, wire.DeleteJob) and stored.cause.startswith(CANCELLED):
            return Cancelled(what.reason or "", self.job.state is State.PROCESSING)
        return what

    def _count_retry(self, stored: StoredEvent) -> None:
        after = evolve(self.job, stored.event, stored.at_ms)
        if after.retries > self.job.retries:
            self.retries += 1
            if after.state is State.SCHEDULED:
                self.waited_ms += after.due_ms - stored.at_ms

    def _note(self, what: Any, at_ms: int) -> None:
        last = self.steps[-1] if self.steps else None
        if self.job.state is State.PROCESSING and isinstance(last, Run):
            last.lasted_ms = max(at_ms - self.starts[-1], 0)
            if isinstance(what, wire.RunReport | Lost):
                last.outcome = _slim(what)
                return
        if what is not None and not isinstance(what, wire.JobDue):
            due_ms = self.job.due_ms if self.job.state is State.SCHEDULED else 0
            self.steps.append(Outside(at_ms, what, self.job.state, due_ms))


def note_end(ends: list[End], at_ms: int, state: State) -> None:
    """Note that a job or batch came into a state, if it ends by that, or goes on after an end."""
    if state in FINAL_STATES or (ends and ends[-1][1] in FINAL_STATES):
        ends.append((at_ms, state))


class Histories:
    """The jobs of one lane that were created between two instants, given out at the end, or when they are too many.

    Then those that ended first are: a command that moves one of them later is not seen. Those that were created later
    and wait for others, or belong to a batch, are among them, since what they depend on may be.

    - whole: keep what jobs were created with, for filters that look at it.
    """

    def __init__(self, from_ms: int | None = None, to_ms: int | None = None, *, whole: bool = False) -> None:
        self._from_ms, self._to_ms, self._whole = from_ms or 0, to_ms, whole
        self._live: dict[str, History] = {}
        self._ended: OrderedDict[str, History] = OrderedDict()
        self._ended_bytes = 0

    def __iter__(self) -> Iterator[History]:
        """Those that are held, in an order in which others can hold them."""
        yield from self._ended.values()
        yield from self._live.values()

    def hold(self, histories: Iterable[History]) -> None:
        """Take over what others held."""
        for history in histories:
            self._keep(history)

    def take(self, stored: StoredEvent) -> Iterator[History]:
        """The next event of the lane; yields the jobs that are over."""
        job_id, event = stored.job_id, stored.event
        spec = event.created_with
        if event.version == 1 and spec is not None:
            if (earlier := self._pop(job_id)) is not None:
                yield earlier
            is_early = self._to_ms is None or stored.at_ms < self._to_ms
            if self._from_ms <= stored.at_ms and (is_early or is_related(_spec(spec))):
                self._keep(_begun(stored, spec if self._whole else _bare(spec)))
        elif (history := self._pop(job_id)) is not None:
            history.take(stored)
            self._keep(history)
        yield from self._overflow()

    def _keep(self, history: History) -> None:
        if history.is_open or history.is_replaced:
            self._live[history.job.id] = history
        else:
            self._ended[history.job.id] = history
            self._ended_bytes += history.size

    def _pop(self, job_id: str) -> History | None:
        if (live := self._live.pop(job_id, None)) is not None:
            return live
        ended = self._ended.pop(job_id, None)
        if ended is not None:
            self._ended_bytes -= ended.size
        return ended

    def _overflow(self) -> Iterator[History]:
        while self._ended_bytes > ENDED_BYTES_MAX:
            _, oldest = self._ended.popitem(last=False)
            self._ended_bytes -= oldest.size
            yield oldest


def is_related(created: wire.CreateJob | wire.JobSpec) -> bool:
    """Whether a job waits for others when it is created, or belongs to a batch."""
    return created.parent is not None or created.parents is not None or created.batch is not None


def _begun(stored: StoredEvent, spec: bytes) -> History:
    job_id, event, at_ms, _ = stored
    created = _spec(spec)
    job = new_job(job_id, event, spec, created.priority, at_ms, created)
    ends = [(at_ms, job.state)] if job.state in FINAL_STATES else []
    return History(creation_of(job_id, event, spec), spec, at_ms, job, [], [], ready_ms=at_ms, ends=ends)


def _bare(spec: bytes) -> bytes:
    """What a policy needs of that with which a job was created."""
    created = _spec(spec)
    return json.encode(
        structs.replace(created, args=wire.EMPTY_ARRAY, kwargs=wire.EMPTY_OBJECT, parameters=wire.EMPTY_OBJECT)
    )


def _slim(what: Any) -> Any:
    """An outcome without its result and traceback."""
    if isinstance(what, wire.RunSucceeded):
        return structs.replace(what, result=wire.NO_RAW)
    if isinstance(what, wire.RunFailed):
        return structs.replace(what, exception=structs.replace(what.exception, details=""))
    return what
