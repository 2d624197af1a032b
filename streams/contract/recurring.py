"""Recurring jobs: the records of the topic `recurring`, where each aspect of a definition has a key of its own.

The key of a definition is its id; `id|pause`, `id|skip` and `id|progress` are the keys of the rest. So a client that
pauses, one that edits, and the recurring process that notes how far it came never overwrite each other, whatever the
order. All of an id are in the partition `murmur2(id) % lanes`, and a tombstone removes each.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from joblog.streams.contract.fields import (
    SECONDS_MAX,
    Instant,
    JobId,
    Json,
    Key,
    Message,
    Priority,
    QueueName,
    StrictMessage,
    TaskName,
    Text,
    TimeoutSeconds,
    Version,
)
from joblog.streams.contract.retry import RetryPolicy
from pydantic import Field, StringConstraints

RECURRING_PATTERN: Final = r"^[A-Za-z0-9_.:@-]{1,200}$"
#: The parameters that every job of a definition has: its id and the occurrence, named as Hangfire names them, and why
#: the job was created, a `Cause`. They are in the job's first event, and so the history of runs is in the log.
PARAMETER_ID: Final = "RecurringJobId"
PARAMETER_TIME: Final = "Time"
PARAMETER_CAUSE: Final = "Cause"
#: So many occurrences that were left out are remembered.
SKIPPED_MAX: Final = 20

RecurringId = Annotated[str, StringConstraints(pattern=RECURRING_PATTERN)]


class Misfire(StrEnum):
    """What becomes of occurrences that were due while nobody could create them.

    Relaxed: one job for any number, the latest. Strict: one each, the latest ones up to a cap. Ignorable: one for
    each that is not older than a tolerance, up to the cap.
    """

    RELAXED = "relaxed"
    STRICT = "strict"
    IGNORABLE = "ignorable"


class Overlap(StrEnum):
    """What becomes of an occurrence while the job of the one before has not ended.

    Allow: both run. Skip: it is left out. Queue: it is created when the other has ended, at most one waits. Replace:
    the other is deleted.
    """

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"
    REPLACE = "replace"


class Cause(StrEnum):
    """Why there is a job.

    Schedule: its occurrence was due. Misfire: it was created late for an occurrence that was missed, or stands for
    several. Queue: its occurrence waited until the job before had ended. Trigger: somebody asked for it.
    """

    SCHEDULE = "schedule"
    MISFIRE = "misfire"
    QUEUE = "queue"
    TRIGGER = "trigger"


class Interval(StrictMessage):
    """Every so many seconds, counted from the anchor; time zones do not matter."""

    every_s: Annotated[int, Field(ge=1, le=SECONDS_MAX)]
    anchor: Instant


class Definition(Message):
    """A recurring job as its users wrote it.

    - schedule: a cron expression of 5 fields, or 6 with seconds first; a macro such as `@daily`; or an interval.
    - starts_at: no occurrence before it; the instant at which the schedule or zone was last changed.
    - version: counts the changes of the definition.
    """

    id: RecurringId
    schedule: str | Interval
    zone: str = "UTC"
    task: TaskName
    args: tuple[Json, ...] = ()
    kwargs: dict[str, Json] = {}
    queue: QueueName = "default"
    priority: Priority = 0
    retry: RetryPolicy | None = None
    timeout_s: TimeoutSeconds | None = None
    parameters: dict[Key, Json] = {}
    misfire: Misfire = Misfire.RELAXED
    misfire_cap: Annotated[int, Field(ge=1, le=10_000)] = 100
    misfire_tolerance_s: Annotated[int, Field(ge=1, le=86_400)] = 30
    overlap: Overlap = Overlap.ALLOW
    starts_at: Instant
    version: Version = 1


class Pause(Message):
    """Whether a definition is paused, since when, and until when; what was due meanwhile is not made up for.

    With `paused` false, `at` is when it was resumed. `after` is the end of an earlier pause, which this record
    replaces: what was due before it is not made up for either.
    """

    paused: bool
    at: Instant
    until: Instant | None = None
    after: Instant | None = None


class Skip(Message):
    """The first occurrence after this instant is left out."""

    after: Instant


class Skipped(Message):
    """An occurrence that was left out, why, and when that was decided."""

    occurrence: Instant
    reason: Text
    at: Instant


class Progress(Message):
    """How far the recurring process came: every occurrence up to `through` was decided.

    - last_job_id, last_occurrence, last_created_at: the last job that it created.
    - last_ended_at: when that job is known to have ended, and not to have been requeued; what happened before does
      not have to be read again.
    - waiting: the occurrence that waits for that job to end.
    - sending: an occurrence whose job may have been created since, or not: noted before its command is sent where the
      overlap matters, so that no process forgets a job that runs.
    - skipped: the last occurrences that were left out, at most SKIPPED_MAX, the latest last. Of many that misfired
      at once, only the last ones are there.
    """

    through: Instant
    last_job_id: JobId | None = None
    last_occurrence: Instant | None = None
    last_created_at: Instant | None = None
    last_ended_at: Instant | None = None
    waiting: Instant | None = None
    sending: Instant | None = None
    skipped: tuple[Skipped, ...] = ()

    @property
    def last_skipped(self) -> datetime | None:
        return self.skipped[-1].occurrence if self.skipped else None

    @property
    def skipped_for(self) -> str | None:
        """Why the last one was left out."""
        return self.skipped[-1].reason if self.skipped else None


Aspect = Definition | Pause | Skip | Progress

#: What stands behind the id in the key of each kind of record.
SUFFIXES: Final[dict[type[Message], str]] = {Definition: "", Pause: "|pause", Skip: "|skip", Progress: "|progress"}
_KINDS: Final[dict[str, type[Message]]] = {suffix: kind for kind, suffix in SUFFIXES.items()}


def record_key(recurring_id: str, kind: type[Message]) -> str:
    """The key of the record that has this aspect of a definition."""
    return recurring_id + SUFFIXES[kind]


def aspect_of(key: str) -> tuple[str, type[Message] | None]:
    """The id and the kind that a key names; the kind is None for one that a newer version writes."""
    recurring_id, bar, name = key.partition("|")
    return recurring_id, _KINDS.get(bar + name)
