"""Whether the log, Postgres and the electors' `state` say the same, while the system runs, in bounded memory.

1. pass over the log up to where the tables are now: a trace of each job goes into sorted files 2. open a snapshot of
the tables, and read the log on up to the offsets that it stores itself 3. read `state`, and the log a little further:
a job without an event meanwhile must be in `state` as in the log 4. merge traces, rows, history and records of
`state` by job id: what differs by its digests is noted, and the log is audited by itself 5. look for parents of the
jobs that wait 6. read the log again for the jobs that differ from their rows, and name both sides.

Steps 1 and 2 can be stopped, and resumed from the files.
"""

import heapq
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import reduce
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

from joblog.projections.replay.audit import audit, job_of
from joblog.projections.replay.compare import Ends, count_ends, equals
from joblog.projections.replay.findings import Finding, Kind
from joblog.projections.replay.log_pass import LogPass
from joblog.projections.replay.orphans import Wait, Waits, orphans
from joblog.projections.replay.sides import both_sides, events_of
from joblog.projections.replay.sorted_runs import SortedRuns
from joblog.projections.replay.state_topic import Entry, read_entries, state_finding
from joblog.projections.replay.tables import Kept, Row, Snapshot, positions
from joblog.projections.replay.totals import counters, outcomes, workers
from joblog.projections.replay.trace import Trace, joined
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import State
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import LogLost, ProjectionError
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.scan import Range, TopicReader, reading
from joblog.streams.progress import Stopped, Told, silent

#: So many findings are kept in full; the others are counted.
FINDINGS_MAX: Final = 1_000
#: So many jobs that differ from their rows are named with both sides.
NAMED_MAX: Final = 200
#: A transaction ends in its partitions one after the other: so long may it be seen in one and not in another.
SETTLE_S: Final = 0.3


class Report(NamedTuple):
    """What a verification found: `counts` of all findings by kind, the first ones in full.

    - events, jobs: how many were compared. cut: the offset in each lane up to which the log was folded.
    - late_lanes: lanes whose log lacks its beginning; jobs and sums of theirs are not compared with tables.
    """

    findings: list[Finding]
    counts: dict[str, int]
    events: int
    jobs: int
    cut: dict[int, int]
    late_lanes: list[int]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.counts


