"""Rows that have expired: which of the log's jobs may be missing in the tables, and which may not. Pure.

A row may be missing if its job's last event is an end, and the tables record that a row of this lane, queue, task and
state expired whose job ended then or later. Such jobs are left out of the sums of both sides. Those of them that are
there are compared one by one; of the others no more may be missing than were deleted.

A job that came back after its row had expired is known to the tables from that event on: it is compared with the rest
of its events, which are read again.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from joblog.projections.replay.verification.findings import Finding, Kind
from joblog.projections.replay.verification.tables import Marks, Overdue
from joblog.projections.replay.verification.trace import Trace
from joblog.streams.contract.states import FINAL_STATES

#: Of the rows that should have expired, so many are named.
NAMED_MAX = 20


class Expired:
    """What has expired by what the tables record; `missing` counts the jobs that are gone, by kind."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self.missing: Counter[tuple[int, str, str, str]] = Counter()

    def may_lack(self, trace: Trace) -> bool:
        """Whether the row of this job may be gone."""
        if not self._marks or trace.state not in FINAL_STATES:
            return False
        mark = self._marks.get(_kind(trace))
        return mark is not None and datetime.fromisoformat(trace.changed_at) <= mark.through

    def lacks(self, trace: Trace) -> None:
        """The row of this job, which may be gone, is gone."""
        self.missing[_kind(trace)] += 1

    def findings(self) -> Iterator[Finding]:
        """Where more rows are gone than have expired."""
        for (lane, queue, task, state), n in sorted(self.missing.items()):
            expired = self._marks[lane, queue, task, state].n
            if n > expired:
                what = (
                    f"lane {lane}, queue {queue}, task {task}: {n} {state} jobs are gone, and {expired} have expired"
                )
                yield Finding(kind=Kind.EXPIRY, lane=lane, job=None, what=what, log=n, found=expired)


def overdue_findings(overdue: Iterator[Overdue]) -> Iterator[Finding]:
    """Rows that should have expired: the first ones by name, the others by number."""
    more = 0
    for number, one in enumerate(overdue):
        if number < NAMED_MAX:
            since = f"{one.state} since {one.changed_at:%Y-%m-%d %H:%M:%SZ}"
            what, job = f"{one.kind} {one.job}: {since}, its row has not expired", one.job
            yield Finding(kind=Kind.EXPIRY, lane=one.lane, job=job if one.kind == "job" else None, what=what)
        else:
            more += 1
    if more:
        yield Finding(kind=Kind.EXPIRY, lane=None, job=None, what=f"{more} more rows should have expired", found=more)


def _kind(trace: Trace) -> tuple[int, str, str, str]:
    return trace.lane, trace.queue, trace.task, str(trace.state)
