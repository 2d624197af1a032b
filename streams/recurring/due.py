"""What to do about a definition at an instant: which occurrences to create, and which to leave out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from joblog.streams.contract.recurring import Cause, Definition, Misfire, Overlap, Pause, Progress, Skip
from joblog.streams.recurring.schedule import Schedule, between

#: Missed occurrences are looked for backwards, in windows that grow by this factor, at most.
_WINDOW: Final = timedelta(minutes=1)
_GROWTH: Final = 8

MISFIRED: Final = "misfired"
SKIPPED: Final = "skip_next"
OVERLAPPED: Final = "overlap"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and the progress that holds once it was done.

    - create: occurrences whose jobs shall exist.
    - delete: whether the job before is deleted first.
    - left_out: occurrences without a job, and why; of those that misfired, the earliest ones may be missing.
    """

    create: tuple[datetime, ...]
    delete: bool
    left_out: tuple[tuple[datetime, str], ...]
    waiting: datetime | None
    through: datetime


def lower_bound(definition: Definition, pause: Pause | None, progress: Progress | None, now: datetime) -> datetime:
    """The instant after which occurrences count: those before were decided, or fell into a pause."""
    bounds = [definition.starts_at]
    if progress is not None:
        bounds.append(progress.through)
    if pause is not None:
        bounds += [end for end in (pause.after, _end_of(pause, now)) if end is not None]
    return max(bounds)


def paused_again(before: Pause | None, now: datetime, until: datetime | None) -> Pause:
    """The pause from now on that follows another, or changes one that is not over."""
    if before is None:
        return Pause(paused=True, at=now, until=until)
    end = _end_of(before, now)
    if end is None:
        return before.model_copy(update={"until": until})
    return Pause(paused=True, at=now, until=until, after=end)


def _end_of(pause: Pause, now: datetime) -> datetime | None:
    """When it ended; None while it lasts."""
    if not pause.paused:
        return pause.at
    return pause.until if pause.until is not None and pause.until <= now else None


def is_paused(pause: Pause | None, now: datetime) -> bool:
    return pause is not None and _end_of(pause, now) is None


def decide(
    definition: Definition,
    schedule: Schedule,
    pause: Pause | None,
    skip: Skip | None,
    progress: Progress | None,
    *,
    is_running: bool,
    now: datetime,
) -> Decision | None:
    """The decision on what became due; None if nothing has to be done.

    `is_running` tells whether the last job has not ended; it matters unless overlap is `allow`.
    """
    after = lower_bound(definition, pause, progress, now)
    # What was due before a pause began is still created, though a process may come to it later.
    until = min(now, pause.at) if pause is not None and is_paused(pause, now) else now
    waiting = progress.waiting if progress is not None else None
    count = 1 if definition.misfire is Misfire.RELAXED else definition.misfire_cap
    due = latest(schedule, after, until, count + 2)  # one more for a skipped one, one more to see what misfired
    if not due and (waiting is None or is_running):
        return None
    through = due[-1] if due else after
    skipped = schedule.next_after(skip.after) if skip is not None else None
    left_out = [(one, SKIPPED) for one in due if one == skipped]
    wanted = [one for one in due if one != skipped]
    kept = _kept(definition, wanted, count, now)
    left_out += [(one, MISFIRED) for one in wanted if one not in kept]
    create, delete, waiting, overlapped = _overlap(definition.overlap, kept, waiting, is_running)
    left_out += [(one, OVERLAPPED) for one in overlapped]
    return Decision(tuple(create), delete, tuple(sorted(left_out)), waiting, max(through, after))


def cause_of(
    definition: Definition, decision: Decision, occurrence: datetime, *, waiting: datetime | None, now: datetime
) -> Cause:
    """Why the job of an occurrence in `decision.create` is created; `waiting` is the one that waited before.

    An occurrence was missed if the next one is due as well, or if it is later than the definition tolerates.
    """
    if occurrence == waiting:
        return Cause.QUEUE
    is_missed = occurrence < decision.through or now - occurrence > timedelta(seconds=definition.misfire_tolerance_s)
    stands_for_others = definition.misfire is Misfire.RELAXED and any(why == MISFIRED for _, why in decision.left_out)
    return Cause.MISFIRE if is_missed or stands_for_others else Cause.SCHEDULE


def latest(schedule: Schedule, after: datetime, until: datetime, count: int) -> list[datetime]:
    """The last `count` occurrences in (after, until], found without walking through all of a long outage."""
    found, window, start = list[datetime](), _WINDOW, until
    while start > after and len(found) < count:
        end, start = start, until - window if until - after > window else after
        found = [*between(schedule, start, end), *found]
        # By how many it found: looking back eight times as far as necessary costs seconds, if the cap is large.
        window *= min(_GROWTH, count / len(found) + 1) if found else _GROWTH
    return found[-count:]


def _kept(definition: Definition, wanted: Sequence[datetime], count: int, now: datetime) -> list[datetime]:
    if definition.misfire is Misfire.IGNORABLE:
        tolerance = timedelta(seconds=definition.misfire_tolerance_s)
        wanted = [one for one in wanted if now - one <= tolerance]
    return list(wanted[-count:])


def _overlap(
    overlap: Overlap, kept: list[datetime], waiting: datetime | None, is_running: bool
) -> tuple[list[datetime], bool, datetime | None, list[datetime]]:
    """What to create, whether to delete the job before, what waits from now on, and what is left out.

    What waits was wanted when it was due, and is not lost if the policy was changed since.
    """
    line = ([] if waiting is None else [waiting]) + kept
    match overlap:
        case Overlap.ALLOW:
            return line, False, None, []
        case Overlap.SKIP:
            return ([], False, waiting, kept) if is_running else (line[:1], False, None, line[1:])
        case Overlap.QUEUE:
            create = [] if is_running else line[:1]
            rest = line[len(create) :]
            return create, False, rest[-1] if rest else None, rest[:-1]
        case Overlap.REPLACE:
            return line[-1:], is_running and bool(line), None, line[:-1]
