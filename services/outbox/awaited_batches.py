"""Batches of an AsyncOutbox: `async with` blocks, in which jobs are added without awaiting, and written at last."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final

from joblog.services.client.batches import Batch, SendTogether, attached, created
from joblog.services.client.options import ClientFilter
from joblog.services.client.templates import CommandRecord, Rules
from joblog.streams.contract.states import ContinueOn
from joblog.streams.errors import JoblogError

Write = Callable[[Sequence[CommandRecord]], Awaitable[None]]


class AwaitedBatch(AbstractAsyncContextManager[Batch]):
    """The block of one batch; `write` is awaited at its end, and filters are told of the jobs after that."""

    def __init__(self, make: Callable[[SendTogether], Batch], write: Write) -> None:
        self._records: list[CommandRecord] = []
        self._is_over = False
        self._batch: Final = make(self._gather)
        self._write = write

    async def __aenter__(self) -> Batch:
        return self._batch

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batch.close()
        if kind is None:
            self._batch.hand_over()
            self._is_over = True
            await self._write(self._records)
            self._batch.tell()
        self._is_over = True

    def _gather(self, records: Sequence[CommandRecord], _job_ids: Sequence[str]) -> None:
        if self._is_over:
            raise JoblogError(
                "the batch was written at the end of its block, in the transaction: add more with "
                "`async with outbox.attach(batch.id) as more`"
            )
        self._records += records


class AwaitedBatches(ABC):
    """The calls of an AsyncOutbox that create batches."""

    def __init__(self, rules: Rules, filters: Sequence[ClientFilter]) -> None:
        self._rules, self._filters = rules, filters

    @abstractmethod
    async def send(self, records: Sequence[CommandRecord]) -> None:
        """Add commands to the transaction."""

    def batch(
        self,
        description: str | None = None,
        *,
        after: str | None = None,
        after_batch: str | None = None,
        on: ContinueOn | None = None,
        batch_id: str | None = None,
        in_parts: bool = False,
    ) -> AwaitedBatch:
        """A batch in an `async with` block; what is called on it is not awaited. All else is as of an Outbox."""
        given: dict[str, Any] = {"after": after, "after_batch": after_batch, "on": on, "in_parts": in_parts}

        def make(send: SendTogether) -> Batch:
            return created(self._rules, self._filters, send, description, batch_id=batch_id, **given)

        return AwaitedBatch(make, self.send)

    def attach(self, batch_id: str, *, in_parts: bool = False) -> AwaitedBatch:
        """More jobs for a batch, in an `async with` block."""

        def make(send: SendTogether) -> Batch:
            return attached(self._rules, self._filters, send, batch_id, waits=True, in_parts=in_parts)

        return AwaitedBatch(make, self.send)
