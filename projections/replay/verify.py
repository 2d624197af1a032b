"""Whether the tables are what the log says: folds all events anew and compares, row by row."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final

import psycopg
from joblog.projections import database
from joblog.projections.projector.decode import JobFact, WorkerFact
from joblog.projections.projector.event_batch import Entries, Entry, Record
from joblog.projections.projector.fold import JobRow, begins, fold
from joblog.projections.projector.log import EventLog
from joblog.projections.schema.history import HistoryRow, history_row, read
from joblog.projections.statements import load
from joblog.streams.contract.states import State
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import ProjectionError
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from msgspec import json
from psycopg.rows import dict_row, tuple_row

SQL: Final = load("replay/verify.sql")
REPORTED_MAX: Final = 100
_FIRST_BUCKET: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: The greatest integer up to which every one has a float of its own.
_EXACT_MAX: Final = 2**53
_ENDS: Final = ("job.succeeded", "job.failed", "job.deleted")

Life = Sequence[tuple[Record, JobFact]]
Events = Mapping[str, Life]
Values = Mapping[str, Any]


def differences(dsn: str, schema: str, records: Iterable[Record]) -> list[str]:
    """Where the tables differ from a fold of these records, the whole log, in words; the first hundred places."""
    with database.connect(dsn, schema, "joblog-verify") as connection:
        connection.execute("SELECT set_config('statement_timeout', '0', false)")
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            refused = set(connection.execute(SQL["refused"]).fetchall())
            facts = list(Entries(record for record in records if (record.lane, record.offset) not in refused))
            lives = lives_by_job(facts)
            events = {job: several[-1] for job, several in lives.items()}
            found = [
                *_of_jobs(connection, events),
                *_of_history(connection, events),
                *_of_counts(connection),
                *_of_outcomes(connection, lives),
                *_of_workers(connection, facts),
            ]
    more = len(found) - REPORTED_MAX
    return found[:REPORTED_MAX] + ([f"and {more} more"] if more > 0 else [])


def read_log(config: KafkaConfig, names: TopicNames, lanes: int, *, timeout_s: float = 300) -> Iterator[Record]:
    """All records of the topic `events`, to the end that each lane has now; ProjectionError when it takes longer."""
    deadline = datetime.now(UTC).timestamp() + timeout_s
    events = EventLog(config, names.events, lanes, dict.fromkeys(range(lanes), 0), Meters())
    try:
        while not events.ended:
            yield from events.read(10_000, 0.5)
            if datetime.now(UTC).timestamp() > deadline:
                raise ProjectionError(f"the log could not be read to its end in {timeout_s:.0f} s")
    finally:
        events.close()


def by_job(records: Iterable[Record]) -> Events:
    """The events of each job's last life in the order of the log, each version once."""
    return {job: lives[-1] for job, lives in lives_by_job(Entries(records)).items()}


def lives_by_job(facts: Iterable[Entry]) -> Mapping[str, Sequence[Life]]:
    """The events of all lives of each job."""
    jobs: dict[str, list[dict[int, tuple[Record, JobFact]]]] = defaultdict(list)
    for record, fact in facts:
        if isinstance(fact, JobFact):
            lives = jobs[fact.job]
            if begins(fact) or not lives:
                lives.append({})
            lives[-1].setdefault(fact.event.version, (record, fact))
    return {job: [list(versions.values()) for versions in lives] for job, lives in jobs.items()}


def expected_job(row: JobRow) -> dict[str, Any]:
    """A fold as the statement `jobs` would give it."""
    latest, current, created, exception = row.latest, row.current, row.created_with, row.exception
    first = json.decode(created.parameters) if created else {}
    return {
        "id": row.id,
        "lane": row.lane,
        "state": latest.state,
        "version": latest.version,
        "attempt": latest.attempt,
        "retry": row.retry or 0,
        "priority": created.priority if created else 0,
        "queue": latest.queue,
        "task": latest.task,
        "created_at": datetime.fromisoformat(row.created_at),
        "changed_at": datetime.fromisoformat(row.changed_at),
        "due": datetime.fromisoformat(row.due) if row.due else None,
        "worker": current.worker if current else None,
        "lease": current.lease if current else None,
        "parent": row.parent,
        "continue_on": row.on,
        "exception_type": exception.type if exception else None,
        "exception_message": exception.message if exception else None,
        "spec": json.decode(row.spec) if row.spec is not None else None,
        "parameters": first | {name: json.decode(value) for name, value in (row.parameters or {}).items()},
        "log_offset": row.offset,
        "reason": current.reason if current else None,
    }


