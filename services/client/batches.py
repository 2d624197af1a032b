"""Batches: jobs that are created together or not at all, and that may be waited for, watched and cancelled as one.

::

    with client.batch("import of 2026-11-29") as batch:
        for path in paths:
            batch.enqueue("images.import", path)
    client.continue_batch(batch.id, "images.publish")

What is created in the block is gathered, and sent at its end in one transaction; an exception in it sends nothing.
With `in_parts` it may be any number of jobs, in as many transactions as it takes.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final

from joblog.services.client import batch_parts
from joblog.services.client.changes import batch_record
from joblog.services.client.job_commands import AnyTask, JobCommands
from joblog.services.client.options import DEFAULT_OPTIONS, Call, ClientFilter, JobDraft, JobOptions, with_options
from joblog.services.client.templates import CommandRecord, Rules, check_job_id
from joblog.streams.contract import commands
from joblog.streams.contract.ids import hashed_job_id, lane_of_job, new_job_id
from joblog.streams.contract.relations import ParentKind
from joblog.streams.contract.states import ContinueOn
from joblog.streams.errors import InvalidData, JoblogError

#: Sends the commands of jobs with these ids, all or none.
SendTogether = Callable[[Sequence[CommandRecord], Sequence[str]], None]


class Batch(JobCommands, AbstractContextManager["Batch"]):
    """The jobs of one batch, created with the calls of JobCommands in a `with` block, and sent at its end.

    Belongs to one thread.

    - id: of the batch; waits: for a parent: then its jobs wait, too.
    - job_ids: of the jobs that were added here, in their order.
    """

    def __init__(
        self,
        rules: Rules,
        filters: Sequence[ClientFilter],
        send_together: SendTogether,
        first: type[commands.CreateBatch] | type[commands.AttachToBatch],
        fields: Mapping[str, Any],
        *,
        batch_id: str,
        waits: bool,
        in_parts: bool = False,
        outer: "Batch | None" = None,
    ) -> None:
        super().__init__(rules, filters)
        self.id: Final = batch_id
        self.waits: Final = waits
        self.job_ids: list[str] = []
        self._send_together = send_together
        self._first, self._fields = first, dict(fields)
        self._outer = outer
        self._in_parts = in_parts
        self._records: list[CommandRecord] = []
        self._members: set[str] = set()
        self._told: list[tuple[str, JobDraft, Sequence[ClientFilter]]] = []
        #: The transactions, and how many of them are acknowledged.
        self._transactions: list[Sequence[CommandRecord]] = []
        self._acknowledged = 0
        self._is_left = self._is_sent = False
        check_job_id(batch_id, rules.lanes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is not None:
            return
        if self._outer is not None:
            self._outer._take_in(self)
        elif not self._is_sent:
            self.commit()

    # --- what is in it ---

    def create(self, task: AnyTask, call: Call, options: JobOptions = DEFAULT_OPTIONS) -> str:
        """Add a job; all other calls that create one come to this."""
        _check_key(call.idempotency_key)
        return super().create(task, call, self._within(options))

    def enqueue_many(
        self, task: AnyTask, calls: Iterable[Call | Sequence[Any]], options: JobOptions = DEFAULT_OPTIONS
    ) -> list[str]:
        """Add a job for each call, as the client's `enqueue_many` does."""
        each = [call if isinstance(call, Call) else Call(*call) for call in calls]
        for call in each:
            _check_key(call.idempotency_key)
        return super().enqueue_many(task, each, self._within(options))

    def send(self, records: Sequence[CommandRecord]) -> None:
        """Gather the commands of jobs."""
        ids = [record.job_id for record in records]
        self._records += records
        self._members.update(ids)
        self.job_ids += ids

    def _tell(self, job_id: str, draft: JobDraft, filters: Sequence[ClientFilter]) -> None:
        """Filters hear of a job when it is in the log."""
        if filters:
            self._told.append((job_id, draft, filters))

    def _change(self, kind: type[commands.Change], *_: Any, **__: Any) -> None:
        raise InvalidData(f"a batch only creates jobs: {kind.model_fields['type'].default} is for the client")

    def batch(self, description: str | None = None, *, batch_id: str | None = None) -> "Batch":
        """Add an inner batch: this one has not ended before its inner ones have."""
        self._check_open()
        made = a_batch_id(self._rules) if batch_id is None else batch_id
        fields: dict[str, Any] = {"description": description, "batch": self.id}
        if self.waits:
            fields["parent"] = {"job_id": self.id, "kind": ParentKind.BATCH}
        given = self._rules, self._filters, self._send_together
        return Batch(*given, commands.CreateBatch, fields, batch_id=made, waits=self.waits, outer=self)

    def attach(self, *, in_parts: bool = False) -> "Batch":
        """More jobs for this batch after it was sent, in a `with` block of their own."""
        if self._outer is not None or not self._is_left:
            raise InvalidData("attach() is for a batch that was sent: within its block, add jobs to the batch itself")
        given = self._rules, self._filters, self._send_together
        return attached(*given, self.id, waits=self.waits, in_parts=in_parts)

    # --- sending ---

    def close(self) -> None:
        """No more jobs are added: the block is left."""
        self._is_left = True

    def commit(self) -> None:
        """Send all of it in one transaction. Called at the end of the block; again after a NotAcknowledged.

        Nothing can be added after it, as what is sent again has to be the same.
        The commands are the same ones each time, so that those which arrived are refused as duplicates. A batch in
        parts goes on with the transaction that was not acknowledged, whose jobs the exception names.
        """
        self.hand_over()
        self.tell()

    def hand_over(self) -> None:
        """Send it, without telling filters that it was sent."""
        if self._outer is not None:
            raise InvalidData("an inner batch is sent with its outer one")
        self.close()
        if not self._transactions:
            made = self.commands()
            self._transactions = list(batch_parts.parts(made)) if self._in_parts else [batch_parts.whole(made)]
        for number in range(self._acknowledged, len(self._transactions)):
            records = self._transactions[number]
            self._send_together(records, self._jobs_of(records))
            self._acknowledged = number + 1
        self._acknowledged = 0
        self._is_sent = True

    def tell(self) -> None:
        """Let filters hear of the jobs, which are sent."""
        for told in self._told:
            super()._tell(*told)
        self._told = []

    def commands(self) -> list[CommandRecord]:
        """What is sent: the batch's own command, its jobs and inner batches, and behind them a mark in each lane."""
        rules = self._rules
        lanes = sorted({lane_of_job(one) for one in self._members})
        fields = {**self._fields, "lanes": lanes, "jobs": len(self._members)}
        first = batch_record(self._first, self.id, fields, rules)
        # Always the same for an addition, so that it can be told from a repetition.
        ids = [hashed_job_id(lane, "batch.mark", fields.get("addition", self.id)) for lane in lanes]
        marks = [batch_record(commands.MarkBatch, self.id, {"mark_id": one}, rules) for one in ids]
        return [first, *self._records, *marks]

    def _jobs_of(self, records: Sequence[CommandRecord]) -> Sequence[str]:
        """The jobs that one of the transactions creates."""
        if len(self._transactions) == 1:
            return self.job_ids
        sent = {one.job_id for one in records}
        return [one for one in self.job_ids if one in sent]

    def _take_in(self, inner: "Batch") -> None:
        self._check_open()
        self._records += inner.commands()
        self._told += inner._told
        self._members.add(inner.id)
        self.job_ids += inner.job_ids

    def _within(self, options: JobOptions) -> JobOptions:
        """The options of a job in this batch; one that waits holds back those that have no parent within it."""
        self._check_open()
        if options.batch not in {None, self.id}:
            raise InvalidData(f"options.batch names batch {options.batch}, and this is batch {self.id}")
        _check_key(options.idempotency_key)
        if not self.waits:
            return with_options(options, batch=self.id)
        if options.parents is not None or options.after_batch is not None:
            raise InvalidData("the jobs of a batch that waits can wait for a job of the same batch, and nothing else")
        if options.parent is None:
            return with_options(options, batch=self.id, after_batch=self.id, on=None)
        if options.parent not in self._members:
            raise InvalidData(
                f"the batch waits for its start, and job {options.parent} is none of those that were added here: "
                "let the batch wait for that job, or add it to the batch"
            )
        return with_options(options, batch=self.id)

    def _check_open(self) -> None:
        if self._is_left:
            raise JoblogError("the batch was sent, or its block is over: add more with batch.attach()")


