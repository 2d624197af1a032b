"""The client's part for recurring jobs: each call is a record that Kafka has acknowledged when it returns.

::

    client.recurring.add_or_update("nightly", "reports.send", "0 2 * * *", zone="Europe/Berlin", args=("all",))
    client.recurring.pause("nightly")

Each aspect (definition, pause, skip) has a record of its own, so calls do not undo one another.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from re import fullmatch
from typing import Any, Final

from confluent_kafka import KafkaException
from joblog.services.client.definitions import AnyTask, checked, definition_of, interval, seconds, validated
from joblog.services.client.forks import Process
from joblog.services.client.options import Call, JobOptions, name_of
from joblog.services.tasks.recurring import Recurrence
from joblog.streams.contract.recurring import (
    RECURRING_PATTERN,
    SUFFIXES,
    Cause,
    Definition,
    Misfire,
    Overlap,
    Pause,
    Skip,
    record_key,
)
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import EnqueueError, InvalidData
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.recurring.due import paused_again
from joblog.streams.recurring.jobs import Installation, create_command, parameters_of, partition_of
from joblog.streams.recurring.reading import read_rows
from joblog.streams.recurring.rows import Row, encode_aspect
from joblog.streams.recurring.schedule import schedule_of, zone_of
from joblog.streams.recurring.sender import Record, Sender

Create = Callable[[AnyTask, Call, JobOptions], str]

#: What an edit may change.
_EDITABLE: Final = frozenset(Definition.model_fields) - {"id", "starts_at", "version"}


class UnknownRecurring(InvalidData):
    """There is no recurring job with this id."""


class RecurringJobs:
    """`client.recurring`; thread-safe."""

    def __init__(self, config: KafkaConfig, names: TopicNames, lanes: int, client_id: str, create: Create) -> None:
        self._config = config
        self._topic = names.recurring
        self._lanes = lanes
        self._client_id = f"{client_id}-recurring"
        self._create = create
        self._lock = threading.Lock()
        self._process = Process()
        self._sender: Sender | None = None

    def add_or_update(
        self,
        recurring_id: str,
        task: AnyTask,
        schedule: str | timedelta,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        zone: str = "UTC",
        anchor: datetime | None = None,
        misfire: Misfire | str = Misfire.RELAXED,
        misfire_cap: int = 100,
        misfire_tolerance: timedelta | int = 30,
        overlap: Overlap | str = Overlap.ALLOW,
        options: JobOptions | None = None,
    ) -> Definition:
        """Write a definition; what is there under this id is replaced, and stays paused if it was.

        - schedule: cron with 5 fields, or 6 with seconds first; a macro such as `@daily`; or a timedelta of whole
          seconds, counted from `anchor` (by default 1970-01-01 in UTC).
        - misfire, overlap: see `Misfire` and `Overlap`.
        - options: of each job: queue, priority, retry, timeout, parameters.

        A definition that changes nothing is not written. Raises InvalidData for what cannot be used, EnqueueError
        when the outcome is unknown; the call may be repeated.
        """
        made = definition_of(
            recurring_id,
            task,
            schedule,
            anchor,
            options or JobOptions(),
            {
                "args": tuple(args),
                "kwargs": dict(kwargs or {}),
                "zone": zone,
                "misfire": misfire,
                "misfire_cap": misfire_cap,
                "misfire_tolerance_s": seconds(misfire_tolerance, "misfire_tolerance"),
                "overlap": overlap,
            },
            self._now(),
        )
        return self._write_definition(made, self._row(recurring_id))

    def register(self, recurrences: Mapping[str, tuple[AnyTask, Recurrence]]) -> list[str]:
        """Write what tasks declare with `@recurring`; returns the ids of the definitions that changed."""
        there = {row.id: row for row in self.list()}
        changed = []
        for recurring_id, (task, recurrence) in recurrences.items():
            made = definition_of(
                recurring_id,
                task,
                recurrence.schedule,
                recurrence.anchor,
                recurrence.options or JobOptions(),
                recurrence.fields,
                self._now(),
            )
            row = there.get(recurring_id)
            if self._write_definition(made, row).version != _version(row):
                changed.append(recurring_id)
        return changed

    def edit(self, recurring_id: str, **changes: Any) -> Definition:
        """Change fields of a definition, such as `schedule="0 3 * * *"`, and leave the others as they are."""
        if wrong := sorted(changes.keys() - _EDITABLE):
            raise InvalidData(f"{', '.join(wrong)} cannot be edited: one of {', '.join(sorted(_EDITABLE))}")
        row = self._existing(recurring_id)
        if "task" in changes:
            changes["task"] = name_of(changes["task"])
        if isinstance(changes.get("schedule"), timedelta):
            changes["schedule"] = interval(changes["schedule"], None)
        before = row.definition
        assert before is not None
        return self._write_definition(validated({**dict(before), **changes}), row)

    def remove(self, recurring_id: str) -> bool:
        """Remove a definition; jobs that it created stay. False if there was none."""
        if not fullmatch(RECURRING_PATTERN, recurring_id):
            return False
        is_there = self._row(recurring_id) is not None
        self._send(recurring_id, [(kind, None) for kind in SUFFIXES])
        return is_there

    def pause(self, recurring_id: str, *, until: datetime | None = None) -> None:
        """Create no jobs, for good or until an instant; what would have been due meanwhile is not made up for."""
        now = self._now()
        asked = checked(Pause, paused=True, at=now, until=until)
        if asked.until is not None and asked.until <= now:
            raise InvalidData(f"a pause until {asked.until.isoformat()} has no effect: that is over")
        self._send(recurring_id, [(Pause, paused_again(self._existing(recurring_id).pause, now, asked.until))])

    def resume(self, recurring_id: str) -> None:
        """End a pause; without one nothing changes, and what was due while no process ran is still made up for."""
        now = self._now()
        if self._existing(recurring_id).is_paused(now):
            self._send(recurring_id, [(Pause, Pause(paused=False, at=now))])

    def skip_next(self, recurring_id: str) -> datetime:
        """Leave out the next occurrence, which is returned; to call it again before that one changes nothing."""
        row = replace(self._existing(recurring_id), skip=None)
        upcoming = row.upcoming(self._now(), 1)
        if not upcoming:
            raise InvalidData(f"{recurring_id} has no next occurrence that could be skipped: it is paused, or ended")
        self._send(recurring_id, [(Skip, Skip(after=upcoming[0] - timedelta(seconds=1)))])
        return upcoming[0]

    def trigger_now(self, recurring_id: str) -> str:
        """Create a job of this definition at once, whatever its schedule, pause and overlap; returns the job's id."""
        definition = self._existing(recurring_id).definition
        assert definition is not None
        options = JobOptions(
            queue=definition.queue,
            priority=definition.priority,
            retry=definition.retry,
            timeout=definition.timeout_s,
            parameters=parameters_of(definition, self._now(), Cause.TRIGGER),
        )
        return self._create(definition.task, Call(definition.args, definition.kwargs), options)

    def get(self, recurring_id: str) -> Row:
        """What the log has of a definition; UnknownRecurring if there is none."""
        return self._existing(recurring_id)

    def list(self) -> Sequence[Row]:
        """All definitions."""
        rows, _ = self._read(None)
        return rows

    def close(self) -> None:
        """Close the connection."""
        if not self._process.is_this:
            return
        with self._lock:
            if self._sender is not None:
                self._sender.close()
                self._sender = None

    def _now(self) -> datetime:
        """The present; users' tests have a clock of their own."""
        return datetime.now(UTC)

    def _existing(self, recurring_id: str) -> Row:
        row = self._row(recurring_id)
        if row is None:
            raise UnknownRecurring(
                f"there is no recurring job {recurring_id!r:.210}: `joblog recurring list` has all"
            )
        return row

    def _row(self, recurring_id: str) -> Row | None:
        rows, _ = self._read([partition_of(recurring_id, self._lanes)])
        return next((row for row in rows if row.id == recurring_id), None)

    def _read(self, partitions: Sequence[int] | None) -> tuple[Sequence[Row], Sequence[str]]:
        try:
            rows, problems = read_rows(self._config, self._topic, self._client_id, partitions)
        except KafkaException as exc:
            raise EnqueueError(f"topic {self._topic} cannot be read: {exc.args[0].str()}") from exc
        return rows.defined(), problems

    def _write_definition(self, made: Definition, row: Row | None) -> Definition:
        """Write it unless it is there already; its occurrences count from now if they come at other times."""
        schedule_of(made)
        # A job of it as it would be: InvalidData if that is too large.
        create_command(made, made.starts_at, Cause.SCHEDULE, made.starts_at, Installation(self._lanes, {}, {}))
        zone_of(made.zone)  # that of an interval counts once it is edited into cron
        before = row.definition if row is not None else None
        if before is not None:
            same = made.model_copy(update={"starts_at": before.starts_at, "version": before.version})
            if same == before:
                return before
            is_same_time = (made.schedule, made.zone) == (before.schedule, before.zone)
            starts_at = before.starts_at if is_same_time else made.starts_at
            made = made.model_copy(update={"starts_at": starts_at, "version": before.version + 1})
        self._send(made.id, [(Definition, made)])
        return made

    def _send(self, recurring_id: str, aspects: Sequence[tuple[Any, Any]]) -> None:
        self._process.check()
        number = partition_of(recurring_id, self._lanes)
        records = [
            Record(self._topic, number, record_key(recurring_id, kind), None if one is None else encode_aspect(one))
            for kind, one in aspects
        ]
        with self._lock:
            self._sender = self._sender or Sender(self._config, self._client_id)
            try:
                self._sender.send(records)
            except (KafkaException, BufferError) as exc:
                reason = exc.args[0].str() if isinstance(exc, KafkaException) else str(exc)
                raise EnqueueError(
                    f"{recurring_id}: not acknowledged ({reason}); the outcome is unknown, the call can be repeated"
                ) from exc


def _version(row: Row | None) -> int:
    return row.definition.version if row is not None and row.definition is not None else 0
