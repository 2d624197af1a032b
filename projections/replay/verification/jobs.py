"""All jobs in the order of their ids, each with all that there is of it: traces, record of `state`.

One pass over the sorted files: the events are looked at by themselves and beside `state`, and what is to be compared
with the tables is added up by lane. Memory does not grow with the number of jobs.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import reduce
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from joblog.projections.replay.sorted_runs import Collected, SortedRuns
from joblog.projections.replay.verification.aside import Aside, gaps
from joblog.projections.replay.verification.audit import audit, job_of
from joblog.projections.replay.verification.compare import (
    Ends,
    comparable,
    count_ends,
    expected_history,
    expected_row,
    parameters_of,
    written,
)
from joblog.projections.replay.verification.expiry import Expired
from joblog.projections.replay.verification.lane_hashes import hash_of
from joblog.projections.replay.verification.lane_sums import Sums
from joblog.projections.replay.verification.log_pass import LogPass
from joblog.projections.replay.verification.orphans import Wait, waits_of
from joblog.projections.replay.verification.regular import Regular, regular
from joblog.projections.replay.verification.report import Found
from joblog.projections.replay.verification.row_hash import row_digest
from joblog.projections.replay.verification.state_check import Unsure, listed_findings, state_finding
from joblog.projections.replay.verification.state_topic import StateRecords
from joblog.projections.replay.verification.tables import Snapshot
from joblog.projections.replay.verification.trace import Trace, joined
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import State
from joblog.streams.progress import Told
from msgspec import json

#: So many jobs that differ are named with both sides.
NAMED_MAX: Final = 200
_TOLD_EVERY: Final = 5_000
# What is beside each other of a job.
_LOG, _TAIL, _PARAMETERS, _ENTRY, _LISTED, _RETURNED, _ROW, _HISTORY = range(8)


class Jobs:
    """The pass, and what it leaves.

    - unsure: the first jobs whose spec in `state` is written otherwise, `unsure_more` the number of all others.
    - ends, counts, sums: what the log says; table_sums: what the tables say of parameters.
    - returned: jobs that came back after their rows had expired, with the version. differing: jobs whose rows may be
      gone, are there, and are not as in the log.
    """

    def __init__(
        self, directory: Path, log: LogPass, tail: LogPass, lanes: Collection[int], found: Found, expired: Expired
    ) -> None:
        self._log, self._tail, self._lanes, self._found = log, tail, set(lanes), found
        self._begins = log.passed.begins
        self.waits: Collected[Wait] = Collected(SortedRuns(directory, "waits", list[Wait]))
        self.gaps: Collected[Aside] = Collected(SortedRuns(directory, "gaps", list[Aside]))
        self.count = self.unsure_more = 0
        self.unsure: list[Unsure] = []
        self.ends: Ends = Counter()
        self.counts: Counter[tuple[int, str, str]] = Counter()
        self.sums, self.table_sums = Sums(), Sums()
        self._expired = expired
        self.returned: dict[str, int] = {}
        self.differing: list[str] = []

    def run(
        self, snapshot: Snapshot | None, state: StateRecords | None, looked: Mapping[int, int], told: Told
    ) -> None:
        """Look at all jobs; looked: see state_check."""
        sources: list[Iterator[tuple[bytes, int, Any]]] = [
            ((key, _LOG, reduce(joined, parts)) for key, parts in self._log.runs.merged()),
            ((key, _TAIL, reduce(joined, parts)) for key, parts in self._tail.runs.merged()),
        ]
        if snapshot is not None:
            sources.append((key, _PARAMETERS, said) for key, said in snapshot.parameters())
            sources.append((key, _RETURNED, version) for key, version in snapshot.returned())
            sources.append((key, _ROW, row) for key, row in snapshot.left_jobs())
            sources.append((key, _HISTORY, kept) for key, kept in snapshot.left_history())
        if state is not None:
            sources.append((key, _ENTRY, parts[-1]) for key, parts in state.jobs.merged())
            sources.append((key, _LISTED, listed) for key, listed in state.listed())
        merged = heapq.merge(*sources, key=itemgetter(0, 1))
        for key, parts in groupby(merged, key=itemgetter(0)):
            given = {place: value for _, place, value in parts}
            self.count += _LOG in given or _TAIL in given or _ENTRY in given
            if self.count % _TOLD_EVERY == 0:
                told("comparing", self.count, 0)
            self._look_at(key, given, looked if state is not None else None)

    def _look_at(self, key: bytes, given: Mapping[int, Any], looked: Mapping[int, int] | None) -> None:
        trace: Trace | None = given.get(_LOG)
        usual = None
        if trace is not None:
            usual = regular(trace)
            self._add_up(key, trace, usual, given)
        elif _ROW in given and not self._begins.get(given[_ROW].lane, 0):
            self.differing.append(job_of(key))
        if _PARAMETERS in given:
            lane, text = given[_PARAMETERS]
            self.table_sums.rows[lane] += _hash_of_parameters(key, written(json.decode(text)))
        job = job_of(key)
        if job in self._log.passed.refused:  # the tables have not all that the log has
            return
        later: Trace | None = given.get(_TAIL)
        whole = joined(trace, later) if trace is not None and later is not None else trace or later
        if whole is not None and (usual is None or later is not None):
            self._found.add(audit(whole, self._begins))
        if whole is not None and whole.state is State.AWAITING:
            for parent, wait in waits_of(whole):
                self.waits.add(parent, wait)
            self.waits.spill()
        if looked is not None and (whole is not None or not self._begins.get(lane_of_job(job), 0)):
            self._compare_state(key, whole, given, looked)

    def _add_up(self, key: bytes, trace: Trace, usual: Regular | None, given: Mapping[int, Any]) -> None:
        """Add to what the tables must hold of the lane."""
        lane, sums = trace.lane, self.sums
        home = (key[6] & 15) << 8 | key[7]
        if usual is not None:
            events, digests = usual.events, usual.digests
            for end in usual.ends:
                self.ends[end] += 1
        else:
            events, digests = expected_history(trace) or (0, 0)
            count_ends(trace, self.ends)
            if not self._begins.get(lane, 0):
                for one in gaps(trace, given.get(_RETURNED)):
                    self.gaps.add(one.key, one)
                self.gaps.spill()
        if _RETURNED in given:
            if not self._is_cut(trace):
                self.returned[job_of(key)] = given[_RETURNED]
            self.counts[lane, trace.queue, trace.state.value] += 1
            return
        if self._expired.may_lack(trace):
            self._add_expired(key, trace, given)
            return
        sums.jobs[lane] += 1
        sums.rows[lane] += row_digest(trace)
        if trace.parameters is not None or trace.set is not None:
            sums.rows[lane] += _hash_of_parameters(key, written(parameters_of(trace)))
        sums.events[home] += events
        sums.history[home] += digests
        self.counts[lane, trace.queue, trace.state.value] += 1

    def _add_expired(self, key: bytes, trace: Trace, given: Mapping[int, Any]) -> None:
        """A job whose row may be gone, and so is in no sum."""
        row, kept = given.get(_ROW), given.get(_HISTORY)
        if row is None and kept is None:
            self._expired.lacks(trace)
            return
        self.counts[trace.lane, trace.queue, trace.state.value] += 1
        is_equal = row is not None and comparable(row) == expected_row(trace) and kept == expected_history(trace)
        if not is_equal and not self._is_cut(trace):
            self.differing.append(job_of(key))

    def _is_cut(self, trace: Trace) -> bool:
        """Whether the log has lost the first events of this job, which its row still knows."""
        return trace.first_version > 1 and bool(self._begins.get(trace.lane, 0))

    def _compare_state(
        self, key: bytes, whole: Trace | None, given: Mapping[int, Any], looked: Mapping[int, int]
    ) -> None:
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


def _hash_of_parameters(key: bytes, text: bytes | None) -> int:
    return hash_of((key, text)) if text is not None else 0