class _Found:
    """Findings: all are counted, the first ones of each kind kept."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.counts: Counter[str] = Counter()

    def add(self, findings: Iterable[Finding]) -> None:
        for one in findings:
            self.counts[one.kind] += 1
            if self.counts[one.kind] <= FINDINGS_MAX // len(Kind):
                self.kept.append(one)


class Verification:
    """One verification; its files are in `directory`, from which it goes on if another one stopped there.

    - dsn: None to leave Postgres out. only: the lanes to look at; all, if None. with_state: look at `state`, too.
    """

    def __init__(
        self,
        config: KafkaConfig,
        names: TopicNames,
        lanes: int,
        directory: Path,
        *,
        dsn: str | None = None,
        schema: str = "joblog",
        only: Iterable[int] | None = None,
        with_state: bool = True,
        told: Told = silent,
    ) -> None:
        self._config, self._names, self._lanes = config, names, lanes
        self._dsn, self._schema, self._with_state, self._told = dsn, schema, with_state, told
        self._only = sorted(only) if only is not None else list(range(lanes))
        self._is_whole = len(self._only) == lanes
        self._directory = directory
        self._log = LogPass(directory, "events", names.prefix, self._only)
        self._tail = LogPass(directory, "tail", names.prefix, self._only)
        self._entries = SortedRuns(directory, "state", Entry)
        self._waits = Waits(SortedRuns(directory, "waits", list[Wait]))
        self._found = _Found()
        self._jobs = 0
        self._ends: Ends = Ends()
        self._looked: dict[int, int] = {}
        self._differing: list[str] = []
        self._differ = 0

    def run(self) -> Report:
        """Verify; raises Stopped, after which another one may go on, KafkaException, and ProjectionError."""
        began = time.monotonic()
        with ExitStack() as stack:
            reader = stack.enter_context(reading(self._config, self._names.events))
            reader.check_partitions(self._lanes)
            self._begin(reader)
            stops, refused = self._stops(reader)
            self._pass("reading the log", reader, self._log, stops, refused)
            snapshot = None
            if self._dsn is not None:
                snapshot = stack.enter_context(Snapshot(self._dsn, self._schema))
                stops = self._checked(snapshot.offsets)
                self._pass("reading the log", reader, self._log, stops, snapshot.refused)
            if self._with_state:
                self._read_state(reader)
            self._merge(snapshot)
            self._find_orphans()
            passed = self._log.passed
            if snapshot is not None:
                self._name_both_sides(reader, snapshot, stops)
                full = self._full_lanes()
                self._found.add(counters(snapshot, self._only))
                self._found.add(outcomes(snapshot, self._ends, full))
                if self._is_whole and len(full) == self._lanes:
                    self._found.add(workers(snapshot, passed.workers))
            self._found.add((*passed.findings, *self._tail.passed.findings))
        late = [lane for lane in self._only if lane not in self._full_lanes()]
        counts, seconds = dict(sorted(self._found.counts.items())), time.monotonic() - began
        return Report(self._found.kept, counts, passed.events, self._jobs, stops, late, seconds)

    def _begin(self, reader: TopicReader) -> None:
        """Go on from the files, if there are some, or at the beginning of the log."""
        passed = self._log.passed
        if self._log.resume():
            if (self._log.passed.prefix, self._log.passed.lanes) != (passed.prefix, passed.lanes):
                raise ProjectionError(f"{self._directory} is of another verification: give another directory")
            return
        bounds = reader.bounds(self._only)
        passed.begins = {lane: one.start for lane, one in bounds.items()}
        passed.next = dict(passed.begins)

    def _stops(self, reader: TopicReader) -> tuple[dict[int, int], set[tuple[int, int]]]:
        """Up to where the log is folded: as far as the tables are, or to its present end."""
        offsets, refused = positions(self._dsn, self._schema) if self._dsn is not None else ({}, set())
        ends = reader.bounds(self._only)
        if self._dsn is None:
            return {lane: one.stop for lane, one in ends.items()}, refused
        for lane in self._only:
            if offsets.get(lane, 0) > ends[lane].stop:
                raise LogLost(
                    f"the tables are at offset {offsets[lane]} of lane {lane}, but {self._names.events} ends at "
                    f"{ends[lane].stop}: they belong to another log (mind the prefix and the schema)"
                )
        return self._checked(offsets), refused

    def _checked(self, offsets: dict[int, int]) -> dict[int, int]:
        passed = self._log.passed
        stops = {lane: max(offsets.get(lane, 0), passed.begins[lane]) for lane in self._only}
        for lane, stop in stops.items():
            if passed.next[lane] > stop:
                raise ProjectionError(
                    f"the tables are at offset {stop} of lane {lane}, before what was read already "
                    f"({passed.next[lane]}): they were built anew; start from the beginning, in another directory"
                )
        return stops

    def _pass(
        self, step: str, reader: TopicReader, log: LogPass, stops: dict[int, int], refused: set[tuple[int, int]]
    ) -> None:
        total = sum(stops[lane] - log.passed.begins[lane] for lane in stops)
        try:
            for _ in log.read(reader, stops, refused):
                self._told(step, sum(log.reached[lane] - log.passed.begins[lane] for lane in stops), total)
        except Stopped:
            log.checkpoint()
            raise

    def _read_state(self, reader: TopicReader) -> None:
        self._looked = {lane: one.stop for lane, one in reader.bounds(self._only).items()}
        time.sleep(SETTLE_S)
        with reading(self._config, self._names.state) as state:
            state.check_partitions(self._lanes)
            ranges, done = state.bounds(self._only), 0
            total = sum(one.length for one in ranges.values())
            unreadable: list[Finding] = []
            for count in read_entries(state, ranges, self._entries, unreadable):
                done += count
                self._told("reading state", done, total)
            self._found.add(unreadable)
        time.sleep(SETTLE_S)
        ends = {lane: one.stop for lane, one in reader.bounds(self._only).items()}
        self._tail.passed.begins = dict(self._log.passed.next)
        self._tail.passed.next = dict(self._log.passed.next)
        self._pass("reading on", reader, self._tail, ends, set())

    def _merge(self, snapshot: Snapshot | None) -> None:
        sources: list[Iterator[tuple[bytes, int, Any]]] = [
            ((key, 0, reduce(joined, parts)) for key, parts in self._log.runs.merged()),
            ((key, 1, reduce(joined, parts)) for key, parts in self._tail.runs.merged()),
            ((key, 4, parts[-1]) for key, parts in self._entries.merged()),
        ]
        if snapshot is not None:
            sources.append((key, 2, row) for key, row in snapshot.jobs(None if self._is_whole else self._only))
            sources.append((key, 3, kept) for key, kept in snapshot.history() if self._is_looked_at(key))
        merged = heapq.merge(*sources, key=itemgetter(0, 1))
        for key, parts in groupby(merged, key=itemgetter(0)):
            given = {place: value for _, place, value in parts}
            self._jobs += 1
            if self._jobs % 5_000 == 0:
                self._told("comparing", self._jobs, 0)
            self._look_at(key, given, with_tables=snapshot is not None)

    def _look_at(self, key: bytes, given: dict[int, Any], *, with_tables: bool) -> None:
        trace: Trace | None = given.get(0)
        later: Trace | None = given.get(1)
        if with_tables:
            self._compare(key, trace, given.get(2), given.get(3))
        whole = joined(trace, later) if trace is not None and later is not None else trace or later
        is_told = job_of(key) not in self._log.passed.refused
        begins = self._log.passed.begins
        if whole is not None and is_told:
            self._found.add(audit(whole, begins))
            if whole.state is State.AWAITING:
                self._waits.add(whole)
        if self._with_state and is_told and (whole is not None or not begins.get(lane_of_job(job_of(key)), 0)):
            finding = state_finding(key, whole, given.get(4), self._looked)
            if finding is not None:
                self._found.add((finding,))

    def _compare(self, key: bytes, trace: Trace | None, row: Row | None, kept: Kept | None) -> None:
        """Note a job that is not in the tables as it is in the log."""
        if trace is not None:
            count_ends(trace, self._ends)
            is_cut = trace.first_version > 1 and trace.lane not in self._full_lanes()
            differs = not is_cut and (row is None or not equals(trace, row, kept))
        elif row is not None or kept is not None:
            differs = (row.lane if row is not None else lane_of_job(job_of(key))) in self._full_lanes()
        else:
            return
        if differs:
            self._differ += 1
            if self._differ <= NAMED_MAX:
                self._differing.append(job_of(key))

    def _find_orphans(self) -> None:
        if not self._waits.count:
            return
        runs = (self._log.runs.merged(), self._tail.runs.merged())
        merged = heapq.merge(*(((key, n, parts) for key, parts in one) for n, one in enumerate(runs)))
        jobs = (
            (key, reduce(joined, (trace for _, _, parts in several for trace in parts)))
            for key, several in groupby(merged, key=itemgetter(0))
        )
        now_ms = time.time_ns() // 1_000_000
        self._found.add(orphans(self._waits.by_parent(), jobs, now_ms, self._log.passed.begins))

    def _name_both_sides(self, reader: TopicReader, snapshot: Snapshot, stops: dict[int, int]) -> None:
        if not self._differing:
            return
        named = self._differing  # the first ones
        # An event in a wrong lane can only be found by looking into all of them.
        wanted = set(self._only) if self._found.counts[Kind.WRONG_LANE] else {lane_of_job(job) for job in named}
        lanes = sorted(wanted & set(self._only))
        ranges = {lane: Range(self._log.passed.begins[lane], stops[lane]) for lane in lanes}
        total, done = sum(one.length for one in ranges.values()), 0

        def told(count: int) -> None:
            nonlocal done
            done += count
            self._told("naming what differs", done, total)

        records = events_of(reader, named, ranges, told)
        self._found.add(both_sides(snapshot, named, records))
        if more := self._differ - len(named):
            self._found.counts[Kind.JOB] += more

    def _full_lanes(self) -> set[int]:
        """The lanes whose log is there from its beginning."""
        return {lane for lane in self._only if not self._log.passed.begins.get(lane, 0)}

    def _is_looked_at(self, key: bytes) -> bool:
        return self._is_whole or lane_of_job(job_of(key)) in self._only
