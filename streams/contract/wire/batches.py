"""Commands on batches."""

from typing import Annotated, ClassVar

from joblog.streams.contract.fields import Count, Key, Lane, Text
from joblog.streams.contract.ids import LANES_MAX
from joblog.streams.contract.wire.base import JobId, Outside
from joblog.streams.contract.wire.jobs import Parent
from msgspec import Meta

Lanes = Annotated[tuple[Lane, ...], Meta(max_length=LANES_MAX)]


class BatchCommand(Outside, frozen=True, kw_only=True):
    batch_id: JobId

    @property
    def job_id(self) -> str:
        """The id that names its lane."""
        return self.batch_id


class CreateBatch(BatchCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "batch.create"
    description: Key | None = None
    lanes: Lanes = ()
    jobs: Count = 0
    parent: Parent | None = None
    batch: JobId | None = None


class AttachToBatch(BatchCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "batch.attach"
    addition: JobId
    lanes: Lanes = ()
    jobs: Count = 0


class MarkBatch(BatchCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "batch.mark"
    mark_id: JobId

    @property
    def job_id(self) -> str:
        return self.mark_id


class CancelBatch(BatchCommand, frozen=True, kw_only=True):
    type: ClassVar[str] = "batch.cancel"
    running: bool = False
    reason: Text | None = None


AnyBatchCommand = CreateBatch | AttachToBatch | MarkBatch | CancelBatch
