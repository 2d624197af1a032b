"""The commands of a bulk operation, and what of it is in the topic `commands` already. Pure.

A command's id has the ids of operation and job, and it names the version at which the job was found: so a job that
moved is left alone, and of a command that is sent twice the second is refused.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from joblog.projections.monitor.bulk import Found
from joblog.projections.monitor.models import BulkOperation
from joblog.services.client.changes import change_record
from joblog.services.client.templates import CommandRecord, Rules
from joblog.streams.contract import commands
from joblog.streams.contract.controls import AdvanceBulk, BulkAction
from joblog.streams.contract.states import FINAL_STATES, State
from msgspec import DecodeError, Struct, json

_KINDS: Final[Mapping[BulkAction, type[commands.Change]]] = {
    BulkAction.REQUEUE: commands.RequeueJob,
    BulkAction.DELETE: commands.DeleteJob,
    BulkAction.MOVE: commands.MoveJob,
    BulkAction.SET_PRIORITY: commands.SetPriority,
}
#: Which ended jobs can be revived by their snapshot.
_REVIVED: Final[Mapping[BulkAction, frozenset[State]]] = {
    BulkAction.REQUEUE: FINAL_STATES,
    BulkAction.DELETE: frozenset({State.FAILED}),
}
_ADVANCE: Final = AdvanceBulk.model_fields["type"].default


class _Data(Struct):
    before: int = 0
    sent: int = 0
    cursor: str | None = None


class _Command(Struct):
    id: str
    type: str
    data: _Data


_command: Final = json.Decoder(_Command).decode


def command_record(operation: BulkOperation, job: Found, rules: Rules) -> CommandRecord:
    """The command for a job; InvalidData for one that is too large."""
    fields: dict[str, Any] = {
        "expected_state": job.state,
        "expected_version": job.version,
        "reason": _reason(operation),
        "queue": operation.queue,
        "priority": operation.priority,
    }
    if job.state in _REVIVED.get(operation.action, frozenset()):
        fields["snapshot"] = job.snapshot
    return change_record(_KINDS[operation.action], job.id, fields, rules, f"{_mark(operation)}{job.id}")


def _reason(operation: BulkOperation) -> str:
    """What the job's history says: why, which operation, and who."""
    by = f" by {operation.started_by}" if operation.started_by else ""
    return " ".join(filter(None, (operation.reason, f"(bulk {operation.id}{by})")))[:10_000]


def _mark(operation: BulkOperation) -> str:
    """How the ids of its commands begin; the monitor counts the rejected ones by it."""
    return f"bulk/{operation.id}/"


class Sent(Struct):
    """How far an operation is by its commands: those counted, up to `cursor`, and the jobs of all others."""

    count: int = 0
    cursor: str | None = None
    jobs: set[str] = set()


def sent_of(operation: BulkOperation, values: Iterable[bytes]) -> Sent:
    """What a part of the topic `commands`, with those of the operation's lane in their order, has of it."""
    found, mark, own = Sent(), _mark(operation), operation.id.encode()
    for value in values:
        if own not in value:
            continue
        try:
            command = _command(value)
        except DecodeError:
            continue  # it names the operation, and is none of its commands
        if command.id.startswith(mark):
            found.jobs.add(command.id.removeprefix(mark))
        elif command.type == _ADVANCE and command.data.before == found.count:
            found.count, found.cursor = command.data.sent, command.data.cursor or found.cursor
    if found.cursor is not None:
        found.jobs = {job for job in found.jobs if job > found.cursor}
    return found
