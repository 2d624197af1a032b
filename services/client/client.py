"""The client: creates jobs and changes them; each call is a command that Kafka has acknowledged when it returns.

::

    with Client(KafkaConfig("127.0.0.1:9092"), TopicNames(), lanes=4) as client:
        job_id = client.enqueue("images.shrink", "a.png", width=640)
        client.continue_with(job_id, "images.publish", "a.png")

The elector decides what becomes of a command: a `job.*` event, or a `command.rejected` with its reason.
"""

import logging
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from joblog.services.client.changes import change_record
from joblog.services.client.checks import agreeing, problems_of
from joblog.services.client.options import (
    DEFAULT_OPTIONS,
    Call,
    ClientFilter,
    CreationCancelled,
    JobDraft,
    JobOptions,
    drafted,
    due_at,
    name_of,
    with_options,
)
from joblog.services.client.recurring import RecurringJobs
from joblog.services.client.sending import CommandSender
from joblog.services.client.templates import CommandRecord, CreateTemplate, Rules
from joblog.services.settings.model import Settings
from joblog.services.tasks.task import Task
from joblog.streams.contract import commands
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import InvalidData, SettingsError
from joblog.streams.kafka.clients import KafkaConfig, producer
from joblog.streams.kafka.durable_producer import DurableProducer

log = logging.getLogger(__name__)

AnyTask = Task[..., Any] | str

#: Applies while a call hands over its records; after the last one it does not wait for more (sending.py).
LINGER_MS: Final = 5


