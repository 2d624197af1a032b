"""The fields that messages share: one type for each, with the bounds that pydantic and msgspec both enforce."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from joblog.streams.contract.ids import LANES_MAX
from msgspec import Meta
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

QUEUE_PATTERN: Final = r"^[a-z0-9_-]{1,100}$"
TASK_PATTERN: Final = r"^[A-Za-z0-9_.:-]{1,200}$"
JOB_ID_PATTERN: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
WORKER_PATTERN: Final = r"^[A-Za-z0-9_.:@-]{1,200}$"
PRIORITY_MAX: Final = 1_000
ATTEMPTS_MAX: Final = 1_000
#: The largest integer that every JSON reader keeps exact.
INTEGER_MAX: Final = 2**53 - 1
#: The longest delay, time-out or due time ahead: a hundred years, in seconds.
SECONDS_MAX: Final = 3_155_760_000

QueueName = Annotated[str, StringConstraints(pattern=QUEUE_PATTERN)]
TaskName = Annotated[str, StringConstraints(pattern=TASK_PATTERN)]
JobId = Annotated[str, StringConstraints(pattern=JOB_ID_PATTERN)]
WorkerId = Annotated[str, StringConstraints(pattern=WORKER_PATTERN)]
Priority = Annotated[int, Field(ge=-PRIORITY_MAX, le=PRIORITY_MAX), Meta(ge=-PRIORITY_MAX, le=PRIORITY_MAX)]
Seconds = Annotated[float, Field(ge=0, le=SECONDS_MAX), Meta(ge=0, le=SECONDS_MAX)]
#: Log lines of a run in one report or event.
LINES_MAX: Final = 100
TimeoutSeconds = Annotated[float, Field(gt=0, le=SECONDS_MAX), Meta(gt=0, le=SECONDS_MAX)]
Share = Annotated[float, Field(ge=0, le=1), Meta(ge=0, le=1)]
#: Jobs a second.
Rate = Annotated[float, Field(gt=0, le=100_000), Meta(gt=0, le=100_000)]
#: Jobs that may run at once, or start in an interval.
Capacity = Annotated[int, Field(ge=1, le=1_000_000), Meta(ge=1, le=1_000_000)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=200), Meta(min_length=1, max_length=200)]
Text = Annotated[str, StringConstraints(max_length=10_000), Meta(max_length=10_000)]
Count = Annotated[int, Field(ge=0, le=INTEGER_MAX), Meta(ge=0, le=INTEGER_MAX)]
Lane = Annotated[int, Field(ge=0, le=LANES_MAX - 1), Meta(ge=0, le=LANES_MAX - 1)]
Version = Annotated[int, Field(ge=1, le=INTEGER_MAX), Meta(ge=1, le=INTEGER_MAX)]
Json = Any


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs a zone, such as Z or +02:00")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time lies between the years 1 and 9999 in UTC") from error


#: RFC 3339 with a zone; kept in UTC.
Instant = Annotated[datetime, AfterValidator(_in_utc)]


_is_queue: Final = re.compile(QUEUE_PATTERN).fullmatch
#: `$` would let a line end follow; a full match does not.
match_job_id: Final = re.compile(JOB_ID_PATTERN).fullmatch


def is_queue(name: str) -> bool:
    """Whether a queue can have this name."""
    return _is_queue(name) is not None


def wrong_queue(name: str) -> str:
    """Why this cannot be the name of a queue, and what to write instead."""
    lower = name.strip().lower()
    fix = f"write {lower}" if is_queue(lower) else f"it must match {QUEUE_PATTERN}"
    return f"{name!r:.110} is not a queue name: {fix}"


class Message(BaseModel):
    """The base of all models: frozen; a reader ignores fields that a newer writer added."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class StrictMessage(Message):
    """A message from outside: an unknown field is the sender's mistake, and refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
