"""Whether the tables are what the log says, in the simplest way: folds all events anew in memory, row by row.

An oracle for tests of the projector and of the verification, which does the same in bounded memory.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, Final

import psycopg
from joblog.projections import database
from joblog.projections.projector.decode import JobFact, WorkerFact
from joblog.projections.projector.event_batch import Entries, Entry, Record
from joblog.projections.projector.fold import fold
from joblog.projections.replay.lives import Life, expected_job, lives_by_job, plain
from joblog.projections.replay.verification.last_words import Worker, fits, newer
from joblog.projections.schema.history import HistoryRow, history_row, read
from joblog.projections.statements import parsed
from joblog.streams.contract.record_headers import readable_headers
from joblog.streams.contract.states import State
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.kafka.scan import reading
from psycopg.rows import dict_row, tuple_row

SQL: Final = parsed(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
REPORTED_MAX: Final = 100
_FIRST_BUCKET: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ENDS: Final = ("job.succeeded", "job.failed", "job.deleted")

Events = Mapping[str, Life]


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


def read_log(config: KafkaConfig, names: TopicNames, lanes: int) -> Iterator[Record]:
    """All records of the topic `events`, to where each lane ends now; KafkaException when they do not come."""
    with reading(config, names.events) as reader:
        for messages in reader.read(reader.bounds(list(range(lanes)))):
            for one in messages:
                yield Record(
                    one.partition() or 0, one.offset() or 0, one.timestamp()[1], one.value(), readable_headers(one)
                )


def by_job(records: Iterable[Record]) -> Events:
    """The events of each job's last life in the order of the log, each version once."""
    return {job: lives[-1] for job, lives in lives_by_job(Entries(records)).items()}


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
    last: dict[str, dict[int, Worker]] = defaultdict(dict)
    for record, fact in facts:
        if isinstance(fact, WorkerFact):
            by_lane = last[fact.event.worker]
            by_lane[record.lane] = newer(by_lane.get(record.lane), record, fact)
    kept = {row[0]: row[1:] for row in connection.execute(SQL["workers"])}
    yield from (f"worker {worker}: in the tables, not in the log" for worker in kept.keys() - last.keys())
    for worker, by_lane in last.items():
        row = kept.get(worker)
        if row is None:
            yield f"worker {worker}: in the log, not in the tables"
        elif not fits(row, by_lane):
            said = {lane: one.row for lane, one in by_lane.items()}
            yield f"worker {worker}: is {row!r:.300}, the log says {said!r:.300}"
