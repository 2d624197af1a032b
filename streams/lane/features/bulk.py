"""Bulk operations: what a lane keeps of those whose ids name it, and the events by which others know them.

A lane changes no job here. A runner finds the jobs in the tables, sends an ordinary command for each, and tells the
lane how far it is (`bulk.advance`), each time with where it was before: so of two runners only one advances.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

from joblog.streams.contract import wire
from joblog.streams.contract.controls import BulkOutcome
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.lane.feature import CommandHandler, Feature
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.pipeline import Pipeline
from joblog.streams.lane.transitions import Election, Rejection
from msgspec import Struct, msgpack

BULK_KEY: Final = "bulk:"
#: Ended operations that a lane remembers, so that none is begun again.
ENDED_MAX: Final = 100


class Operation(Struct, frozen=True, array_like=True):
    """The record of an operation: how many commands were sent for it; ids are in the order of their times."""

    sent: int = 0
    outcome: BulkOutcome | None = None


def forgotten(known: Mapping[str, Operation]) -> list[str]:
    """The operations that ended too long ago to be remembered."""
    ended = sorted(one for one, record in known.items() if record.outcome is not None)
    return ended[: max(0, len(ended) - ENDED_MAX)]


class BulkOperations(Feature):
    """The operations of a lane, and the last ones that have ended."""

    prefix: ClassVar = BULK_KEY
    decoder: ClassVar = msgpack.Decoder(Operation)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self._all: dict[str, Operation] = {}

    def load(self, key: str, value: Operation, clock_ms: int) -> None:
        self._all[key] = value

    def commands(self) -> Mapping[type, CommandHandler]:
        return {
            wire.StartBulk: self._start,
            wire.AdvanceBulk: self._advance,
            wire.CancelBulk: self._cancel,
        }

    def _start(self, received: wire.Received, election: Election, out: LaneOutput) -> Rejection | None:
        command = received.command
        assert isinstance(command, wire.StartBulk)
        operation, lanes = command.operation, self.pipeline.lanes
        if lane_of_job(operation) != self.pipeline.number:
            return Rejection("wrong_lane", f"the id {operation} does not name lane {self.pipeline.number}")
        if operation in self._all:
            return Rejection("duplicate", f"bulk operation {operation} exists already")
        if len(command.fence) != lanes:
            return Rejection("invalid", f"the fence has {len(command.fence)} offsets, and there are {lanes} lanes")
        self._keep(operation, Operation(), out)
        event = wire.BulkStarted(
            operation=operation,
            by=command.by,
            reason=command.reason,
            action=command.action,
            filter=command.filter,
            fence=command.fence,
            matched=command.matched,
            rate=command.rate,
            queue=command.queue,
            priority=command.priority,
        )
        out.events.append((operation, "bulk.started", f"{operation}/started", event, received.id, None))
        return None

    def _advance(self, received: wire.Received, election: Election, out: LaneOutput) -> Rejection | None:
        command = received.command
        assert isinstance(command, wire.AdvanceBulk)
        found = self._going_on(command.operation)
        if isinstance(found, Rejection):
            return found
        if found.sent != command.before or command.sent < command.before:
            return Rejection("wrong_version", f"{found.sent} commands were sent, not {command.before}")
        operation, sent = command.operation, command.sent
        if sent > found.sent:
            advanced = wire.BulkAdvanced(operation=operation, sent=sent, cursor=command.cursor)
            out.events.append(
                (operation, "bulk.advanced", f"{operation}/advanced/{sent}", advanced, received.id, None)
            )
        self._keep(operation, Operation(sent), out)
        if command.outcome is not None:
            self._end(command.operation, Operation(sent, command.outcome), received, out)
        return None

    def _cancel(self, received: wire.Received, election: Election, out: LaneOutput) -> Rejection | None:
        command = received.command
        assert isinstance(command, wire.CancelBulk)
        found = self._going_on(command.operation)
        if isinstance(found, Rejection):
            return found
        self._end(command.operation, Operation(found.sent, BulkOutcome.CANCELLED), received, out)
        return None

    def _going_on(self, operation: str) -> Operation | Rejection:
        found = self._all.get(operation)
        if found is None:
            return Rejection("unknown_operation", f"there is no bulk operation {operation} in this lane")
        if found.outcome is not None:
            return Rejection("ended", f"bulk operation {operation} ended: {found.outcome}")
        return found

    def _end(self, operation: str, ended: Operation, received: wire.Received, out: LaneOutput) -> None:
        assert ended.outcome is not None
        command = received.command
        assert isinstance(command, wire.Control)
        event = wire.BulkEnded(
            operation=operation,
            by=command.by,
            reason=command.reason,
            outcome=ended.outcome,
            sent=ended.sent,
        )
        out.events.append((operation, "bulk.ended", f"{operation}/ended", event, received.id, None))
        self._keep(operation, ended, out)
        for one in forgotten(self._all):
            del self._all[one]
            out.state[BULK_KEY + one] = None

    def _keep(self, operation: str, record: Operation, out: LaneOutput) -> None:
        self._all[operation] = record
        out.state[BULK_KEY + operation] = record