def created(
    rules: Rules,
    filters: Sequence[ClientFilter],
    send_together: SendTogether,
    description: str | None,
    *,
    after: str | None,
    after_batch: str | None,
    on: ContinueOn | None,
    batch_id: str | None,
    in_parts: bool,
) -> Batch:
    """A new batch; it waits if it has a parent, a job or a batch."""
    if after is not None and after_batch is not None:
        raise InvalidData("a batch waits for a job (after) or for a batch (after_batch), not for both")
    if on is not None and after is None and after_batch is None:
        raise InvalidData(f"on has no effect without a parent: write after=JOB_ID, on={on!s}, or leave it out")
    fields: dict[str, Any] = {"description": description}
    parent = after if after_batch is None else after_batch
    if parent is not None:
        check_job_id(parent, rules.lanes)
        kind = ParentKind.JOB if after_batch is None else ParentKind.BATCH
        fields["parent"] = {"job_id": parent, "on": on or ContinueOn.SUCCEEDED, "kind": kind}
    made = a_batch_id(rules) if batch_id is None else batch_id
    first = commands.CreateBatch
    given = rules, filters, send_together, first, fields
    return Batch(*given, batch_id=made, waits=parent is not None, in_parts=in_parts)


def attached(
    rules: Rules,
    filters: Sequence[ClientFilter],
    send_together: SendTogether,
    batch_id: str,
    *,
    waits: bool,
    in_parts: bool = False,
) -> Batch:
    """More jobs for a batch; with `waits` they wait until it has started, if it has not."""
    fields = {"addition": a_batch_id(rules)}
    given = rules, filters, send_together, commands.AttachToBatch, fields
    return Batch(*given, batch_id=batch_id, waits=waits, in_parts=in_parts)


def a_batch_id(rules: Rules) -> str:
    """A new id, which names any lane."""
    return new_job_id(random.randrange(rules.lanes), _now_ms())


def _check_key(key: str | None) -> None:
    if key is not None:
        raise InvalidData(
            "a job with an idempotency_key may exist already, and belong to no batch or another one: leave the key "
            "out, as a batch that is sent twice is created once"
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
