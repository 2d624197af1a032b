"""What a feature of a lane is: its records, its reports, and the points at which it may act.

The base class is the list of hooks. A lane collects, once, which features declare which hook, so a hook that nobody
declares costs nothing, and one for a state costs only the jobs that get there.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from joblog.streams.lane.job import Job
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election
from msgspec import msgpack

#: Called with the report, where it lies in the log, the election and the outbox.
ReportHandler = Callable[[Any, str, Election, LaneOutput], None]


class Feature:
    """One feature of one lane. Whatever it writes goes into the turn's outbox; whatever it keeps is lost with the
    lane, and must follow from its records and the lane's jobs.

    - prefix: of the keys of its records in `state`, None if it has none; decoder: of its records' values.
    """

    prefix: ClassVar[str | None] = None
    decoder: ClassVar[msgpack.Decoder[Any]]

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    # --- loading ---

    def load(self, key: str, value: Any, clock_ms: int) -> None:
        """Take one of its records, `key` without the prefix; tombstones are not loaded."""

    def loaded(self, clock_ms: int) -> None:
        """All records and jobs of the lane are loaded: build what follows from them."""

    # --- what it listens to ---

    def reports(self) -> Mapping[type, ReportHandler]:
        """The reports that are its own."""
        return {}

    def entered(self) -> Mapping[Any, Callable[[Job], None]]:
        """By state: called with each job that is now in this state, or has another version in it; also on loading."""
        return {}

    def left(self) -> Mapping[Any, Callable[[Job, Job, Any, LaneOutput], None]]:
        """By state: called with the job as it was in that state, as it is now, and the input that moved it."""
        return {}

    # --- hooks ---

    def appeared(self, job: Job, out: LaneOutput) -> None:
        """A job is in the lane that was not there: it was created, or revived after its end."""

    def may_start(self, job: Job) -> str | None:
        """None, or what an Enqueued job has to wait for although a worker has room.

        It is then held back until the feature calls `pipeline.store.release(job_id)`, or it leaves its state.
        """

    def ended(self, job: Job, out: LaneOutput) -> None:
        """A job became Succeeded, Failed or Deleted."""

    def forgotten(self, job: Job, out: LaneOutput) -> None:
        """An ended job leaves the lane's memory: at once if it Succeeded or was Deleted, later if it Failed."""

    def tick(self, caught_up: bool, election: Election, out: LaneOutput) -> None:
        """Time passes, ten times a second; `caught_up` when nothing that lies in the log is unread."""

    def turn_ended(self, out: LaneOutput) -> None:
        """Everything of this turn was decided; the last chance to write."""


def declared(features: tuple[Feature, ...], hook: str) -> tuple[Callable[..., Any], ...]:
    """The features' own methods of this name, without those that only inherit it."""
    return tuple(getattr(one, hook) for one in features if getattr(type(one), hook) is not getattr(Feature, hook))
