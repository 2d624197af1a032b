"""What `joblog recurring` shows of a row, and reads from an option."""

from datetime import datetime, timedelta
from typing import Any

from joblog.services.cli.values import parse_delay
from joblog.streams.contract.recurring import Interval
from joblog.streams.errors import InvalidData
from joblog.streams.recurring.rows import Row


def row_of(row: Row, now: datetime) -> dict[str, Any]:
    """A row of the list."""
    assert row.definition is not None
    upcoming = row.upcoming(now, 1)
    schedule, progress, pause = row.definition.schedule, row.progress, row.pause
    return {
        "id": row.id,
        "schedule": f"every {schedule.every_s} s" if isinstance(schedule, Interval) else schedule,
        "zone": row.definition.zone,
        "task": row.definition.task,
        "next": upcoming[0] if upcoming else None,
        "last": progress.last_occurrence if progress is not None else None,
        "last_job_id": progress.last_job_id if progress is not None else None,
        "paused": row.is_paused(now),
        "paused_until": pause.until if pause is not None and row.is_paused(now) else None,
        "error": row.error,
    }


def document(row: Row, now: datetime, count: int) -> dict[str, Any]:
    """Everything about a row."""
    assert row.definition is not None
    shown = row_of(row, now)
    definition = row.definition.model_dump(mode="json", exclude={"id", "schedule", "zone", "task"})
    shown_progress = {"waiting", "skipped"}
    progress = row.progress.model_dump(mode="json", include=shown_progress) if row.progress is not None else {}
    return {**shown, **definition, **progress, "upcoming": [one.isoformat() for one in row.upcoming(now, count)]}


def interval_of(text: str) -> timedelta:
    """The interval that `--every` names."""
    return parse_delay(text)


def seconds_of(text: str | None) -> int | None:
    """The whole seconds that an option names, if it is given."""
    if text is None:
        return None
    seconds = parse_delay(text).total_seconds()
    if seconds != int(seconds):
        raise InvalidData(f"{text} is not a whole number of seconds")
    return int(seconds)
