"""The questions that the dashboard, the API and the command line ask of the projection."""

import re
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, Unpack

from joblog.projections.monitor.bulk import BulkQuestions
from joblog.projections.monitor.job_filter import Chosen, JobFilter, Order
from joblog.projections.monitor.limits import LOOKED_AT_MAX, StoredFacts, limit_uses, why
from joblog.projections.monitor.models import (
    Batch,
    Bucket,
    HistoryEntry,
    Job,
    JobDetails,
    LaneOffset,
    LanePause,
    LimitUse,
    LiveJobs,
    LogLine,
    Page,
    ParkedCode,
    ParkedRecord,
    Queue,
    RecurringRun,
    Rejected,
    RunCounts,
    Statistics,
    Worker,
)
from joblog.projections.monitor.paging import decode_cursor, encode_cursor
from joblog.projections.monitor.reads import CONNECTIONS_MAX, Ask, Reads
from joblog.projections.monitor.rows import details, job, log_lines, queue, recurring_run, with_durations
from joblog.projections.questions import InvalidQuestion, checked_limit
from joblog.projections.schema.history import read, shown
from joblog.projections.statements import load
from joblog.streams.contract.fields import is_queue, match_job_id, wrong_queue
from joblog.streams.contract.recurring import RECURRING_PATTERN
from joblog.streams.contract.states import State
from joblog.streams.contract.timestamps import format_time, time_ms

SQL: Final = load("monitor/monitor.sql")
LIMIT: Final = 50
HISTORY_MAX: Final = 1_000
CONTINUATIONS_MAX: Final = 500
REJECTED_MAX: Final = 50
#: So many of a recurring job's jobs are counted at most: one every second has 86,400 each day.
RUNS_COUNTED_MAX: Final = 10_000
#: Arguments and results longer than this are left out of lists, bytes of JSON.
LISTED_BYTES_MAX: Final = 8_192
#: `wait_for` looks this often: at first, and when it has taken long.
POLL_FIRST_S: Final = 0.02
POLL_MAX_S: Final = 0.5

_ORDERS: Final[Mapping[Order, tuple[str, str]]] = {
    Order.NEWEST: ("jobs_newest", "changed_at"),
    Order.OLDEST: ("jobs_oldest", "changed_at"),
    Order.CREATED: ("jobs_created", "created_at"),
    Order.DUE: ("jobs_due", "due"),
}
_is_recurring_id: Final = re.compile(RECURRING_PATTERN).fullmatch