class Client(AbstractContextManager["Client"]):
    """Sends commands to one installation. Thread-safe; make one for each process, and close it at the end.

    - lanes: the number of partitions of the installation's topics.
    - shards, shards_before: the number of lanes that each queue has, and had, as the electors have it (the settings
      `queue_shards` and `queue_shards_before`).
    - filters: called around the creation of each job, in this order.
    - name: part of the CloudEvents `source` of its commands; by default the host name.
    - timeout_s: how long to wait for Kafka's acknowledgement.
    - args_bytes_max: the largest arguments of one job, as JSON.

    Raises SettingsError for a value that is out of its range.
    """

    def __init__(
        self,
        config: KafkaConfig,
        names: TopicNames,
        lanes: int,
        *,
        shards: Mapping[str, int] | None = None,
        shards_before: Mapping[str, int] | None = None,
        filters: Sequence[ClientFilter] = (),
        name: str | None = None,
        timeout_s: float = 10.0,
        args_bytes_max: int = 262_144,
    ) -> None:
        self.name: Final = socket.gethostname() if name is None else name
        source = f"/joblog/clients/{self.name}"
        self._rules = Rules(lanes, dict(shards or {}), source, args_bytes_max, dict(shards_before or {}))
        for is_wrong, what in problems_of(self.name, self._rules, timeout_s):
            if is_wrong:
                raise SettingsError(f"client: {what}")
        self._filters = tuple(filters)
        client_id = f"{names.prefix}client-{self.name}"
        make = partial(producer, config, client_id, linger_ms=LINGER_MS, timeout_ms=round(timeout_s * 1000))
        self._sender = CommandSender(
            DurableProducer(make), config.bootstrap_servers, names.commands, lanes, timeout_s
        )
        #: Recurring jobs: add, change, pause, trigger and remove them.
        self.recurring: Final = RecurringJobs(config, names, lanes, client_id, self.create)

    @classmethod
    def from_settings(cls, settings: Settings, *, filters: Sequence[ClientFilter] = ()) -> Self:
        """A client of the installation that the settings describe; `tracing.enabled` adds the filter that traces."""
        if settings.tracing.enabled:
            from joblog.services.client.tracing import TracingClientFilter  # noqa: PLC0415 - of an extra

            filters = (TracingClientFilter(), *filters)
        return cls(
            settings.kafka.config(),
            settings.names,
            settings.lanes,
            shards=settings.queue_shards,
            shards_before=settings.queue_shards_before,
            filters=filters,
            name=settings.client.name,
            timeout_s=settings.client.timeout_s,
            args_bytes_max=settings.client.args_bytes_max,
        )

    def close(self) -> None:
        """Close the connections, after the calls of other threads that are in progress."""
        self.recurring.close()
        self._sender.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- creating ---

    def enqueue(self, task: AnyTask, /, *args: Any, options: JobOptions = DEFAULT_OPTIONS, **kwargs: Any) -> str:
        """Create a job that runs as soon as a worker is free; returns its id.

        Raises InvalidData for what the contract does not allow, CreationCancelled when a filter cancels the job,
        NotAcknowledged when the outcome is unknown, TopicsError when the topics are missing or do not fit `lanes`.
        """
        return self.create(task, Call(args, kwargs), options)

    def schedule(
        self,
        task: AnyTask,
        /,
        *args: Any,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
        options: JobOptions = DEFAULT_OPTIONS,
        **kwargs: Any,
    ) -> str:
        """Create a job that runs after a delay (a timedelta or seconds), or at an instant with a time zone."""
        if options.run_at is not None:
            raise InvalidData("options.run_at has no effect in schedule(): write at=..., or use enqueue()")
        run_at = due_at(delay, at)
        return self.create(task, Call(args, kwargs), with_options(options, run_at=run_at))

    def continue_with(
        self,
        parent_id: str,
        task: AnyTask,
        /,
        *args: Any,
        on: ContinueOn = ContinueOn.SUCCEEDED,
        options: JobOptions = DEFAULT_OPTIONS,
        **kwargs: Any,
    ) -> str:
        """Create a job that runs when the parent has ended in this way; if it ends otherwise, the job is deleted."""
        if options.parent is not None:
            raise InvalidData(
                "options.parent has no effect in continue_with(): give the parent as its first argument"
            )
        return self.create(task, Call(args, kwargs), with_options(options, parent=parent_id, on=on))

    def create(self, task: AnyTask, call: Call, options: JobOptions = DEFAULT_OPTIONS) -> str:
        """Create a job whose arguments may have any name: those above cannot be `options`, `delay`, `at` or `on`."""
        draft = self._filtered(drafted(task, call, options))
        if draft is None:
            raise CreationCancelled(f"a filter cancelled the creation of a job of {name_of(task)}")
        record = self._record(draft)
        self._sender.send([record])
        self._tell(record.job_id, draft)
        return record.job_id

    def enqueue_many(
        self, task: AnyTask, calls: Iterable[Call | Sequence[Any]], options: JobOptions = DEFAULT_OPTIONS
    ) -> list[str]:
        """Create a job for each call, a `Call` or (args, kwargs); returns their ids in the same order.

        All calls are checked before the first is sent, so all are in memory at once. Jobs that a filter cancels are
        left out. Raises as `enqueue` does; as NotAcknowledged has the ids of all jobs, the call can be repeated.
        """
        if options.job_id is not None or options.idempotency_key is not None:
            raise InvalidData(
                "many jobs cannot share one id or key: write Call(args, kwargs, idempotency_key, job_id)"
            )
        each = [call if isinstance(call, Call) else Call(*call) for call in calls]
        if self._filters:
            return self._create_filtered([drafted(task, call, options) for call in each])
        first = drafted(task, Call(), options)
        template = CreateTemplate(first.task, first.options, self._rules)
        for call in each:
            if call.job_id is not None:
                agreeing(template, call)
        records = template.fill_all(each)
        self._sender.send(records)
        return [record.job_id for record in records]

    def _create_filtered(self, drafts: Iterable[JobDraft]) -> list[str]:
        wanted = [draft for draft in map(self._filtered, drafts) if draft is not None]
        records = [self._record(draft) for draft in wanted]
        self._sender.send(records)
        for record, draft in zip(records, wanted, strict=True):
            self._tell(record.job_id, draft)
        return [record.job_id for record in records]

    def _record(self, draft: JobDraft) -> CommandRecord:
        options = draft.options
        if options.job_id is None:
            return CreateTemplate(draft.task, options, self._rules).fill(Call(draft.args, draft.kwargs))
        template = CreateTemplate(draft.task, with_options(options, job_id=None), self._rules)
        return agreeing(template, Call(draft.args, draft.kwargs, options.idempotency_key, options.job_id))

    def _filtered(self, draft: JobDraft) -> JobDraft | None:
        for one in self._filters:
            changed = one.on_creating(draft)
            if changed is None:
                return None
            draft = changed
        return draft

    def _tell(self, job_id: str, draft: JobDraft) -> None:
        for one in reversed(self._filters):
            try:
                one.on_created(job_id, draft)
            except Exception:  # the job exists: a caller who got no id would create it again
                log.exception("client.filter_failed", extra={"filter": type(one).__qualname__, "job_id": job_id})

    # --- changing ---

    def delete(
        self,
        job_id: str,
        *,
        snapshot: commands.Snapshot | Mapping[str, Any] | None = None,
        expected_state: State | None = None,
        expected_version: int | None = None,
        reason: str | None = None,
    ) -> None:
        """Delete a job in any state; a running one is cancelled. One that failed long ago needs a snapshot.

        With an expected state or version the command is rejected if the job has another one by then; so in all
        methods below.
        """
        self._change(commands.DeleteJob, job_id, expected_state, expected_version, reason, snapshot=snapshot)

    def requeue(
        self,
        job_id: str,
        *,
        queue: str | None = None,
        snapshot: commands.Snapshot | Mapping[str, Any] | None = None,
        expected_state: State | None = None,
        expected_version: int | None = None,
        reason: str | None = None,
    ) -> None:
        """Put a job into its queue, or another one in the same lane. One that ended long ago needs a snapshot."""
        fields = {"queue": queue, "snapshot": snapshot}
        self._change(commands.RequeueJob, job_id, expected_state, expected_version, reason, **fields)

    def reschedule(
        self,
        job_id: str,
        *,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
        snapshot: commands.Snapshot | Mapping[str, Any] | None = None,
        expected_state: State | None = None,
        expected_version: int | None = None,
        reason: str | None = None,
    ) -> None:
        """Move a job to another instant, from any state."""
        fields = {"run_at": due_at(delay, at), "snapshot": snapshot}
        self._change(commands.RescheduleJob, job_id, expected_state, expected_version, reason, **fields)

    def set_parameter(
        self,
        job_id: str,
        name: str,
        value: Any,
        *,
        expected_state: State | None = None,
        expected_version: int | None = None,
        reason: str | None = None,
    ) -> None:
        """Set one of a job's parameters to a JSON value; bytes are stored as base64, times as texts."""
        fields = {"name": name, "value": value}
        self._change(commands.SetParameter, job_id, expected_state, expected_version, reason, **fields)

    # --- commands that were made before ---

    @property
    def rules(self) -> Rules:
        """What its commands are checked by."""
        return self._rules

    def send(self, records: Sequence[CommandRecord]) -> None:
        """Send commands, and return when Kafka has acknowledged all. Raises as `enqueue` does."""
        self._sender.send(records)

    def _change(
        self,
        kind: type[commands.Change],
        job_id: str,
        expected_state: State | None,
        expected_version: int | None,
        reason: str | None,
        **fields: Any,
    ) -> None:
        fields |= {"expected_state": expected_state, "expected_version": expected_version, "reason": reason}
        self._sender.send([change_record(kind, job_id, fields, self._rules)])
