"""What the tables count, and the workers: few rows, compared at once."""

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from joblog.projections.replay.compare import Ends
from joblog.projections.replay.findings import Finding, Kind, position
from joblog.projections.replay.tables import Snapshot

_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


def counters(snapshot: Snapshot, lanes: Collection[int]) -> Iterator[Finding]:
    """The counts of jobs by state that are not the number of the rows, which are compared with the log."""
    for lane, queue, state, counted, there in snapshot.rows("recount"):
        if lane in lanes:
            what = f"lane {lane}, queue {queue}: the counter of {state} says {counted}, there are {there}"
            yield Finding(kind=Kind.COUNTER, lane=lane, job=None, what=what, log=there, found=counted)


def outcomes(snapshot: Snapshot, ends: Ends, lanes: Collection[int]) -> Iterator[Finding]:
    """The counts of ends that are not what the log says."""
    wanted: dict[tuple[int, str, datetime, str], int] = {}
    for (lane, hour, ended), n in ends.items():
        since = _BEGINNING + timedelta(hours=hour)
        for period, begin in (("ever", _BEGINNING), ("day", since.replace(hour=0)), ("hour", since)):
            key = lane, period, begin, str(ended)
            wanted[key] = wanted.get(key, 0) + n
    kept = {(lane, period, since, state): n for lane, period, since, state, n in snapshot.rows("outcomes")}
    for key in sorted(wanted.keys() | kept.keys()):
        lane, period, since, state = key
        log, found = wanted.get(key, 0), kept.get(key, 0)
        if lane in lanes and log != found:
            what = f"lane {lane}, {period} since {since:%Y-%m-%d %H:%M}: {found} are counted as {state}, not {log}"
            yield Finding(kind=Kind.OUTCOME, lane=lane, job=None, what=what, log=log, found=found)


def workers(snapshot: Snapshot, last: Mapping[str, Mapping[int, list[Any]]]) -> Iterator[Finding]:
    """Each must be as the last event in its lane says, and no other lane may have a later one by its time."""
    kept = {row[0]: list(row[1:]) for row in snapshot.rows("workers")}
    for worker in sorted(last.keys() | kept.keys()):
        by_lane = {lane: _read(said) for lane, said in last.get(worker, {}).items()}
        row = kept.get(worker)
        if row is None:
            lane, offset = next((said[0], said[1]) for said in by_lane.values())
            yield _worker(worker, lane, "is in the log, not in the tables", by_lane, None, position(lane, offset))
        elif not by_lane:
            yield _worker(worker, row[0], "is in the tables, not in the log", None, row)
        elif row != by_lane.get(row[0]) or row[-1] < max(said[-1] for said in by_lane.values()):
            yield _worker(worker, row[0], "is not as the log says", by_lane, row)


def _read(said: list[Any]) -> list[Any]:
    """A worker's columns, its times read: they are text in a checkpoint."""
    *shown, started, at = said
    return [*shown, _instant(started), _instant(at)]


def _instant(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def _worker(worker: str, lane: int, what: str, log: Any, found: Any, where: str | None = None) -> Finding:
    said = f"worker {worker} {what}"
    return Finding(kind=Kind.WORKER, lane=lane, job=None, what=said, position=where, log=log, found=found)
