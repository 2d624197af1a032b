"""Whether the log, Postgres, and what electors keep say the same, while the system runs, in bounded memory.

1. pass over the log up to where the tables are now: a trace of each job goes into sorted files 2. open a snapshot of
the tables, and read the log on up to the offsets that it stores itself 3. read `state` and the dead letters, and the
log a little further: a job without an event meanwhile must be in `state` as in the log 4. look at all jobs of the
log (jobs.py), with their records of `state`, and add up what the tables must hold, while Postgres adds up what they
hold 5. look for parents of the jobs that wait 6. where the sums of a lane differ, compare its jobs one by one, and
read the log again for those that differ, to name both sides 7. compare what is counted, and what is of no job.

Steps 1 and 2 can be stopped, and resumed from the files.
"""

import heapq
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from joblog.projections.projector.event_batch import Record
from joblog.projections.replay.sorted_runs import Collected, SortedRuns
from joblog.projections.replay.verification.aside import aside_findings
from joblog.projections.replay.verification.audit import job_of
from joblog.projections.replay.verification.dead_letters import DeadLetters, Letter, letter_findings
from joblog.projections.replay.verification.expiry import Expired, overdue_findings
from joblog.projections.replay.verification.findings import Kind
from joblog.projections.replay.verification.job_by_job import JobByJob, unexplained
from joblog.projections.replay.verification.jobs import NAMED_MAX, Jobs
from joblog.projections.replay.verification.lane_hashes import LaneHashes, Side, lane_hashes
from joblog.projections.replay.verification.lane_sums import Sums, differing_lanes
from joblog.projections.replay.verification.last_words import state_of_batch
from joblog.projections.replay.verification.log_pass import LogPass
from joblog.projections.replay.verification.orphans import batch_orphans, orphans, unlisted, with_parents
from joblog.projections.replay.verification.report import Found, Report
from joblog.projections.replay.verification.sides import both_sides, events_of, named_sides, specs
from joblog.projections.replay.verification.state_check import spec_finding
from joblog.projections.replay.verification.state_topic import StateRecords
from joblog.projections.replay.verification.tables import Snapshot, positions
from joblog.projections.replay.verification.totals import (
    Counts,
    batches,
    controls,
    counts_differ,
    kept_counts,
    kept_outcomes,
    outcomes_differ,
    parents,
    unexpired,
    wanted_outcomes,
    workers,
)
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import LogLost, ProjectionError
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.scan import Range, Ranges, TopicReader, reading
from joblog.streams.progress import Stopped, Told, silent

#: A transaction ends in its partitions one after the other: so long may it be seen in one and not in another.
SETTLE_S: Final = 0.3
#: Of the jobs that came back after their rows had expired, the events of so many are in memory at once.
RETURNED_MAX: Final = 2_000


