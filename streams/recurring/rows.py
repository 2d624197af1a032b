"""The definitions of a partition as the fold of its records: for the recurring process, clients and the CLI alike."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from joblog.streams.contract.cloudevents import explained
from joblog.streams.contract.deadletters import internal_error
from joblog.streams.contract.recurring import Aspect, Definition, Pause, Progress, Skip, aspect_of
from joblog.streams.errors import ContractError, InvalidData
from joblog.streams.recurring.due import is_paused, lower_bound
from joblog.streams.recurring.schedule import Schedule, schedule_of, upcoming
from pydantic import ValidationError

_DAY: Final = timedelta(days=1)


@dataclass(slots=True)
class Row:
    """All aspects of one definition; `error` tells why it has no schedule.

    - asked_at: when its last job was asked for again, as it had not come.
    """

    id: str
    definition: Definition | None = None
    pause: Pause | None = None
    skip: Skip | None = None
    progress: Progress | None = None
    schedule: Schedule | None = None
    error: str | None = None
    #: When to look at it again; None for now.
    next_due: datetime | None = None
    asked_at: datetime | None = None

    def is_paused(self, now: datetime) -> bool:
        return is_paused(self.pause, now)

    def look_again(self, now: datetime) -> datetime | None:
        """When there may be something to do, if no record comes; None without a schedule."""
        if self.definition is None or self.schedule is None:
            return None
        after = max(lower_bound(self.definition, self.pause, self.progress, now), now)
        if self.pause is None or not self.is_paused(now):
            return self.schedule.next_after(after) or now + _DAY
        over = self.pause.until or now + _DAY
        # One that begins by a clock which is ahead leaves room for what is due before.
        before = self.schedule.next_after(after) if now < self.pause.at else None
        return over if before is None else min(before, over)

    def upcoming(self, now: datetime, count: int) -> list[datetime]:
        """The next occurrences that would be created, from now on."""
        if self.definition is None or self.schedule is None:
            return []
        start = now
        if self.pause is not None and self.is_paused(now):
            if self.pause.until is None:
                return []
            start = self.pause.until
        start = max(start, lower_bound(self.definition, self.pause, self.progress, now))
        skipped = self.schedule.next_after(self.skip.after) if self.skip is not None else None
        return [one for one in upcoming(self.schedule, start, count + 1) if one != skipped][:count]


@dataclass(slots=True)
class Rows:
    """The rows of a partition, or of many."""

    rows: dict[str, Row] = field(default_factory=dict)

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Take a record in; raises InvalidData, and changes nothing, if it cannot be read."""
        try:
            recurring_id, kind = aspect_of(key.decode())
            if kind is None or not recurring_id:
                return
            aspect: Any = None if value is None else kind.model_validate_json(value)
        except UnicodeDecodeError as exc:
            raise InvalidData(f"the key is no text: {exc}") from exc
        except ValidationError as exc:
            raise InvalidData(f"{key.decode()}: {explained(exc)}") from exc
        if isinstance(aspect, Definition) and aspect.id != recurring_id:
            # Its jobs would have the ids of those of the other.
            raise InvalidData(f"the definition of {aspect.id} has the key {recurring_id!r:.210}")
        row = self.rows.setdefault(recurring_id, Row(recurring_id))
        row.next_due = None
        if kind is Definition:
            _define(row, aspect)
        elif kind is Progress:
            row.progress = _further(row.progress, aspect)
        else:
            setattr(row, "pause" if kind is Pause else "skip", aspect)
        if row.definition is None and row.pause is None and row.skip is None and row.progress is None:
            del self.rows[recurring_id]

    def unreadable(self, key: bytes, value: bytes | None) -> ContractError | None:
        """Take a record in, or say why it cannot be read, be it for an error that nobody foresaw."""
        try:
            self.apply(key, value)
        except InvalidData as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - one record must not stop the others
            return internal_error(exc)
        return None

    def defined(self) -> list[Row]:
        """The rows that have a definition, by their ids."""
        return sorted((row for row in self.rows.values() if row.definition is not None), key=lambda row: row.id)


def _define(row: Row, definition: Definition | None) -> None:
    row.definition, row.schedule, row.error = definition, None, None
    if definition is None:
        return
    try:
        row.schedule = schedule_of(definition)
    except InvalidData as exc:
        row.error = str(exc)


def _further(before: Progress | None, after: Progress | None) -> Progress | None:
    """The later of two: a process that lost its partition may still write what it knew."""
    if before is None or after is None:
        return after
    if after.sending is not None and after.sending == before.last_occurrence:
        return before  # what it was about to create was created since
    return after if after.through >= before.through else before


def encode_aspect(aspect: Aspect) -> bytes:
    """The value of a record."""
    return aspect.model_dump_json(exclude_defaults=True).encode()
