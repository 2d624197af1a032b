"""The records of paused queues and bulk operations, folded from a lane's events: for the day when `state` is lost."""

from collections.abc import Mapping
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.relations import LimitScope
from joblog.streams.lane.features.bulk import BULK_KEY, Operation, forgotten
from joblog.streams.lane.features.queue_control import QUEUE_KEY, PausedQueue, paused_queue
from joblog.streams.lane.features.queue_limits import queue_limit
from joblog.streams.lane.limits.gate import QueueLimit
from joblog.streams.lane.limits.records import LimitId
from joblog.streams.lane.output import StateValue
from msgspec import json

_DECODERS: Final[Mapping[str, json.Decoder[Any]]] = {
    **dict.fromkeys(("queue.paused", "queue.drained", "queue.resumed"), json.Decoder(wire.QueueEvent)),
    "limit.changed": json.Decoder(wire.LimitChanged),
    "bulk.started": json.Decoder(wire.BulkStarted),
    "bulk.advanced": json.Decoder(wire.BulkAdvanced),
    "bulk.ended": json.Decoder(wire.BulkEnded),
}


class ControlFold:
    """What the events of one lane, in their order, say of its queues and operations."""

    def __init__(self) -> None:
        self._queues: dict[str, PausedQueue] = {}
        #: Limits that were set, as they were last.
        self.limits: dict[LimitId, wire.LimitChanged] = {}
        self.queue_limits: dict[str, QueueLimit] = {}
        self._bulk: dict[str, Operation] = {}

    def apply(self, kind: str, data: bytes) -> None:
        """One event; those of other kinds change nothing."""
        decoder = _DECODERS.get(kind)
        if decoder is None:
            return
        event = decoder.decode(data)
        if kind == "limit.changed":
            self._note_limit(event)
        elif kind == "queue.paused":
            self._queues[event.queue] = paused_queue(event)
        elif kind == "queue.drained":
            self._queues[event.queue] = PausedQueue(self._queues[event.queue].until_ms)
        elif kind == "queue.resumed":
            self._queues.pop(event.queue, None)
        elif kind == "bulk.ended":
            self._bulk[event.operation] = Operation(event.sent, event.outcome)
            for one in forgotten(self._bulk):
                del self._bulk[one]
        else:
            self._bulk[event.operation] = Operation(event.sent if kind == "bulk.advanced" else 0)

    def _note_limit(self, event: wire.LimitChanged) -> None:
        if event.scope is LimitScope.KEY:
            self.limits[event.kind, event.key] = event
        elif event.capacity is None:
            self.queue_limits.pop(event.key, None)
        else:
            self.queue_limits[event.key] = queue_limit(event)

    def state(self) -> dict[str, StateValue]:
        """The records."""
        queues = {QUEUE_KEY + queue: record for queue, record in self._queues.items()}
        return {**queues, **{BULK_KEY + operation: record for operation, record in self._bulk.items()}}