class Verification:
    """One verification; its files are in `directory`, from which it goes on if another one stopped there.

    - dsn: None to leave Postgres out. only: the lanes to look at; all, if None.
    - with_state: look at `state` and the dead letters, too.
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
        self._state = StateRecords(directory)
        letters = Collected(SortedRuns(directory, "letters", list[Letter]))
        self._letters = DeadLetters(letters, names.commands, self._only)
        self._found = Found()
        self._looked: dict[int, int] = {}
        self._expired = Expired({})

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
                self._read_beside(reader)
            jobs, tables = self._look_at_jobs(snapshot)
            self._find_orphans(jobs)
            if self._with_state:
                self._find_letters()
                self._compare_specs(reader, jobs)
            hashes: list[LaneHashes] = []
            if snapshot is not None:
                tables.add(jobs.table_sums)
                self._compare_expired(reader, snapshot, jobs, stops)
                row_counts = self._compare_jobs(reader, snapshot, differing_lanes(jobs.sums, tables), stops)
                hashes = self._compare_totals(snapshot, jobs, tables, row_counts)
                self._compare_asides(snapshot, jobs)
            passed = self._log.passed
            self._found.add((*passed.findings, *self._tail.passed.findings))
        late = [lane for lane in self._only if lane not in self._full_lanes()]
        counts, seconds = dict(self._found.sorted_counts()), time.monotonic() - began
        return Report(self._found.kept, counts, passed.events, jobs.count, stops, late, hashes, seconds)

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

    def _read_beside(self, reader: TopicReader) -> None:
        """What electors keep beside the events, between two looks at these."""
        self._looked = {lane: one.stop for lane, one in reader.bounds(self._only).items()}
        time.sleep(SETTLE_S)
        with reading(self._config, self._names.state) as state:
            state.check_partitions(self._lanes)
            ranges = state.bounds(self._only)
            self._count("reading state", ranges, self._state.read(state, ranges))
            self._found.add(self._state.unreadable)
        with reading(self._config, self._names.deadletters) as letters:
            ranges = letters.bounds(letters.partitions())
            self._count("reading dead letters", ranges, self._letters.read(letters, ranges))
        time.sleep(SETTLE_S)
        ends = {lane: one.stop for lane, one in reader.bounds(self._only).items()}
        self._tail.passed.begins = dict(self._log.passed.next)
        self._tail.passed.next = dict(self._log.passed.next)
        self._pass("reading on", reader, self._tail, ends, set())

    def _count(self, step: str, ranges: Ranges, counts: Iterator[int]) -> None:
        total, done = sum(one.length for one in ranges.values()), 0
        for count in counts:
            done += count
            self._told(step, done, total)

    def _look_at_jobs(self, snapshot: Snapshot | None) -> tuple[Jobs, Sums]:
        """All jobs of the log, while Postgres adds up what it has."""
        self._expired = Expired(snapshot.expired if snapshot is not None else {})
        jobs = Jobs(self._directory, self._log, self._tail, self._only, self._found, self._expired)
        state = self._state if self._with_state else None
        with ThreadPoolExecutor(1) as beside:
            adding = beside.submit(snapshot.sums if snapshot is not None else Sums)
            try:
                jobs.run(snapshot, state, self._looked, self._told)
            except BaseException:  # whoever stops this does not wait for Postgres
                if snapshot is not None:
                    snapshot.cancel()
                raise
            return jobs, adding.result()

    def _find_orphans(self, jobs: Jobs) -> None:
        if jobs.waits.is_empty:
            return
        now_ms = time.time_ns() // 1_000_000
        for key, parent, waits in with_parents((self._log.runs, self._tail.runs), self._state.jobs, jobs.waits):
            lane, batch = lane_of_job(job_of(key)), self._last_words_of_batch(job_of(key))
            if batch is not None:
                self._found.add(batch_orphans(job_of(key), *state_of_batch(batch), waits, now_ms))
                continue
            # Of a parent in a lane that is not looked at, or whose first events are gone, nothing is known.
            if lane in self._only and (parent.trace is not None or not self._log.passed.begins.get(lane, 0)):
                self._found.add(orphans(key, parent, waits, now_ms))
                listed_by_itself = waits if key not in self._state.crowded else ()
                self._found.add(unlisted(key, parent, listed_by_itself, now_ms, self._looked))

    def _last_words_of_batch(self, batch: str) -> list[Any] | None:
        """The last event of a batch, if there is one of this id."""
        return self._tail.passed.batches.get(batch) or self._log.passed.batches.get(batch)

    def _find_letters(self) -> None:
        """Dead letters beside the events that reject their commands."""
        sources = [one.merged() for one in (self._log.rejections, self._tail.rejections, self._letters.letters)]
        merged = groupby(heapq.merge(*sources, key=itemgetter(0)), key=itemgetter(0))
        both = ((key, [one for _, several in parts for one in several]) for key, parts in merged)
        self._found.add(letter_findings(both, self._looked, self._log.passed.begins, self._letters.since_ms))

    def _compare_specs(self, reader: TopicReader, jobs: Jobs) -> None:
        """Of jobs whose spec in `state` is written otherwise: whether it means something else."""
        if not jobs.unsure:
            return
        stops = {**self._log.passed.next, **self._tail.passed.next}
        records = self._events_of(reader, [one.job for one in jobs.unsure], stops)
        found = specs(records)
        differing = (spec_finding(one, found[one.job]) for one in jobs.unsure if one.job in found)
        self._found.add(one for one in differing if one is not None)
        self._found.count(Kind.STATE, jobs.unsure_more)

    def _compare_totals(self, snapshot: Snapshot, jobs: Jobs, sums: Sums, row_counts: Counts) -> list[LaneHashes]:
        full = self._full_lanes()
        late = set(self._only) - full
        counts, outcomes = kept_counts(snapshot), unexpired(kept_outcomes(snapshot), snapshot.outcomes_from)
        wanted = unexpired(wanted_outcomes(jobs.ends), snapshot.outcomes_from)
        self._found.add(counts_differ(jobs.counts, counts, full))
        self._found.add(counts_differ(row_counts, counts, late))
        self._found.add(outcomes_differ(wanted, outcomes, full))
        if self._is_whole and not late:
            self._found.add(workers(snapshot, self._log.passed.workers))
            self._found.add(batches(snapshot, self._log.passed.batches, self._log.passed.members))
            self._found.add(parents(snapshot, self._log.passed.parents))
            self._found.add(controls(snapshot, self._log.passed.controls))
        log, tables = Side(jobs.sums, jobs.counts, wanted), Side(sums, counts, outcomes)
        return lane_hashes(full, log, tables)

    def _compare_expired(self, reader: TopicReader, snapshot: Snapshot, jobs: Jobs, stops: Mapping[int, int]) -> None:
        """The jobs whose rows may be gone, or came back after they had gone."""
        self._found.add(self._expired.findings())
        self._found.add(overdue_findings(snapshot.overdue()))
        if named := jobs.differing[:NAMED_MAX]:
            self._found.add(named_sides(snapshot, named, self._events_of(reader, named, stops)))
            self._found.count(Kind.JOB, len(jobs.differing) - len(named))
        returned = sorted(jobs.returned)
        for first in range(0, len(returned), RETURNED_MAX):
            part = returned[first : first + RETURNED_MAX]
            self._found.add(both_sides(snapshot, part, self._events_of(reader, part, stops), jobs.returned))

    def _compare_asides(self, snapshot: Snapshot, jobs: Jobs) -> None:
        log = heapq.merge(self._log.asides.merged(), jobs.gaps.merged(), key=itemgetter(0))
        rows = snapshot.asides(None if self._is_whole else self._only)
        self._found.add(aside_findings(log, rows, self._log.passed.begins))

    def _compare_jobs(
        self, reader: TopicReader, snapshot: Snapshot, differing: set[int], stops: Mapping[int, int]
    ) -> Counts:
        """Where hashes differ, or cannot tell since the log lacks its beginning: job by job, both sides are named.

        Returns how many rows there are in these lanes, by queue and state.
        """
        looked_at = differing if self._is_whole else differing & set(self._only)
        late = set(self._only) - self._full_lanes()
        if not (lanes := looked_at | late):
            return {}
        if self._found.counts[Kind.WRONG_LANE]:  # its row is counted to one lane, and its history to another
            lanes |= set(self._only)
        one_by_one = JobByJob(self._log, lanes, self._expired)
        one_by_one.run(snapshot, self._told)
        if named := one_by_one.differing:
            self._found.add(named_sides(snapshot, named, self._events_of(reader, named, stops)))
            self._found.count(Kind.JOB, one_by_one.count.total() - len(named))
        self._found.add(unexplained(lane) for lane in sorted(looked_at - late) if not one_by_one.count[lane])
        return one_by_one.row_counts

    def _events_of(self, reader: TopicReader, named: Sequence[str], stops: Mapping[int, int]) -> Iterator[Record]:
        """The records of these jobs, up to these offsets."""
        # An event in a wrong lane can only be found by looking into all of them.
        wanted = set(self._only) if self._found.counts[Kind.WRONG_LANE] else {lane_of_job(job) for job in named}
        lanes = sorted(wanted & set(self._only))
        ranges = {lane: Range(self._log.passed.begins[lane], stops[lane]) for lane in lanes}
        total, done = sum(one.length for one in ranges.values()), 0

        def told(count: int) -> None:
            nonlocal done
            done += count
            self._told("naming what differs", done, total)

        return events_of(reader, named, ranges, told)

    def _full_lanes(self) -> set[int]:
        """The lanes whose log is there from its beginning."""
        return {lane for lane in self._only if not self._log.passed.begins.get(lane, 0)}
