"""Continuations that wait in vain: their parent ended long ago and no answer came, or there is no such parent.

While the parent lives, its record in `state` names those that wait for it: one that is not there will get no answer.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import reduce
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

from joblog.projections.projector.fold import job_key
from joblog.projections.replay.sorted_runs import Collected, SortedRuns
from joblog.projections.replay.verification.audit import job_of
from joblog.projections.replay.verification.findings import Finding, Kind, position
from joblog.projections.replay.verification.state_topic import Entry
from joblog.projections.replay.verification.trace import Trace, joined, steps_of
from joblog.streams.contract.relations import PARENT_PARAMETER
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.timestamps import parse_time_ms, time_ms
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.verdicts import verdict
from msgspec import Struct

#: An answer is a record in another lane's `reports`: so long may it take, and no longer if its elector works.
ANSWER_MS: Final = 60_000
PENDING_MS: Final = LaneRules().pending_ms
# What is beside a trace.
_ENTRY, _WAITS = 100, 101


class Wait(Struct, array_like=True, gc=False):
    """A job that waits: for what, since when (unix milliseconds), and where its event lies."""

    child: bytes
    on: ContinueOn
    since_ms: int
    lane: int
    offset: int


class Parent(NamedTuple):
    """What is known of a job for which others wait: its events, and its record in `state`."""

    trace: Trace | None
    entry: Entry | None


def waits_of(trace: Trace) -> Iterator[tuple[bytes, Wait]]:
    """The parents of a job whose last state is Awaiting, but those that it was told of, and its waits."""
    last, told = list(steps_of(trace))[-1], trace.set or {}
    for parent, on in trace.waits.items():
        if PARENT_PARAMETER + parent not in told:
            since_ms = parse_time_ms(trace.changed_at)
            yield job_key(parent), Wait(trace.key, ContinueOn(on), since_ms, last.lane, last.offset)


def with_parents(
    runs: Iterable[SortedRuns[Trace]], entries: SortedRuns[Entry], waits: Collected[Wait]
) -> Iterator[tuple[bytes, Parent, list[Wait]]]:
    """The jobs for which others wait, by id, with those that wait; `runs` are traces, the later ones behind."""
    sources: list[Iterator[tuple[bytes, int, Any]]] = [
        ((key, number, reduce(joined, parts)) for key, parts in one.merged()) for number, one in enumerate(runs)
    ]
    sources.append((key, _ENTRY, parts[-1]) for key, parts in entries.merged())
    sources.append((key, _WAITS, several) for key, several in waits.merged())
    for key, parts in groupby(heapq.merge(*sources, key=itemgetter(0, 1)), key=itemgetter(0)):
        given = {place: value for _, place, value in parts}
        if (several := given.pop(_WAITS, None)) is not None:
            entry = given.pop(_ENTRY, None)
            yield key, Parent(reduce(joined, given.values()) if given else None, entry), several


def orphans(key: bytes, parent: Parent, waits: Iterable[Wait], now_ms: int) -> Iterator[Finding]:
    """Those of the waits for one parent that will not end."""
    for wait in waits:
        why = _why(job_of(key), parent.trace, wait, now_ms)
        if why is not None:
            child = job_of(wait.child)
            where = position(wait.lane, wait.offset)
            what = f"job {child} waits, but {why}"
            yield Finding(kind=Kind.ORPHAN, lane=wait.lane, job=child, what=what, position=where)


def batch_orphans(batch: str, state: str, changed_at: str, waits: Iterable[Wait], now_ms: int) -> Iterator[Finding]:
    """Those of the waits for a batch that is in this state since then, as its last event says, that will not end."""
    changed_ms = time_ms(datetime.fromisoformat(changed_at))
    for wait in waits:
        is_settled = now_ms - max(changed_ms, wait.since_ms) > ANSWER_MS
        if is_settled and verdict(wait.on, State(state)) != "wait":
            child = job_of(wait.child)
            what = f"job {child} waits, but batch {batch} is {state} since {changed_at}, and no answer came"
            where = position(wait.lane, wait.offset)
            yield Finding(kind=Kind.ORPHAN, lane=wait.lane, job=child, what=what, position=where)


def _why(job: str, trace: Trace | None, wait: Wait, now_ms: int) -> str | None:
    """Why a wait is in vain; None while it is not."""
    if trace is None:
        is_old = now_ms - wait.since_ms > PENDING_MS + ANSWER_MS
        return f"its parent {job} is not in the log" if is_old else None
    ended_ms = parse_time_ms(trace.changed_at)
    if now_ms - max(ended_ms, wait.since_ms) <= ANSWER_MS or verdict(wait.on, State(trace.state)) == "wait":
        return None
    return f"its parent {job} is {trace.state} since {trace.changed_at}, and no answer came"


def unlisted(
    key: bytes, parent: Parent, waits: Iterable[Wait], now_ms: int, looked: Mapping[int, int]
) -> Iterator[Finding]:
    """Those of the waits for one parent that its record in `state` does not name; `looked`: see state_check.

    Of a parent that is not in `state`, or moved meanwhile, nothing is said here.
    """
    trace, entry = parent
    if trace is None or entry is None or entry.state is None:
        return
    if any(step.offset >= looked.get(step.lane, 0) for step in steps_of(trace)):
        return
    listed = set(entry.continuations)
    for wait in waits:
        is_settled = now_ms - wait.since_ms > ANSWER_MS
        must_wait = verdict(wait.on, State(trace.state)) == "wait"
        if is_settled and must_wait and (job_of(wait.child), str(wait.on)) not in listed:
            yield _unlisted(job_of(key), wait, entry)


def _unlisted(job: str, wait: Wait, entry: Entry) -> Finding:
    child = job_of(wait.child)
    log = {"continuation": child, "on": str(wait.on), "position": position(wait.lane, wait.offset)}
    what = f"job {job} in state: does not list {child}, which waits for it"
    found = {"continuations": entry.continuations}
    return Finding(kind=Kind.STATE, lane=entry.lane, job=job, what=what, log=log, found=found)
