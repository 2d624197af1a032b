"""Any command, and how one arrives."""

from joblog.streams.contract.wire.base import Wire
from joblog.streams.contract.wire.batches import AnyBatchCommand
from joblog.streams.contract.wire.controls import AnyControl
from joblog.streams.contract.wire.jobs import AnyChange, CreateJob

Command = CreateJob | AnyChange | AnyControl | AnyBatchCommand


class Received(Wire, frozen=True):
    """A command as it arrived: `id`, `source` and `traceparent` of its CloudEvent, and its data."""

    id: str
    source: str
    command: Command
    traceparent: str | None = None
