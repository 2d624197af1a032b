"""What a feature of a lane is: its records, its reports and commands, and the points at which it may act.

The base class lists the hooks. A feature costs only the jobs that use it: a lane collects once which features
declare which hook, most hooks are declared for one state, and those of single jobs are called only for the jobs that
the feature follows (`pipeline.follow`). So a job that uses no feature makes no call into one, except for the worker
that it is assigned to.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from joblog.streams.contract import wire
from joblog.streams.lane.job import Job
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election, Rejection
from msgspec import msgpack

#: Called with the report, where it lies in the log, the election and the outbox.
ReportHandler = Callable[[Any, str, Election, LaneOutput], None]

#: Called with the command as it was received; returns why it cannot be done.
CommandHandler = Callable[[wire.Received, Election, LaneOutput], Rejection | None]


class Feature:
    """One feature of one lane.

    It writes into the turn's LaneOutput. What it keeps in memory is lost when the lane moves or is reloaded, so it
    must be able to build that again from its records and the lane's jobs.

    - uses: the bit by which a job says that it uses this feature (extras.py); 0 if no job does.
    - prefix: of the keys of its records in `state`, None if it has none; decoder: of its records' values.
    """

    uses: ClassVar[int] = 0
    prefix: ClassVar[str | None] = None
    decoder: ClassVar[msgpack.Decoder[Any]]

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    # --- loading ---

    def load(self, key: str, value: Any, clock_ms: int) -> None:
        """Load one of its records, `key` without the prefix; tombstones are not loaded."""

    def reports_lost(self) -> None:
        """Called before `loaded` if reports to this lane were lost, and an operator lets it go on without them."""

    def loaded(self, clock_ms: int) -> None:
        """Called when all records and jobs of the lane are loaded."""

    # --- records ---

    def forget_oldest(self, kept: dict[str, Any], most: int, out: LaneOutput) -> None:
        """Drop records of jobs, oldest first, beyond so many; in this turn as many as its transaction takes."""
        while len(kept) > most and not out.budget.is_spent:
            job_id = next(iter(kept))
            del kept[job_id]
            self.pipeline.unfollow(job_id, self)
            out.state[f"{self.prefix}{job_id}"] = None
            out.budget.spend(1, 0)

    # --- reports ---

    def reports(self) -> Mapping[type, ReportHandler]:
        """The handlers of its reports, by the report's type."""
        return {}

    # --- commands that name no job ---

    def commands(self) -> Mapping[type, CommandHandler]:
        """What decides its commands, by the command's type."""
        return {}

    # --- hooks of all jobs in a state ---

    def created(self) -> Mapping[Any, Callable[[Job, LaneOutput], None]]:
        """By state: called with each job whose first event led to this state."""
        return {}

    def entered(self) -> Mapping[Any, Callable[[Job], None]]:
        """By state: called with each job that enters this state or gets another version in it; also on loading."""
        return {}

    def left(self) -> Mapping[Any, Callable[[Job, Job, Any, LaneOutput], None]]:
        """By state: called with the job as it was in that state, as it is now, and the input that moved it."""
        return {}

    # --- hooks of the jobs that use it ---

    def found(self, job: Job, clock_ms: int) -> None:
        """Called with each job that uses it, when all records are loaded, and before `loaded`."""

    def creating(self, job: Job, cause: str, election: Election, out: LaneOutput) -> Rejection | None:
        """A job that uses it is about to be created; returns why it is not. It may move other jobs out of its way."""

    def changing(self, job: Job, command: Any, election: Election) -> Rejection | None:
        """A command is about to change a job that uses it, live or ended; returns why it does not."""

    def moved(self, before: Job | None, job: Job, what: Any, election: Election, out: LaneOutput) -> None:
        """A job that uses it was created (`before` and `what` are None), or moved by an input, also within a state.

        A job that was revived after its end comes with the state of its end as `before`.
        """

    def may_start(self, job: Job, election: Election, out: LaneOutput) -> str | None:
        """Returns None, or what an Enqueued job that uses it has to wait for although a worker has room.

        The job is held back already when this is called. It stays so until the feature calls
        `pipeline.store.release(job_id)`, or it leaves its state, be it within this call.
        """

    # --- hooks of the jobs that it follows ---

    def appeared(self, job: Job, out: LaneOutput) -> None:
        """A followed job was created, or revived after its end."""

    def ended(self, job: Job, out: LaneOutput) -> None:
        """A followed job became Succeeded, Failed or Deleted."""

    def forgotten(self, job: Job, out: LaneOutput) -> None:
        """A followed job leaves the lane: at once if it Succeeded or was Deleted, later if it Failed."""

    # --- hooks of time and turns ---

    def wakes_ms(self) -> int | None:
        """When `tick` has something to do, unix milliseconds, so that it is called in time; None if never."""

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """Called ten times a second; `caught_up` if everything in the lane's topics has been read."""

    def turn_ended(self, out: LaneOutput) -> None:
        """Called when all inputs of a turn are decided: the last chance to write."""


def declared(features: tuple[Feature, ...], hook: str) -> tuple[Callable[..., Any], ...]:
    """The methods of this name that features define themselves; those who inherit it are left out."""
    return tuple(getattr(one, hook) for one in features if getattr(type(one), hook) is not getattr(Feature, hook))
