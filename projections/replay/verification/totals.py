"""What the tables count, and the workers: few rows, compared at once."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from joblog.projections.projector.controls import ControlRows
from joblog.projections.replay.verification.compare import Ends
from joblog.projections.replay.verification.findings import Finding, Kind, position
from joblog.projections.replay.verification.last_words import Worker, batch_row_words, fits, state_of_batch
from joblog.projections.replay.verification.parent_sums import NO_PARENTS, ParentSums
from joblog.projections.replay.verification.tables import BatchMarks, Snapshot
from joblog.streams.contract.ids import lane_of_job

_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_MEMBERS: Final = (0, 0, 0)

#: Lane, queue, state -> how many jobs are there.
Counts = Mapping[tuple[int, str, str], int]
#: Lane, period, its beginning, state -> how many jobs ended so.
Outcomes = Mapping[tuple[int, str, datetime, str], int]


def kept_counts(snapshot: Snapshot) -> Counts:
    """What the tables count by state."""
    return {(lane, queue, state): n for lane, queue, state, n in snapshot.rows("counts")}


def kept_outcomes(snapshot: Snapshot) -> Outcomes:
    """What the tables count of ends."""
    return {(lane, period, since, state): n for lane, period, since, state, n in snapshot.rows("outcomes")}


def wanted_outcomes(ends: Ends) -> Outcomes:
    """What they must count."""
    wanted: Counter[tuple[int, str, datetime, str]] = Counter()
    for (lane, hour, ended), n in ends.items():
        since = _BEGINNING + timedelta(hours=hour)
        for period, begin in (("ever", _BEGINNING), ("day", since.replace(hour=0)), ("hour", since)):
            wanted[lane, period, begin, str(ended)] += n
    return wanted


def unexpired(outcomes: Outcomes, since: Mapping[tuple[int, str], datetime]) -> Outcomes:
    """Without those that may have expired: of each lane and period, what begins before this instant."""
    if not since:
        return outcomes
    return {key: n for key, n in outcomes.items() if key[2] >= since.get((key[0], key[1]), key[2])}


def counts_differ(log: Counts, tables: Counts, lanes: Collection[int]) -> Iterator[Finding]:
    """The counts of jobs by state that are not what the log says."""
    for lane, queue, state in sorted(log.keys() | tables.keys()):
        wanted, found = log.get((lane, queue, state), 0), tables.get((lane, queue, state), 0)
        if lane in lanes and wanted != found:
            what = f"lane {lane}, queue {queue}: the counter of {state} says {found}, there are {wanted}"
            yield Finding(kind=Kind.COUNTER, lane=lane, job=None, what=what, log=wanted, found=found)


def outcomes_differ(log: Outcomes, tables: Outcomes, lanes: Collection[int]) -> Iterator[Finding]:
    """The counts of ends that are not what the log says."""
    for key in sorted(log.keys() | tables.keys()):
        lane, period, since, state = key
        wanted, found = log.get(key, 0), tables.get(key, 0)
        if lane in lanes and wanted != found:
            what = f"lane {lane}, {period} since {since:%Y-%m-%d %H:%M}: {found} are counted as {state}, not {wanted}"
            yield Finding(kind=Kind.OUTCOME, lane=lane, job=None, what=what, log=wanted, found=found)


#: The tables of what people have told queues and jobs.
_CONTROLS: Final = ("paused_queues", "queue_limits", "bulk")


def controls(snapshot: Snapshot, log: ControlRows) -> Iterator[Finding]:
    """Each paused queue, limit of a queue and bulk operation must be as the events of its lane say."""
    kept = {row.pop("key"): row for name in _CONTROLS for row in snapshot.documents(name)}
    for key in sorted(log.keys() | kept.keys()):
        said, found = log.get(key), kept.get(key)
        if found is not None:
            found = {name: _plain(value) for name, value in found.items()}
        if said != found:
            row = said or found
            assert row is not None
            place = position(row["lane"], row["log_offset"])
            what = f"{key} is not as the log says"
            yield Finding(
                kind=Kind.CONTROL, lane=row["lane"], job=None, what=what, position=place, log=said, found=found
            )


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def workers(snapshot: Snapshot, last: Mapping[str, Mapping[int, Worker]]) -> Iterator[Finding]:
    """Each must be as the last event in one of its lanes says."""
    kept = {row[0]: list(row[1:]) for row in snapshot.rows("workers")}
    for worker in sorted(last.keys() | kept.keys()):
        by_lane = last.get(worker, {})
        said = {lane: one.row for lane, one in by_lane.items()}
        row = kept.get(worker)
        if row is None:
            lane, offset = next((one[0], one[1]) for one in said.values())
            yield _worker(worker, lane, "is in the log, not in the tables", said, None, position(lane, offset))
        elif not by_lane:
            yield _worker(worker, row[0], "is in the tables, not in the log", None, row)
        elif not fits(row, by_lane):
            yield _worker(worker, row[0], "is not as the log says", said, row)


def batches(
    snapshot: Snapshot, last: Mapping[str, list[Any]], members: Mapping[str, tuple[int, int, int]]
) -> Iterator[Finding]:
    """Each must be as its last event says, and have the jobs that were created in it; unless they have expired."""
    are_jobs_expiring = bool(snapshot.expired)
    gone = Counter[tuple[int, str]]()
    kept = {row[0]: batch_row_words(row[1:]) for row in snapshot.rows("batches")}
    for batch in sorted(last.keys() | kept.keys()):
        if batch not in kept and (kind := _expired_as(batch, last[batch], snapshot.expired_batches)) is not None:
            gone[kind] += 1
        elif last.get(batch) != kept.get(batch):
            yield _batch(batch, "is not as its last event says", last.get(batch), kept.get(batch))
    for (lane, state), n in sorted(gone.items()):
        expired = snapshot.expired_batches[lane, state].n
        if n > expired:
            what = f"lane {lane}: {n} {state} batches are gone, and {expired} have expired"
            yield Finding(kind=Kind.EXPIRY, lane=lane, job=None, what=what, log=n, found=expired)
    listed = {batch: tuple(sums) for batch, *sums in snapshot.rows("members")}
    for batch in sorted(members.keys() | listed.keys()):
        wanted, found = members.get(batch, _NO_MEMBERS), listed.get(batch, _NO_MEMBERS)
        may_lack = are_jobs_expiring and all(n <= most for n, most in zip(found, wanted, strict=True))
        if wanted != found and not may_lack:
            yield _batch(batch, "has not the jobs that were created in it", list(wanted), list(found))


def parents(snapshot: Snapshot, wanted: Mapping[int, ParentSums]) -> Iterator[Finding]:
    """The jobs of each lane that wait for several must be known to wait for these; unless they have expired."""
    is_expiring = bool(snapshot.expired)
    listed = {lane: ParentSums(*sums) for lane, *sums in snapshot.rows("parents")}
    for lane in sorted(wanted.keys() | listed.keys()):
        log, found = wanted.get(lane, NO_PARENTS), listed.get(lane, NO_PARENTS)
        if log != found and not (is_expiring and all(n <= most for n, most in zip(found, log, strict=True))):
            what = f"the jobs of lane {lane} that wait for several do not wait for the same ones in the tables"
            yield Finding(kind=Kind.JOB, lane=lane, job=None, what=what, log=list(log), found=list(found))


def _expired_as(batch: str, words: Sequence[Any], marks: BatchMarks) -> tuple[int, str] | None:
    """As which kind a batch may have expired whose last event says this; None if it may not."""
    state, changed_at = state_of_batch(words)
    kind = lane_of_job(batch), state
    mark = marks.get(kind)
    return kind if mark is not None and datetime.fromisoformat(changed_at) <= mark.through else None


def _batch(batch: str, what: str, log: Any, found: Any) -> Finding:
    said = f"batch {batch} {what}"
    return Finding(kind=Kind.BATCH, lane=lane_of_job(batch), job=None, what=said, log=log, found=found)


def _worker(worker: str, lane: int, what: str, log: Any, found: Any, where: str | None = None) -> Finding:
    said = f"worker {worker} {what}"
    return Finding(kind=Kind.WORKER, lane=lane, job=None, what=said, position=where, log=log, found=found)
