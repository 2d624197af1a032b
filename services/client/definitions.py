"""What the arguments of a client's calls make: definitions as the log has them, or InvalidData with the field."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from joblog.services.client.json_values import encode_json
from joblog.services.client.options import JobOptions, limits_of, name_of, queue_for, unique_of
from joblog.services.tasks.task import Task
from joblog.streams.contract.cloudevents import explained
from joblog.streams.contract.fields import SECONDS_MAX
from joblog.streams.contract.recurring import Definition, Interval
from joblog.streams.contract.timestamps import EPOCH
from joblog.streams.errors import InvalidData
from msgspec import json
from pydantic import ValidationError

AnyTask = Task[..., Any] | str

#: Options that a definition has no place for.
UNUSED: Final = (
    *("idempotency_key", "job_id", "run_at", "parent", "traceparent"),
    *("parents", "limits", "unique", "batch", "deadline", "expires_in"),
)


def definition_of(
    recurring_id: str,
    task: AnyTask,
    schedule: str | timedelta,
    anchor: datetime | None,
    options: JobOptions,
    fields: Mapping[str, Any],
    now: datetime | None = None,
) -> Definition:
    """The definition that `add_or_update`, or a task's `@recurring`, asks for; its occurrences count from `now`."""
    for name in UNUSED:
        if getattr(options, name):
            raise InvalidData(f"options.{name} has no effect on a recurring job: leave it out")
    if unique_of(task) is not None:
        raise InvalidData(f"task {name_of(task)} has a unique key, which recurring jobs do not: use overlap= instead")
    if limits_of(task):
        raise InvalidData(f"task {name_of(task)} has limits, which recurring jobs do not: use overlap= instead")
    if anchor is not None and not isinstance(schedule, timedelta):
        raise InvalidData("anchor has no effect without an interval: write schedule=timedelta(...), or leave it out")
    timeout = options.timeout
    return validated(
        {
            **fields,
            "id": recurring_id,
            "task": name_of(task),
            "schedule": schedule if isinstance(schedule, str) else interval(schedule, anchor),
            "queue": queue_for(task, options.queue, fields["args"], fields["kwargs"]),
            "priority": options.priority,
            "retry": options.retry,
            "timeout_s": timeout / timedelta(seconds=1) if isinstance(timeout, timedelta) else timeout,
            "parameters": dict(options.parameters),
            "starts_at": now or datetime.now(UTC),
        }
    )


def validated(fields: Mapping[str, Any]) -> Definition:
    """The definition with its values as the log has them, so that it can be compared with one that was read."""
    known = dict(fields)
    for name in ("args", "kwargs", "parameters"):
        known[name] = json.decode(encode_json(fields[name], name))
    made: Definition = checked(Definition, **known)
    return made


def checked(kind: Any, **fields: Any) -> Any:
    """A message of the contract; InvalidData for fields that it cannot have."""
    try:
        return kind.model_validate(fields)
    except ValidationError as exc:
        raise InvalidData(explained(exc)) from exc


def interval(every: timedelta, anchor: datetime | None) -> Interval:
    """A schedule of equal steps, from 1970-01-01 in UTC if no anchor is given."""
    every_s = seconds(every, "schedule")
    if not 1 <= every_s <= SECONDS_MAX:
        raise InvalidData(f"schedule: an interval of {every_s} s is not between 1 s and {SECONDS_MAX} s")
    made: Interval = checked(Interval, every_s=every_s, anchor=EPOCH if anchor is None else anchor)
    return made


def seconds(value: timedelta | int, name: str) -> int:
    """A number of whole seconds."""
    given = value / timedelta(seconds=1) if isinstance(value, timedelta) else value
    if given != int(given):
        raise InvalidData(f"{name}: {value} is not a whole number of seconds")
    return int(given)
