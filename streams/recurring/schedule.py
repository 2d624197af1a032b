"""When a definition is due: cron expressions with time zones, macros and intervals.

Cron expressions are evaluated on local times, by cronsim, within each stretch of time that has one offset from UTC;
what happens between two stretches is decided here:

- Clocks go forward. A local time that does not exist moves to the first one that does; when the hour field begins
  with `*`, the expression comes again within the hour, and the time is left out.
- Clocks go back. Local times that come twice count once (the first) if seconds, minutes and hours are fixed numbers
  or lists; with `*`, a range or a step in one of them, they count twice.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from re import finditer
from typing import Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from cronsim.cronsim import RANGES, Field
from joblog.streams.contract.recurring import Definition, Interval
from joblog.streams.errors import InvalidData

MACROS: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
    "@every_minute": "0 * * * * *",
    "@every_second": "* * * * * *",
}
_FIELDS: Final = (
    ("second", Field.SECOND, "0 to 59"),
    ("minute", Field.MINUTE, "0 to 59"),
    ("hour", Field.HOUR, "0 to 23"),
    ("day of the month", Field.DAY, "1 to 31, L or LW"),
    ("month", Field.MONTH, "1 to 12 or JAN to DEC"),
    ("day of the week", Field.DOW, "0 to 7 or SUN to SAT, 5L for the last Friday, 5#2 for the second"),
)
_EXAMPLE: Final = 'a valid one is "0 2 * * *": every day at 02:00'
_SECOND: Final = timedelta(seconds=1)
#: No zone changes its offset twice within this time.
_STEP: Final = timedelta(days=7)
#: Zones have a local time for everything from here on.
_BEGINNING: Final = datetime(1, 1, 3, tzinfo=UTC)


class Schedule(Protocol):
    def next_after(self, instant: datetime) -> datetime | None:
        """The first occurrence after this instant, in UTC; None if there is none within 50 years."""


class Every:
    """A schedule of equal steps from an anchor."""

    def __init__(self, interval: Interval) -> None:
        self._anchor = interval.anchor
        self._step = timedelta(seconds=interval.every_s)

    def next_after(self, instant: datetime) -> datetime | None:
        steps = (instant - self._anchor) // self._step + 1
        try:
            return self._anchor + max(steps, 0) * self._step
        except OverflowError:
            return None


class Cron:
    """A cron expression of six fields in a time zone."""

    def __init__(self, fields: str, zone: ZoneInfo) -> None:
        second, minute, hour = fields.split()[:3]
        self._fields = fields
        self._zone = zone
        self._is_interval = any(sign in field for field in (second, minute, hour) for sign in "*-/")
        self._is_hourly = hour.startswith("*")

    def next_after(self, instant: datetime) -> datetime | None:
        try:
            return self._next_after(max(instant.astimezone(UTC), _BEGINNING))
        except OverflowError:  # the end of the calendar, in UTC or in the zone
            return None

    def _next_after(self, instant: datetime) -> datetime | None:
        at = instant.replace(microsecond=0)
        offset = self._offset(at)
        while True:
            local = self._next_local((at + offset).replace(tzinfo=None))
            if local is None:
                return None
            found = local.replace(tzinfo=UTC) - offset
            change = self._first_change(at, found, offset)
            if change is None:
                if self._is_interval or not found.astimezone(self._zone).fold:
                    return found
                at = found
                continue
            ahead = self._offset(change)
            is_in_gap = found < change + (ahead - offset)
            if is_in_gap and not self._is_hourly and change > instant:
                return change
            at, offset = change - _SECOND, ahead

    def _next_local(self, local: datetime) -> datetime | None:
        try:
            return next(CronSim(self._fields, local))
        except (StopIteration, OverflowError):
            return None

    def _offset(self, at: datetime) -> timedelta:
        return at.astimezone(self._zone).utcoffset() or timedelta(0)

    def _first_change(self, start: datetime, end: datetime, offset: timedelta) -> datetime | None:
        """The first instant in (start, end] at which the offset is another one than `offset`."""
        low = start
        while low < end:
            high = min(low + _STEP, end)
            if self._offset(high) != offset:
                while high - low > _SECOND:
                    middle = low + (high - low) // 2
                    middle = middle.replace(microsecond=0)
                    low, high = (low, middle) if self._offset(middle) != offset else (middle, high)
                return high
            low = high
        return None


def schedule_of(definition: Definition) -> Schedule:
    """The schedule of a definition; InvalidData for an expression or a zone that cannot be used."""
    if isinstance(definition.schedule, Interval):
        return Every(definition.schedule)
    return cron(definition.schedule, definition.zone)


@lru_cache(maxsize=10_000)
def cron(expression: str, zone: str = "UTC") -> Cron:
    """The schedule of an expression or macro; InvalidData names the position, and a valid example."""
    place = zone_of(zone)
    text = MACROS.get(expression.strip().lower(), expression)
    if text.lstrip().startswith("@"):
        raise InvalidData(f"schedule {expression!r:.60} is no macro: write one of {', '.join(MACROS)}")
    words = [(found.start(), found.group().upper()) for found in finditer(r"\S+", text)]
    if len(words) not in (5, 6):
        raise InvalidData(
            f"cron {expression!r:.60} has {len(words)} fields, not 5, or 6 with seconds first; {_EXAMPLE}"
        )
    for (position, word), (name, field, allowed) in zip(words, _FIELDS[-len(words) :], strict=True):
        _check_field(expression, position, word, name, field, allowed)
    fields = " ".join("*" if word == "?" else word for _, word in words)
    made = Cron(fields if len(words) == 6 else f"0 {fields}", place)
    try:
        never = made.next_after(datetime(2000, 1, 1, tzinfo=UTC)) is None
    except CronSimError:
        never = True
    if never:
        raise InvalidData(f"cron {expression!r:.60} never comes: no such day in such a month; {_EXAMPLE}")
    return made


def zone_of(name: str) -> ZoneInfo:
    """The time zone of this name; InvalidData if there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise InvalidData(f"there is no time zone {name!r:.60}: write an IANA name, such as Europe/Berlin") from exc


def between(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    """The occurrences in (after, until], in order."""
    found = schedule.next_after(after)
    while found is not None and found <= until:
        yield found
        found = schedule.next_after(found)


def upcoming(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """The next occurrences."""
    return list(islice(between(schedule, after, datetime.max.replace(tzinfo=UTC)), count))


def _check_field(expression: str, position: int, word: str, name: str, field: Field, allowed: str) -> None:
    where = f"cron {expression!r:.60}: the {name} at position {position + 1}, {word!r:.40},"
    if "W" in word.replace("LW", "") and field is Field.DAY:
        raise InvalidData(f"{where} uses W for the nearest weekday, which is not supported; {_EXAMPLE}")
    try:
        field.parse("*" if word == "?" else word)
    except (CronSimError, ValueError, AssertionError) as exc:
        low, dash, high = word.partition("-")
        wraps = bool(dash) and low.isdigit() and high.isdigit() and int(low) > int(high)
        split = f"{low}-{max(RANGES[field])},{min(RANGES[field])}-{high}"
        hint = f"is a range that wraps: write {split}" if wraps else f"can be {allowed}"
        raise InvalidData(f"{where} {hint}; {_EXAMPLE}") from exc
