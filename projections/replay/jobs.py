"""All jobs in the order of their ids, each with all that there is of it: traces, row, history, record of `state`.

One pass over the sorted files and the tables: what differs is noted, the events are looked at by themselves, and what
concerns several jobs (counts, hashes, waits) is collected. Memory does not grow with the number of jobs.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import reduce
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from joblog.projections.replay.aside import Aside, gaps
from joblog.projections.replay.audit import audit, job_of
from joblog.projections.replay.compare import Ends, comparable, count_ends, expected_history, expected_row
from joblog.projections.replay.lane_hashes import Sums, hash_of
from joblog.projections.replay.log_pass import LogPass
from joblog.projections.replay.orphans import Wait, wait_of
from joblog.projections.replay.report import Found
from joblog.projections.replay.sorted_runs import Collected, SortedRuns
from joblog.projections.replay.state_check import Unsure, listed_findings, state_finding
from joblog.projections.replay.state_topic import StateRecords
from joblog.projections.replay.tables import Kept, Row, Snapshot
from joblog.projections.replay.trace import Trace, joined
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import State
from joblog.streams.progress import Told

#: So many jobs that differ are named with both sides.
NAMED_MAX: Final = 200
_TOLD_EVERY: Final = 5_000
# What is beside each other of a job.
_LOG, _TAIL, _ROW, _HISTORY, _ENTRY, _LISTED = range(6)


class Jobs:
    """The pass, and what it leaves.

    - differing: the first jobs that are not in the tables as in the log, `differ` is how many there are.
    - unsure: the first jobs whose spec in `state` is written otherwise, `unsure_more` the number of all others.
    - ends, counts, sums: what the log says; row_counts, row_sums: what the tables say.
    """

    def __init__(self, directory: Path, log: LogPass, tail: LogPass, lanes: Collection[int], found: Found) -> None:
        self._log, self._tail, self._lanes, self._found = log, tail, set(lanes), found
        self._begins = log.passed.begins
        self.waits: Collected[Wait] = Collected(SortedRuns(directory, "waits", list[Wait]))
        self.gaps: Collected[Aside] = Collected(SortedRuns(directory, "gaps", list[Aside]))
        self.count = self.differ = self.unsure_more = 0
        self.differing: list[str] = []
        self.unsure: list[Unsure] = []
        self.ends: Ends = Counter()
        self.counts: Counter[tuple[int, str, str]] = Counter()
        self.row_counts: Counter[tuple[int, str, str]] = Counter()
        self.sums, self.row_sums = Sums(), Sums()

    def run(
        self,
        snapshot: Snapshot | None,
        state: StateRecords | None,
        looked: Mapping[int, int],
        only: Collection[int] | None,
        told: Told,
    ) -> None:
        """Look at all jobs; `only`: the lanes whose rows are read, all if None; looked: see state_check."""
        sources: list[Iterator[tuple[bytes, int, Any]]] = [
            ((key, _LOG, reduce(joined, parts)) for key, parts in self._log.runs.merged()),
            ((key, _TAIL, reduce(joined, parts)) for key, parts in self._tail.runs.merged()),
        ]
        if snapshot is not None:
            sources.append((key, _ROW, row) for key, row in snapshot.jobs(only))
            sources.append((key, _HISTORY, kept) for key, kept in snapshot.history() if self._is_looked_at(key, only))
        if state is not None:
            sources.append((key, _ENTRY, parts[-1]) for key, parts in state.jobs.merged())
            sources.append((key, _LISTED, listed) for key, listed in state.listed())
        merged = heapq.merge(*sources, key=itemgetter(0, 1))
        for key, parts in groupby(merged, key=itemgetter(0)):
            given = {place: value for _, place, value in parts}
            self.count += given.keys() != {_LISTED}
            if self.count % _TOLD_EVERY == 0:
                told("comparing", self.count, 0)
            if snapshot is not None:
                self._compare(key, given.get(_LOG), given.get(_ROW), given.get(_HISTORY))
            self._look_at(key, given, looked if state is not None else None)

    def _is_looked_at(self, key: bytes, only: Collection[int] | None) -> bool:
        return only is None or lane_of_job(job_of(key)) in self._lanes

    def _compare(self, key: bytes, trace: Trace | None, row: Row | None, kept: Kept | None) -> None:
        """Note a job that is not in the tables as it is in the log, and add it up on both sides."""
        wanted = history = None
        if trace is not None:
            count_ends(trace, self.ends)
            wanted, history = expected_row(trace), expected_history(trace)
            self.counts[trace.lane, trace.queue, wanted.state] += 1
            if not self._begins.get(trace.lane, 0):
                for one in gaps(trace):
                    self.gaps.add(one.key, one)
                self.gaps.spill()
        if row is not None:
            row = comparable(row)
            self.row_counts[row.lane, row.queue, row.state] += 1
        is_equal = wanted == row and history == kept
        self._add_up(key, (wanted, history), (row, kept), is_equal)
        if is_equal or not self._must_be_equal(key, trace, row):
            return
        self.differ += 1
        if self.differ <= NAMED_MAX:
            self.differing.append(job_of(key))

    def _must_be_equal(self, key: bytes, trace: Trace | None, row: Row | None) -> bool:
        """Whether the log is there from the job's beginning."""
        if trace is not None and trace.first_version == 1:
            return True
        lane = trace.lane if trace is not None else row.lane if row is not None else lane_of_job(job_of(key))
        return not self._begins.get(lane, 0)

    def _add_up(
        self,
        key: bytes,
        log: tuple[Row | None, Kept | None],
        tables: tuple[Row | None, Kept | None],
        is_equal: bool,
    ) -> None:
        hashed = _hashed(key, *log)
        if hashed is not None:
            self.sums.add(*hashed)
        hashed = hashed if is_equal else _hashed(key, *tables)
        if hashed is not None:
            self.row_sums.add(*hashed)

    def _look_at(self, key: bytes, given: Mapping[int, Any], looked: Mapping[int, int] | None) -> None:
        """The events by themselves, and the record in `state`; not of a job of which the tables refused an event."""
        if job_of(key) in self._log.passed.refused:
            return
        trace, later = given.get(_LOG), given.get(_TAIL)
        whole: Trace | None = joined(trace, later) if trace is not None and later is not None else trace or later
        if whole is not None:
            self._found.add(audit(whole, self._begins))
            if whole.state is State.AWAITING and (wait := wait_of(whole)) is not None:
                self.waits.add(*wait)
                self.waits.spill()
        is_told = whole is not None or not self._begins.get(lane_of_job(job_of(key)), 0)
        if looked is None or not is_told:
            return
        finding = state_finding(key, whole, given.get(_ENTRY), looked)
        if isinstance(finding, Unsure):
            if len(self.unsure) < NAMED_MAX:
                self.unsure.append(finding)
            else:
                self.unsure_more += 1
        elif finding is not None:
            self._found.add((finding,))
        if _LISTED in given and lane_of_job(job_of(key)) in self._lanes:
            self._found.add(listed_findings(key, whole, given[_LISTED]))


def _hashed(key: bytes, row: Row | None, kept: Kept | None) -> tuple[int, int, int] | None:
    """Lane, hash of the row, and hash of the history; None if there is neither."""
    if row is None and kept is None:
        return None
    lane = row.lane if row is not None else lane_of_job(job_of(key))
    return lane, hash_of((key, row)) if row is not None else 0, kept.digests if kept is not None else 0
