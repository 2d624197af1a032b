"""What to do about the rows of a partition at an instant: for the recurring process, and for users' tests."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.recurring import Overlap
from joblog.streams.recurring.due import Decision, decide
from joblog.streams.recurring.ends import Watched
from joblog.streams.recurring.jobs import Installation, job_of
from joblog.streams.recurring.plan import Plan, plan
from joblog.streams.recurring.rows import Row

#: How often it is noted that a last job has ended: the next owner reads the events since then.
NOTED_EACH: Final = timedelta(hours=1)
#: The events of such a time may not have been read yet.
UNREAD: Final = timedelta(minutes=10)
#: A job of which nothing was heard for so long is asked for again. That is no second one if its lane is only late.
LOST: Final = timedelta(minutes=10)

#: Whether a job that is watched has not ended, or has come; None while that is not known.
IsRunning = Callable[[str], bool | None]
HasCome = Callable[[str], bool | None]


def planned(
    row: Row, is_running: IsRunning, now: datetime, where: Installation, has_come: HasCome = lambda _: True
) -> Plan | None:
    """What a row has to have done now; None for nothing, and then the row notes when to look at it again."""
    if (sending := _unfinished(row) or _lost(row, is_running, now, where, has_come)) is not None:
        return _finished(row, sending, is_running, now, where, has_come)
    decision = _decision(row, is_running, now, where)
    return None if decision is None else plan(row, decision, now, where)


def watched(rows: Iterable[Row], now: datetime, where: Installation) -> dict[str, Watched]:
    """The last jobs of the definitions whose overlap matters, and what is known of each."""
    found = dict[str, Watched]()
    for row in rows:
        job_id = _last_job(row, where)
        if job_id is not None and row.progress is not None:
            created = row.progress.last_created_at or row.progress.through
            ended_at = row.progress.last_ended_at
            found[job_id] = Watched(min(ended_at or created, now), has_ended=ended_at is not None)
        sending = _unfinished(row)
        if sending is not None and row.definition is not None:
            found[job_of(row.definition, sending, where)] = Watched(min(sending, now))
    return found


def to_note(rows: Iterable[Row], is_running: IsRunning, now: datetime, where: Installation) -> Iterator[Row]:
    """The rows for which it is to be noted, for the first time or anew, that their last job has ended."""
    for row in rows:
        job_id, progress = _last_job(row, where), row.progress
        if job_id is None or progress is None:
            continue
        known = progress.last_ended_at or progress.last_created_at
        if known is not None and now - known > NOTED_EACH + UNREAD and is_running(job_id) is False:
            yield row


def _unfinished(row: Row) -> datetime | None:
    """The occurrence that somebody was about to create when a process ended, or Kafka did not answer."""
    definition, progress = row.definition, row.progress
    if definition is None or progress is None or progress.sending is None:
        return None
    # One of another schedule, or of a removed definition with the same id, is not made up for.
    is_open = definition.starts_at < progress.sending != progress.last_occurrence
    return progress.sending if is_open else None


def _lost(row: Row, is_running: IsRunning, now: datetime, where: Installation, has_come: HasCome) -> datetime | None:
    """The occurrence whose job has neither come nor been rejected: its command was lost.

    So it is with commands that an operator lets a lane skip; else its end would be waited for for ever.
    """
    definition, progress, last_job = row.definition, row.progress, _last_job(row, where)
    if definition is None or progress is None or last_job is None:
        return None
    occurrence = progress.last_occurrence
    # The brokers' clocks say when it was created, and may be behind: by this process's own, it was not long ago.
    times = [one for one in (occurrence, progress.last_created_at, row.asked_at) if one is not None]
    if occurrence is None or now - max(times) < LOST or has_come(last_job) is not False or not is_running(last_job):
        return None
    if job_of(definition, occurrence, where) != last_job:
        return None
    row.asked_at = now
    return occurrence


def _finished(
    row: Row, sending: datetime, is_running: IsRunning, now: datetime, where: Installation, has_come: HasCome
) -> Plan | None:
    """Create the job of such an occurrence, unless it has come: its lane may have forgotten it, and run it again."""
    definition, progress = row.definition, row.progress
    assert definition is not None
    assert progress is not None
    job_id, last_job = job_of(definition, sending, where), _last_job(row, where)
    came, runs = has_come(job_id), False if last_job is None else is_running(last_job)
    if came is None or runs is None:
        return None  # not known yet
    is_replacing = definition.overlap is Overlap.REPLACE and runs and last_job != job_id
    decision = Decision((sending,), is_replacing, (), progress.waiting, progress.through)
    made = plan(row, decision, now, where)
    if not came:
        return made
    commands = tuple(one for one in made.commands if one.job_id != job_id)
    decided = made.decided.model_copy(update={"last_created_at": min(sending, now)})
    return replace(made, decision=replace(decision, create=()), commands=commands, decided=decided)


def _last_job(row: Row, where: Installation) -> str | None:
    """The job whose end the next one has to know, if there is one; a lane that does not exist has none."""
    if row.definition is None or row.definition.overlap is Overlap.ALLOW or row.progress is None:
        return None
    job_id = row.progress.last_job_id
    return job_id if job_id is not None and lane_of_job(job_id) < where.lanes else None


def _decision(row: Row, is_running: IsRunning, now: datetime, where: Installation) -> Decision | None:
    definition, schedule = row.definition, row.schedule
    if definition is None or schedule is None or (row.next_due is not None and now < row.next_due):
        return None
    last_job = _last_job(row, where)
    still_runs = False if last_job is None else is_running(last_job)
    if still_runs is None:
        return None  # not known yet
    decision = decide(definition, schedule, row.pause, row.skip, row.progress, is_running=still_runs, now=now)
    if decision is None and (row.progress is None or row.progress.waiting is None):
        row.next_due = row.look_again(now)
    return decision