def plain(value: Any) -> Any:
    """A JSON value with great integers as floats: jsonb writes 1e300 as 301 digits."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return float(value) if isinstance(value, int) and abs(value) > _EXACT_MAX else value


def _of_jobs(connection: psycopg.Connection[Any], events: Events) -> Iterator[str]:
    seen = set()
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(SQL["jobs"]):
            seen.add(row["id"])
            row["reason"] = read(row["event"]).reason if row["event"] else None
            if row["id"] not in events:
                yield f"job {row['id']}: in the tables, not in the log"
                continue
            facts = [(record.offset, fact) for record, fact in events[row["id"]]]
            wanted = expected_job(fold(facts, events[row["id"]][0][0].lane))
            for name, value in wanted.items():
                if row[name] != value and plain(row[name]) != plain(value):
                    yield f"job {row['id']}: {name} is {row[name]!r:.200}, the log says {value!r:.200}"
    yield from (f"job {job}: in the log, not in the tables" for job in events.keys() - seen)


def _of_history(connection: psycopg.Connection[Any], events: Events) -> Iterator[str]:
    stored: dict[str, list[HistoryRow]] = defaultdict(list)
    with connection.cursor(row_factory=tuple_row) as cursor:
        for job, version, event in cursor.execute(SQL["history"]):
            row = read(event)
            if row.version != version:
                yield f"job {job}: its history has version {row.version} in the place of version {version}"
            stored[job].append(row)
    for job in events.keys() | stored.keys():
        wanted = sorted(_history(record, fact) for record, fact in events.get(job, ()))
        if stored.get(job, []) != wanted:
            versions = [row.version for row in stored.get(job, [])]
            yield f"job {job}: its history has the versions {versions}, the log {[row.version for row in wanted]}" + (
                "" if versions != [row.version for row in wanted] else ", with other contents"
            )


def _history(record: Record, fact: JobFact) -> HistoryRow:
    return history_row(record.lane, record.offset, fact.at, fact.type, fact.event)


def _of_counts(connection: psycopg.Connection[Any]) -> Iterator[str]:
    for lane, queue, state, counted, there in connection.execute(SQL["recount"]):
        yield f"lane {lane}, queue {queue}: the counter of {state} says {counted}, there are {there}"


def _of_outcomes(connection: psycopg.Connection[Any], lives: Mapping[str, Sequence[Life]]) -> Iterator[str]:
    wanted: Counter[tuple[int, str, datetime, State]] = Counter()
    for several in lives.values():
        for record, fact in chain.from_iterable(several):
            if fact.type in _ENDS and not fact.event.traversed:
                hour = datetime.fromisoformat(fact.at).replace(minute=0, second=0, microsecond=0)
                for period, since in (("ever", _FIRST_BUCKET), ("day", hour.replace(hour=0)), ("hour", hour)):
                    wanted[record.lane, period, since, fact.event.state] += 1
    kept = {tuple(row[:4]): row[4] for row in connection.execute(SQL["outcomes"])}
    for key in wanted.keys() | kept.keys():
        if kept.get(key, 0) != wanted.get(key, 0):
            lane, period, since, state = key
            place = f"lane {lane}, {period} since {since:%Y-%m-%d %H:%M}"
            yield f"{place}: {kept.get(key, 0)} are counted as {state}, the log says {wanted.get(key, 0)}"


def _of_workers(connection: psycopg.Connection[Any], facts: Iterable[Entry]) -> Iterator[str]:
    """Each must be as the last event in its lane says, and no other lane may end later than all of its events.

    The events of a lane count in their order, also if the time of one lies behind that of the one before.
    """
    last: dict[str, dict[int, tuple[Any, ...]]] = defaultdict(dict)
    latest: dict[tuple[str, int], datetime] = {}
    for record, fact in facts:
        if isinstance(fact, WorkerFact):
            worker = fact.event.worker
            last[worker][record.lane] = said = _worker(record, fact)
            latest[worker, record.lane] = max(said[-1], latest.get((worker, record.lane), said[-1]))
    kept = {row[0]: tuple(row[1:]) for row in connection.execute(SQL["workers"])}
    yield from (f"worker {worker}: in the tables, not in the log" for worker in kept.keys() - last.keys())
    for worker, by_lane in last.items():
        row = kept.get(worker)
        if row is None:
            yield f"worker {worker}: in the log, not in the tables"
        elif row != by_lane.get(row[0]) or latest[worker, row[0]] < max(each[-1] for each in by_lane.values()):
            yield f"worker {worker}: is {row!r:.300}, the log says {by_lane!r:.300}"


def _worker(record: Record, fact: WorkerFact) -> tuple[Any, ...]:
    event = fact.event
    shown = (list(event.queues), list(event.tasks), event.slots, event.host, event.pid, event.started_at)
    return (record.lane, record.offset, fact.state, *shown, datetime.fromisoformat(fact.at))