class Monitor:
    """Read-only, safe to use from many threads; connects with the first question.

    Raises InvalidQuestion (a ValueError) for questions that make no sense, DatabaseAway when Postgres does not
    answer, SchemaError when it has no tables.
    """

    def __init__(self, dsn: str, schema: str, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self._reads = Reads(dsn, schema, "joblog-monitor", connections_max)
        #: Bulk operations, and which jobs they are to change.
        self.bulk: Final = BulkQuestions(self._reads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._reads.close()

    def job(self, job_id: str) -> JobDetails | None:
        """Everything about a job, its newest history first; None if it is not known (yet)."""
        one = {"id": _checked_id(job_id)}
        with self._reads.consistent() as ask:
            rows = ask(SQL["job"], one)
            if not rows:
                return None
            history = with_durations(ask(SQL["history"], {**one, "limit": HISTORY_MAX}))
            continuations = ask(SQL["continuations"], {**one, "limit": CONTINUATIONS_MAX})
            rejected = ask(SQL["rejected"], {**_FIRST, "job": job_id, "limit": REJECTED_MAX})
            waits_for = why(StoredFacts(ask), rows[0], history, datetime.now(UTC))
        return details(rows[0], history, continuations, rejected, waits_for)

    def events_after(self, job_id: str, version: int = 0, limit: int = LIMIT) -> tuple[HistoryEntry, ...]:
        """The events of a job after one, oldest first; to follow it, ask again with the version of the last."""
        question = {"id": _checked_id(job_id), "version": version, "limit": checked_limit(limit)}
        with self._reads.consistent() as ask:
            return tuple(HistoryEntry(**shown(read(row["event"]))) for row in ask(SQL["events_after"], question))

    def log_lines(self, job_id: str, *, limit: int = LIMIT, cursor: str | None = None) -> Page[LogLine]:
        """What the runs of a job logged, oldest first."""
        question = {"list": "log_lines", "job": _checked_id(job_id)}
        version, skipped = 0, 0
        if cursor:
            _, place = decode_cursor(question, cursor)
            version, skipped = int(place[0]), int(place[1])
        found = {"id": job_id, "version": version, "limit": checked_limit(limit) + 1}
        with self._reads.consistent() as ask:
            rows = ask(SQL["events_with_lines"], found)
        lines = [line for row in rows for line in log_lines(shown(read(row["event"])))][skipped:]
        page = tuple(lines[:limit])
        if len(lines) <= limit:  # each event has a line at least, so there are no others
            return Page(items=page)
        end = page[-1]
        after = sum(line.version == end.version for line in page) + (skipped if end.version == version else 0)
        return Page(items=page, next_cursor=encode_cursor(question, end.at, end.version, after))

    def jobs(self, *, limit: int = LIMIT, cursor: str | None = None, **chosen: Unpack[Chosen]) -> Page[Job]:
        """A page of the jobs that are as JobFilter's fields say."""
        wanted = JobFilter(**chosen)
        statement, key = _ORDERS[wanted.ordered]
        parameters = wanted.parameters()
        question = {"list": "jobs", "order": wanted.ordered, **parameters}
        at, last = decode_cursor(question, cursor) if cursor else (None, (None,))
        place = {"at": at, "last": last[0], "limit": checked_limit(limit) + 1, "text_max": LISTED_BYTES_MAX}
        with self._reads.consistent() as ask:
            rows = ask(SQL[statement], {**parameters, **place})
        more = len(rows) > limit
        items = tuple(job(row) for row in rows[:limit])
        end = rows[limit - 1] if more else None
        return Page(items=items, next_cursor=encode_cursor(question, end[key], end["id"]) if end else None)

    def queues(self) -> tuple[Queue, ...]:
        """The queues that have jobs or workers, or are paused or limited, by name."""
        with self._reads.consistent() as ask:
            counts = ask(SQL["counts"], {})
            rows = ask(SQL["queues"], {})
        now = datetime.now(UTC)
        return tuple(queue(row, counts, now) for row in rows)

    def pauses(self, queue: str) -> tuple[LanePause, ...]:
        """The lanes in which a queue is paused."""
        if not is_queue(queue):
            raise InvalidQuestion(wrong_queue(queue))
        with self._reads.consistent() as ask:
            return tuple(LanePause(**row) for row in ask(SQL["pauses"], {"queue": queue}))

    def workers(self, gone_within: timedelta = timedelta(days=1)) -> tuple[Worker, ...]:
        """The workers that run, by name, and after them those that stopped or were lost not longer ago."""
        with self._reads.consistent() as ask:
            rows = ask(SQL["workers"], {"since": datetime.now(UTC) - gone_within})
        return tuple(Worker(**row) for row in rows)

    def limits(self) -> tuple[LimitUse, ...]:
        """The limits that jobs run with or wait for, by kind and key."""
        with self._reads.consistent() as ask:
            return limit_uses(ask(SQL["limited"], {"most": LOOKED_AT_MAX}))

    def statistics(self) -> Statistics:
        """The numbers of the whole installation."""
        with self._reads.consistent() as ask:
            counts = ask(SQL["counts"], {})
            totals = {row["state"]: row["n"] for row in ask(SQL["totals"], {})}
            sizes = ask(SQL["sizes"], {})[0]
            lanes = _offsets(ask)
        by_state = dict.fromkeys(State, 0)
        for row in counts:
            by_state[State(row["state"])] += row["n"]
        late = [lane.late_s for lane in lanes if lane.late_s is not None]
        return Statistics(
            counts=by_state,
            succeeded=totals.get(State.SUCCEEDED, 0),
            failed=totals.get(State.FAILED, 0),
            deleted=totals.get(State.DELETED, 0),
            queues=len({row["queue"] for row in counts}),
            late_s=max(late, default=None),
            **sizes,
        )

    def by_day(self, days: int = 7) -> tuple[Bucket, ...]:
        """How many jobs ended on each of the last days of UTC, today included, oldest first."""
        return self._series("by_day", days)

    def by_hour(self, hours: int = 24) -> tuple[Bucket, ...]:
        """How many jobs ended in each of the last hours, this one included, oldest first."""
        return self._series("by_hour", hours)

    def rejected(self, *, limit: int = LIMIT, cursor: str | None = None, job_id: str | None = None) -> Page[Rejected]:
        """The commands that could not be done, or those for one job, known or not, the last first."""
        job = {"job": _checked_id(job_id)} if job_id else {}
        rows, following = self._by_place("rejected", limit, cursor, **job)
        return Page(items=tuple(Rejected(**row) for row in rows), next_cursor=following)

    def existing(self, job_id: str) -> str | None:
        """The job that has the unique key which this one was to have, and is there in its place; else None.

        None may also mean that the projector has not yet read so far.
        """
        with self._reads.consistent() as ask:
            rows = ask(SQL["existing"], {"job": _checked_id(job_id), "code": None})
        return rows[0]["existing"] if rows else None

    def parked(self, *, limit: int = LIMIT, cursor: str | None = None) -> Page[ParkedRecord]:
        """The records of the log that could not be applied, the last first."""
        rows, following = self._by_place("parked", limit, cursor)
        return Page(items=tuple(ParkedRecord(**row) for row in rows), next_cursor=following)

    def parked_codes(self) -> tuple[ParkedCode, ...]:
        """How many records could not be applied, by the code of the reason."""
        with self._reads.consistent() as ask:
            return tuple(ParkedCode(**row) for row in ask(SQL["parked_codes"], {}))

    def recurring_runs(
        self, recurring_id: str, *, limit: int = LIMIT, before: datetime | None = None, cursor: str | None = None
    ) -> Page[RecurringRun]:
        """The jobs of a recurring job, even if that was removed, the latest occurrences (before an instant) first."""
        if before is not None and before.tzinfo is None:
            raise InvalidQuestion(f"the time {before.isoformat()} has no zone: add one, such as Z or +02:00")
        text = None if before is None else format_time(time_ms(before))
        question = {"list": "recurring_runs", "recurring": _checked_recurring(recurring_id), "before": text}
        last = decode_cursor(question, cursor)[1] if cursor else (None, None)
        place = {"last_occurrence": last[0], "last_id": last[1], "limit": checked_limit(limit) + 1}
        with self._reads.consistent() as ask:
            rows = ask(SQL["recurring_runs"], {**question, **place})
        end = rows[limit - 1] if len(rows) > limit else None
        following = encode_cursor(question, end["created_at"], end["occurrence"], end["id"]) if end else None
        return Page(items=tuple(map(recurring_run, rows[:limit])), next_cursor=following)

    def batch(self, batch_id: str) -> Batch | None:
        """A batch; None if it is not known (yet)."""
        with self._reads.consistent() as ask:
            rows = ask(SQL["batch"], {"id": _checked_id(batch_id)})
        return Batch(**rows[0]) if rows else None

    def batches(
        self,
        *,
        state: State | Collection[State] | None = None,
        batch: str | None = None,
        limit: int = LIMIT,
        cursor: str | None = None,
    ) -> Page[Batch]:
        """The batches, or those within another one, the last created first."""
        inner = None if batch is None else _checked_id(batch)
        question = {"list": "batches", "states": _states(state), "batch": inner}
        at, last = decode_cursor(question, cursor) if cursor else (None, (None,))
        place = {"at": at, "last": last[0], "limit": checked_limit(limit) + 1}
        with self._reads.consistent() as ask:
            rows = ask(SQL["batches"], {**question, **place})
        end = rows[limit - 1] if len(rows) > limit else None
        following = encode_cursor(question, end["created_at"], end["id"]) if end else None
        return Page(items=tuple(Batch(**row) for row in rows[:limit]), next_cursor=following)

    def batch_jobs(
        self,
        batch_id: str,
        *,
        state: State | Collection[State] | None = None,
        limit: int = LIMIT,
        cursor: str | None = None,
    ) -> Page[Job]:
        """The jobs of a batch, without those of its inner batches, in the order of their ids."""
        question = {"list": "batch_jobs", "states": _states(state), "batch": _checked_id(batch_id)}
        _, last = decode_cursor(question, cursor) if cursor else (None, (None,))
        place = {"last": last[0], "limit": checked_limit(limit) + 1, "text_max": LISTED_BYTES_MAX}
        with self._reads.consistent() as ask:
            rows = ask(SQL["batch_jobs"], {**question, **place})
        end = rows[limit - 1] if len(rows) > limit else None
        following = encode_cursor(question, end["created_at"], end["id"]) if end else None
        return Page(items=tuple(job(row) for row in rows[:limit]), next_cursor=following)

    def recurring_counts(self, recurring_id: str) -> RunCounts:
        """How many of the latest jobs of a recurring job are in each state."""
        question = {"recurring": _checked_recurring(recurring_id), "limit": RUNS_COUNTED_MAX}
        with self._reads.consistent() as ask:
            counts = {State(row["state"]): row["n"] for row in ask(SQL["recurring_counts"], question)}
        return RunCounts(counts=counts, is_all=sum(counts.values()) < RUNS_COUNTED_MAX)

    def states(self, job_ids: Collection[str]) -> dict[str, State]:
        """In which state each of these jobs is; those that are not known (yet) are left out."""
        with self._reads.consistent() as ask:
            rows = ask(SQL["states"], {"ids": [_checked_id(one) for one in job_ids]})
        return {row["id"]: State(row["state"]) for row in rows}

    def live_jobs(self) -> tuple[LiveJobs, ...]:
        """How many jobs that have not ended there are, by queue and lane."""
        with self._reads.consistent() as ask:
            return tuple(LiveJobs(**row) for row in ask(SQL["live_jobs"], {}))

    def offsets(self) -> tuple[LaneOffset, ...]:
        """How far each lane was applied."""
        with self._reads.consistent() as ask:
            return _offsets(ask)

    def snapshot(self, job_id: str) -> dict[str, Any] | None:
        """What `commands.Snapshot` takes, as JSON; None when the job, or what it was created with, is unknown."""
        with self._reads.consistent() as ask:
            rows = ask(SQL["snapshot"], {"id": _checked_id(job_id)})
        return {**rows[0], "created_at": rows[0]["created_at"].isoformat()} if rows else None

    def wait_for(self, job_id: str, states: Collection[State], timeout_s: float) -> JobDetails | None:
        """Look until the job is in one of the states; None when it is not in time.

        Where another job is there in its place (its unique key's policy is `existing`), that one is looked at.
        """
        deadline = time.monotonic() + timeout_s
        pause = POLL_FIRST_S
        while True:
            with self._reads.consistent() as ask:
                rows = ask(SQL["state"], {"id": _checked_id(job_id)})
                instead = () if rows else ask(SQL["existing"], {"job": job_id, "code": "existing"})
            if instead:
                job_id = instead[0]["existing"]
                continue
            if rows and rows[0]["state"] in states:
                found = self.job(job_id)
                if found is not None and found.state in states:
                    return found
            if time.monotonic() + pause > deadline:
                return None
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_MAX_S)

    def _series(self, statement: str, buckets: int) -> tuple[Bucket, ...]:
        if not 1 <= buckets <= 1_000:
            raise InvalidQuestion(f"a series has 1 to 1,000 buckets, not {buckets}")
        with self._reads.consistent() as ask:
            rows = ask(SQL[statement], {"now": datetime.now(UTC), "buckets": buckets})
        return tuple(Bucket(**row) for row in rows)

    def _by_place(
        self, name: str, limit: int, cursor: str | None, **chosen: str
    ) -> tuple[list[dict[str, Any]], str | None]:
        """A page of what is kept by its place in the log, and the cursor of the next one."""
        question = {"list": name, **chosen}
        place: dict[str, Any] = {**_FIRST, **chosen, "limit": checked_limit(limit) + 1}
        if cursor:
            at, (lane, offset) = decode_cursor(question, cursor)
            place |= {"at": at, "lane": int(lane), "log_offset": int(offset)}
        with self._reads.consistent() as ask:
            rows = ask(SQL[name], place)
        if len(rows) <= limit:
            return rows, None
        end = rows[limit - 1]
        return rows[:limit], encode_cursor(question, end["at"], end["lane"], end["log_offset"])


#: Where lists by place begin.
_FIRST: Final[Mapping[str, Any]] = {"job": None, "at": None, "lane": None, "log_offset": None}


def _states(state: State | Collection[State] | None) -> list[str]:
    return [str(one) for one in JobFilter(state=state).states()]


def _offsets(ask: Ask) -> tuple[LaneOffset, ...]:
    return tuple(LaneOffset(**row) for row in ask(SQL["offsets"], {}))


def _checked_id(job_id: str) -> str:
    if not match_job_id(job_id):
        raise InvalidQuestion(f"{job_id!r:.100} is no job id")
    return job_id


def _checked_recurring(recurring_id: str) -> str:
    if not _is_recurring_id(recurring_id):
        raise InvalidQuestion(f"{recurring_id!r:.100} is no id of a recurring job: it must match {RECURRING_PATTERN}")
    return recurring_id
