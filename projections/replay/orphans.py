"""Continuations that wait in vain: their parent ended long ago and no answer came, or there is no such parent."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from joblog.projections.replay.audit import job_of
from joblog.projections.replay.findings import Finding, Kind, position
from joblog.projections.replay.sorted_runs import SortedRuns
from joblog.projections.replay.trace import Trace, steps_of
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.timestamps import parse_time_ms
from joblog.streams.lane.features.verdicts import verdict
from joblog.streams.lane.rules import LaneRules
from msgspec import Struct

IN_MEMORY_MAX: Final = 100_000
#: An answer is a record in another lane's `reports`: so long may it take, and no longer if its elector works.
ANSWER_MS: Final = 60_000
PENDING_MS: Final = LaneRules().pending_ms


class Wait(Struct, array_like=True, gc=False):
    """A job that waits: for what, since when (unix milliseconds), and where its event lies."""

    child: bytes
    on: ContinueOn
    since_ms: int
    lane: int
    offset: int


class Waits:
    """The jobs that wait, by their parents; many are in files."""

    def __init__(self, runs: SortedRuns[list[Wait]]) -> None:
        self._runs = runs
        self._waits: dict[bytes, list[Wait]] = defaultdict(list)
        self.count = 0

    def add(self, trace: Trace) -> None:
        """Note a job whose last state is Awaiting."""
        if trace.parent is None or trace.on is None:
            return
        last = list(steps_of(trace))[-1]
        since = parse_time_ms(trace.changed_at)
        wait = Wait(trace.key, ContinueOn(trace.on), since, last.lane, last.offset)
        self._waits[bytes.fromhex(trace.parent.replace("-", ""))].append(wait)
        self.count += 1
        if self.count % IN_MEMORY_MAX == 0:
            self.write()

    def write(self) -> None:
        """Write what is in memory as a run."""
        if self._waits:
            self._runs.write(self._waits.items())
            self._waits.clear()

    def by_parent(self) -> Iterator[tuple[bytes, list[Wait]]]:
        """All that wait, by parent, in the order of the parents' ids."""
        self.write()
        return ((parent, [one for run in runs for one in run]) for parent, runs in self._runs.merged())


def orphans(
    waits: Iterable[tuple[bytes, list[Wait]]],
    jobs: Iterator[tuple[bytes, Trace]],
    now_ms: int,
    begins: Mapping[int, int],
) -> Iterator[Finding]:
    """The waits that will not end; both sorted by id. Lanes whose log lacks its beginning may lack parents."""
    key, trace = next(jobs, (b"\xff" * 16, None))
    for parent, children in waits:
        while key < parent:
            key, trace = next(jobs, (b"\xff" * 17, None))
        found = trace if key == parent else None
        if found is None and begins.get(lane_of_job(job_of(parent)), 0):
            continue
        for child in children:
            why = _why(parent, found, child, now_ms)
            if why is not None:
                yield Finding(
                    kind=Kind.ORPHAN,
                    lane=child.lane,
                    job=job_of(child.child),
                    what=f"job {job_of(child.child)} waits, but {why}",
                    position=position(child.lane, child.offset),
                )


def _why(parent: bytes, trace: Trace | None, wait: Wait, now_ms: int) -> str | None:
    """Why a wait is in vain; None while it is not."""
    job = job_of(parent)
    if trace is None:
        is_old = now_ms - wait.since_ms > PENDING_MS + ANSWER_MS
        return f"its parent {job} is not in the log" if is_old else None
    ended_ms = parse_time_ms(trace.changed_at)
    if now_ms - max(ended_ms, wait.since_ms) <= ANSWER_MS or verdict(wait.on, State(trace.state)) == "wait":
        return None
    return f"its parent {job} is {trace.state} since {trace.changed_at}, and no answer came"
