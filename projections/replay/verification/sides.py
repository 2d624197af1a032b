"""Jobs that differ, in full: what the log says and what the tables say, column by column and event by event."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from joblog.projections.projector.decode import JobFact
from joblog.projections.projector.event_batch import Entries, Record
from joblog.projections.projector.fold import fold
from joblog.projections.replay.lives import Life, expected_job, lives_by_job, plain
from joblog.projections.replay.verification.findings import Finding, Kind
from joblog.projections.replay.verification.tables import Marks, Snapshot
from joblog.projections.schema.history import HistoryRow, history_row, read, shown
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.record_headers import readable_headers
from joblog.streams.kafka.scan import Ranges, TopicReader
from msgspec import DecodeError

#: Events of a job, each with the version that its place in the table says; as it is there, if it cannot be read.
Listed = list[tuple[int, HistoryRow | str | None]]
_SUBJECT: Final = b'"subject":"'
_ID_LENGTH: Final = 36


def events_of(
    reader: TopicReader, jobs: Collection[str], ranges: Ranges, told: Callable[[int], None] = lambda _count: None
) -> Iterator[Record]:
    """The records of the log about these jobs."""
    keys = {job.encode() for job in jobs}
    for messages in reader.read(ranges):
        for message in messages:
            if (message.key() or b"") in keys or _subject(message.value() or b"") in keys:
                lane, offset = message.partition(), message.offset()
                assert lane is not None
                assert offset is not None
                yield Record(lane, offset, message.timestamp()[1], message.value(), readable_headers(message))
        told(len(messages))


def _subject(value: bytes) -> bytes:
    place = value.find(_SUBJECT) + len(_SUBJECT)
    return value[place : place + _ID_LENGTH]


def specs(records: Iterator[Record]) -> dict[str, bytes]:
    """The JobSpecs with which the last lives of these records' jobs began, as JSON."""
    found: dict[str, bytes] = {}
    for _record, fact in Entries(records):
        if isinstance(fact, JobFact) and fact.created_with is not None:
            found[fact.job] = bytes(fact.event.spec)
    return found


def named_sides(snapshot: Snapshot, jobs: Collection[str], records: Iterator[Record]) -> Iterator[Finding]:
    """As `both_sides`, of jobs whose digests differ: if nobody sees in what, that is said."""
    unseen = set(jobs)
    for one in both_sides(snapshot, jobs, records):
        unseen.discard(one.job or "")
        yield one
    for job in sorted(unseen):
        what = "its row or its history is written otherwise than the log says"
        yield _finding(Kind.JOB, job, lane_of_job(job), what, None, None)


def both_sides(
    snapshot: Snapshot,
    jobs: Collection[str],
    records: Iterator[Record],
    since: Mapping[str, int] = MappingProxyType({}),
) -> Iterator[Finding]:
    """Where the rows and the history of these jobs are not what the records say.

    `since`: of jobs that came back after their rows had expired, from which version on the tables know them.
    """
    names = list(jobs)
    entries = Entries(record for record in records if (record.lane, record.offset) not in snapshot.refused)
    lives = lives_by_job(entries)
    rows = {row["id"]: row for row in snapshot.documents("named_jobs", jobs=names)}
    history: dict[str, Listed] = defaultdict(list)
    for job, version, event in snapshot.rows("named_history", jobs=names):
        history[job].append((version, _read(event)))
    for job in sorted(names):
        life = lives[job][-1] if job in lives else ()
        if (first := since.get(job)) is not None:
            yield from _of_return(job, life, first, snapshot.expired)
            life = [one for one in life if one[1].event.version >= first]
        yield from _of_row(job, life, rows.get(job))
        yield from _of_history(job, life, history.get(job, []))


def _of_row(job: str, life: Life, row: dict[str, Any] | None) -> Iterator[Finding]:
    if not life:
        if row is not None:
            yield _finding(Kind.JOB, job, row["lane"], "in the tables, not in the log", None, _brief(row))
        return
    lane = life[0][0].lane
    folded = fold([(record.offset, fact) for record, fact in life], lane)
    wanted = expected_job(folded) | {"state_version": folded.current.version if folded.current else None}
    if row is None:
        yield _finding(Kind.JOB, job, lane, "in the log, not in the tables", _brief(wanted), None)
        return
    event = _read(row["event"])
    row["reason"] = event.reason if isinstance(event, HistoryRow) else None
    differing = [name for name, value in wanted.items() if row[name] != value and plain(row[name]) != plain(value)]
    if differing:
        log = {name: wanted[name] for name in differing}
        found = {name: row[name] for name in differing}
        yield _finding(Kind.JOB, job, lane, f"{', '.join(differing)} differ from the log", log, found)


def _of_return(job: str, life: Life, first: int, marks: Marks) -> Iterator[Finding]:
    """Whether the row of a job can have expired before its event of this version.

    If nothing of it can be read before that, it did not expire, but the tables could not know that.
    """
    former = [(record, fact) for record, fact in life if fact.event.version < first]
    if former:
        row = fold([(record.offset, fact) for record, fact in former], former[0][0].lane)
        latest = row.latest
        mark = marks.get((row.lane, latest.queue, latest.task, str(latest.state)))
        if mark is not None and datetime.fromisoformat(row.changed_at) <= mark.through:
            return
    elif life and life[0][1].event.version == first > 1:
        return
    what = f"came back with version {first}, and its row cannot have expired before"
    yield _finding(Kind.EXPIRY, job, life[0][0].lane if life else lane_of_job(job), what, None, {"version": first})


def _brief(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("state", "version", "attempt", "queue", "task", "log_offset")}


def _of_history(job: str, life: Life, kept: Listed) -> Iterator[Finding]:
    wanted = {
        fact.event.version: history_row(record.lane, record.offset, fact.at, fact.type, fact.event)
        for record, fact in life
    }
    there: dict[int, list[HistoryRow | str | None]] = defaultdict(list)
    for version, row in kept:
        there[version].append(row)
    differing = [version for version in wanted.keys() | there.keys() if there.get(version) != _only(wanted, version)]
    if differing:
        versions = sorted(differing)
        log = [shown(wanted[version]) for version in versions if version in wanted]
        listed = [row for version in versions for row in there.get(version, ())]
        found = [shown(row) if isinstance(row, HistoryRow) else row for row in listed]
        lane = life[0][0].lane if life else lane_of_job(job)
        what = f"its history differs from the log in the versions {versions}"
        yield _finding(Kind.HISTORY, job, lane, what, log, found)


def _read(event: str | None) -> HistoryRow | str | None:
    """An event of the history; as it is there, if it cannot be read."""
    try:
        return None if event is None else read(event)
    except DecodeError:
        return event


def _only(wanted: Mapping[int, HistoryRow], version: int) -> list[HistoryRow] | None:
    return [wanted[version]] if version in wanted else None


def _finding(kind: Kind, job: str, lane: int, what: str, log: Any, found: Any) -> Finding:
    return Finding(kind=kind, lane=lane, job=job, what=f"job {job}: {what}", log=log, found=found)
