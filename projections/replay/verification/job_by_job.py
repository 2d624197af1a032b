"""The jobs of some lanes one by one, the log's trace beside row and history: which of them differ."""

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import reduce
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from joblog.projections.replay.verification.audit import job_of
from joblog.projections.replay.verification.compare import comparable, expected_history, expected_row
from joblog.projections.replay.verification.expiry import Expired
from joblog.projections.replay.verification.findings import Finding, Kind
from joblog.projections.replay.verification.log_pass import LogPass
from joblog.projections.replay.verification.tables import Kept, Row, Snapshot
from joblog.projections.replay.verification.trace import Trace, joined
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.progress import Told

#: So many jobs that differ are named.
NAMED_MAX: Final = 200
_TOLD_EVERY: Final = 5_000
_LOG, _ROW, _HISTORY, _RETURNED = range(4)


class JobByJob:
    """The comparison, and what it leaves.

    - differing: the first jobs that are not in the tables as in the log; count: how many there are, by lane.
    - row_counts: how many rows there are of each lane, queue and state.
    """

    def __init__(self, log: LogPass, lanes: Collection[int], expired: Expired) -> None:
        self._log, self._lanes, self._expired = log, set(lanes), expired
        self.differing: list[str] = []
        self.count: Counter[int] = Counter()
        self.row_counts: Counter[tuple[int, str, str]] = Counter()

    def run(self, snapshot: Snapshot, told: Told) -> None:
        """Compare the jobs of these lanes."""
        sources: list[Iterator[tuple[bytes, int, Any]]] = [
            ((key, _LOG, reduce(joined, parts)) for key, parts in self._log.runs.merged()),
            ((key, _ROW, row) for key, row in snapshot.jobs(self._lanes)),
            ((key, _HISTORY, kept) for key, kept in snapshot.history(self._lanes)),
            ((key, _RETURNED, version) for key, version in snapshot.returned()),
        ]
        merged = heapq.merge(*sources, key=itemgetter(0, 1))
        for number, (key, parts) in enumerate(groupby(merged, key=itemgetter(0))):
            if number % _TOLD_EVERY == 0:
                told("comparing job by job", number, 0)
            given: Mapping[int, Any] = {place: value for _, place, value in parts}
            self._compare(key, given.get(_LOG), given.get(_ROW), given.get(_HISTORY), is_whole=_RETURNED not in given)

    def _compare(
        self, key: bytes, trace: Trace | None, row: Row | None, kept: Kept | None, *, is_whole: bool
    ) -> None:
        job = job_of(key)
        home = lane_of_job(job)
        if row is None and kept is None and trace is not None and not {trace.lane, home} <= self._lanes:
            return  # its row, or its history, was not asked for: that lane is as it should be
        lane = trace.lane if trace is not None else row.lane if row is not None else home
        if row is not None:
            self.row_counts[row.lane, row.queue, row.state] += 1
        is_gone = row is None and kept is None
        if not is_whole or (is_gone and trace is not None and self._expired.may_lack(trace)):
            return  # compared elsewhere, or expired
        wanted, history = (expected_row(trace), expected_history(trace)) if trace is not None else (None, None)
        is_equal = wanted == (comparable(row) if row is not None else None) and history == kept
        began_before = trace is None or trace.first_version > 1
        if is_equal or (began_before and self._log.passed.begins.get(lane, 0)):
            return
        self.count[lane] += 1
        if self.count.total() <= NAMED_MAX:
            self.differing.append(job)


def unexplained(lane: int) -> Finding:
    """Of a lane whose hashes differ, though no job does."""
    what = f"lane {lane}: the hashes of rows or history differ from the log, and no job does"
    return Finding(kind=Kind.JOB, lane=lane, job=None, what=what)
