"""The client's calls for batches."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from joblog.services.client.batches import Batch, attached, created
from joblog.services.client.changes import batch_record
from joblog.services.client.job_commands import AnyTask, JobCommands
from joblog.services.client.options import DEFAULT_OPTIONS, Call, JobOptions, with_options
from joblog.services.client.templates import CommandRecord
from joblog.streams.contract import commands
from joblog.streams.contract.states import ContinueOn


class BatchCalls(JobCommands):
    """The calls that create, continue and cancel batches."""

    @abstractmethod
    def send_together(self, records: Sequence[CommandRecord], job_ids: Sequence[str]) -> None:
        """Hand on the commands of these jobs, all of them or none."""

    def batch(
        self,
        description: str | None = None,
        *,
        after: str | None = None,
        after_batch: str | None = None,
        on: ContinueOn | None = None,
        batch_id: str | None = None,
        in_parts: bool = False,
    ) -> Batch:
        """A batch, whose jobs are added in a `with` block and created together at its end, all or none.

        With `after` (a job) or `after_batch`, all its jobs wait until that one has ended in the way that `on` says.
        With `in_parts` it may be larger than one transaction, and is sent in several: if one of them fails,
        `batch.commit()` goes on with it. The batch does not end before all are there, or 60 s have passed in which
        nothing came and nothing was left to run: then it is Failed or Deleted.
        """
        return created(
            self._rules,
            self._filters,
            self.send_together,
            description,
            after=after,
            after_batch=after_batch,
            on=on,
            batch_id=batch_id,
            in_parts=in_parts,
        )

    def attach(self, batch_id: str, *, in_parts: bool = False) -> Batch:
        """More jobs for a batch, even for one that has ended; they wait until it has started. A `with` block, too."""
        given = self._rules, self._filters, self.send_together
        return attached(*given, batch_id, waits=True, in_parts=in_parts)

    def continue_batch(
        self,
        batch_id: str,
        task: AnyTask,
        /,
        *args: Any,
        on: ContinueOn = ContinueOn.SUCCEEDED,
        options: JobOptions = DEFAULT_OPTIONS,
        **kwargs: Any,
    ) -> str:
        """Create a job that runs when the batch has ended in this way; if it ends otherwise, the job is deleted."""
        return self.create(task, Call(args, kwargs), with_options(options, after_batch=batch_id, on=on))

    def cancel_batch(self, batch_id: str, *, running: bool = False, reason: str | None = None) -> None:
        """Delete the jobs of a batch that have not started, and those to come; with `running`, the running ones."""
        fields = {"running": running, "reason": reason}
        self.send([batch_record(commands.CancelBatch, batch_id, fields, self._rules)])
