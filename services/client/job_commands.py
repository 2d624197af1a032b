"""Creates jobs and changes them, as commands; where these go is for a client, or an outbox, to say."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from joblog.services.client.changes import change_record, check_move
from joblog.services.client.checks import agreeing
from joblog.services.client.options import (
    DEFAULT_OPTIONS,
    KEY_FOR_EACH,
    Call,
    ClientFilter,
    CreationCancelled,
    JobDraft,
    JobOptions,
    continuing,
    drafted,
    due_at,
    filtered,
    filters_of,
    has_places_in,
    name_of,
    with_options,
)
from joblog.services.client.templates import CommandRecord, CreateTemplate, Rules
from joblog.services.tasks.scopes import ordered
from joblog.services.tasks.task import Task
from joblog.streams.contract import commands
from joblog.streams.contract.relations import Need
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.errors import InvalidData

log = logging.getLogger(__name__)

AnyTask = Task[..., Any] | str


class JobCommands(ABC):
    """The calls that create and change jobs: checked at once, filtered, and handed on as commands in their order."""

    def __init__(self, rules: Rules, filters: Sequence[ClientFilter] = ()) -> None:
        self._rules: Final = rules
        self._filters: Final[tuple[ClientFilter, ...]] = ordered(filters)

    @property
    def rules(self) -> Rules:
        """What its commands are checked by."""
        return self._rules

    @abstractmethod
    def send(self, records: Sequence[CommandRecord]) -> None:
        """Hand on commands that were made before; all of them, or it raises."""

    # --- creating ---

    def enqueue(self, task: AnyTask, /, *args: Any, options: JobOptions = DEFAULT_OPTIONS, **kwargs: Any) -> str:
        """Create a job that runs as soon as a worker is free; returns its id.

        Raises InvalidData for what the contract does not allow, CreationCancelled when a filter cancels the job, and
        what `send` raises: with a Client NotAcknowledged or TopicsError, with an Outbox the error of the driver.
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
        run_at = self._due(delay, at)
        return self.create(task, Call(args, kwargs), with_options(options, run_at=run_at))

    def continue_with(
        self,
        parent_id: str | Sequence[str],
        task: AnyTask,
        /,
        *args: Any,
        on: ContinueOn = ContinueOn.SUCCEEDED,
        need: Need = Need.ALL,
        options: JobOptions = DEFAULT_OPTIONS,
        **kwargs: Any,
    ) -> str:
        """Create a job that runs when the parent has ended in this way; if it ends otherwise, the job is deleted.

        Of several parents, a list of ids, all have to end so, or any one of them (`need=Need.ANY`). The run reads how
        they ended, with their results, in `JobContext.parent` and `.parents`.
        """
        return self.create(task, Call(args, kwargs), continuing(options, parent_id, on, need))

    def create(self, task: AnyTask, call: Call, options: JobOptions = DEFAULT_OPTIONS) -> str:
        """Create a job whose arguments may have any name: those above cannot be `options`, `on` and so on."""
        filters = filters_of(self._filters, task)
        draft = filtered(drafted(task, call, options), filters)
        if draft is None:
            raise CreationCancelled(f"a filter cancelled the creation of a job of {name_of(task)}")
        record = self._record(draft)
        self.send([record])
        self._tell(record.job_id, draft, filters)
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
        if options.unique is not None:
            raise InvalidData(f"many jobs cannot share one unique key: {KEY_FOR_EACH}")
        each = [call if isinstance(call, Call) else Call(*call) for call in calls]
        filters = filters_of(self._filters, task)
        if filters or has_places_in(task, options):
            return self._create_filtered([drafted(task, call, options) for call in each], filters)
        first = drafted(task, Call(), options)
        template = CreateTemplate(first.task, first.options, self._rules)
        for call in each:
            if call.job_id is not None:
                agreeing(template, call)
        records = template.fill_all(each)
        self.send(records)
        return [record.job_id for record in records]

    def _create_filtered(self, drafts: Iterable[JobDraft], filters: Sequence[ClientFilter]) -> list[str]:
        wanted = [draft for one in drafts if (draft := filtered(one, filters)) is not None]
        records = [self._record(draft) for draft in wanted]
        self.send(records)
        for record, draft in zip(records, wanted, strict=True):
            self._tell(record.job_id, draft, filters)
        return [record.job_id for record in records]

    def _record(self, draft: JobDraft) -> CommandRecord:
        options = draft.options
        if options.job_id is None:
            return CreateTemplate(draft.task, options, self._rules).fill(Call(draft.args, draft.kwargs))
        template = CreateTemplate(draft.task, with_options(options, job_id=None), self._rules)
        return agreeing(template, Call(draft.args, draft.kwargs, options.idempotency_key, options.job_id))

    def _tell(self, job_id: str, draft: JobDraft, filters: Sequence[ClientFilter]) -> None:
        for one in reversed(filters):
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
        fields = {"run_at": self._due(delay, at), "snapshot": snapshot}
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

    def set_priority(
        self,
        job_id: str,
        priority: int,
        *,
        expected_state: State | None = None,
        expected_version: int | None = None,
        reason: str | None = None,
    ) -> None:
        """Change the priority of a job that has not ended, or Failed; the order of its queue follows at once."""
        self._change(commands.SetPriority, job_id, expected_state, expected_version, reason, priority=priority)

    def move(
        self,
        job_id: str,
        queue: str,
        *,
        expected_state: State | None = None,
        expected_version: int | None = None,
        reason: str | None = None,
    ) -> None:
        """Move a job to another queue; its state, priority and age stay. Rejected while it runs.

        A job with a unique key cannot be moved, since the key is one of its queue.
        """
        check_move(job_id, queue, self._rules)
        self._change(commands.MoveJob, job_id, expected_state, expected_version, reason, queue=queue)

    def _due(self, delay: timedelta | float | None, at: datetime | None) -> datetime:
        """The instant that a delay or a time names; users' tests have a clock of their own."""
        return due_at(delay, at)

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
        self.send([change_record(kind, job_id, fields, self._rules)])
