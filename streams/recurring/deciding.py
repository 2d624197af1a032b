"""What to do about the rows of a partition at an instant: for the recurring process, and for users' tests."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.recurring import Overlap
from joblog.streams.recurring.due import Decision, decide
from joblog.streams.recurring.jobs import Installation
from joblog.streams.recurring.plan import Plan, plan
from joblog.streams.recurring.rows import Row

#: An end is noted so late. By then what was noted of the job's creation is read back, and cannot replace it;
#: and a definition that comes more often has its next job, and writes no record more.
ENDED_AFTER: Final = timedelta(minutes=2)

#: Whether a job that is watched has not ended; None while that is not known.
IsRunning = Callable[[str], bool | None]


def planned(row: Row, is_running: IsRunning, now: datetime, where: Installation) -> Plan | None:
    """What a row has to have done now; None for nothing, and then the row notes when to look at it again."""
    decision = _decision(row, is_running, now, where)
    return None if decision is None else plan(row, decision, now, where)


def watched(rows: Iterable[Row], now: datetime, where: Installation) -> dict[str, datetime]:
    """The last jobs of the definitions whose overlap matters, with when each was created."""
    found = dict[str, datetime]()
    for row in rows:
        job_id = _last_job(row, where)
        if job_id is not None and row.progress is not None:
            found[job_id] = min(row.progress.last_created_at or row.progress.through, now)
    return found


def newly_ended(rows: Iterable[Row], is_running: IsRunning, now: datetime, where: Installation) -> Iterator[Row]:
    """The rows for which it is to be noted that their last job has ended, `ENDED_AFTER` its creation."""
    for row in rows:
        job_id = _last_job(row, where)
        if job_id is not None and row.progress is not None and is_running(job_id) is False:
            created = row.progress.last_created_at
            if created is not None and now - created > ENDED_AFTER:
                yield row


def _last_job(row: Row, where: Installation) -> str | None:
    """The job whose end the next one has to know, if there is one; a lane that does not exist has none."""
    if row.definition is None or row.definition.overlap is Overlap.ALLOW or row.progress is None:
        return None
    if row.progress.last_ended:
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
