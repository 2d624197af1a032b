"""Commands on existing jobs, checked and encoded."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from joblog.services.client.json_values import encode_json
from joblog.services.client.templates import CommandRecord, Rules, check_job_id
from joblog.streams.contract import commands, wire
from joblog.streams.contract.cloudevents import explained
from joblog.streams.contract.codec import VALUE_BYTES_MAX, encode
from joblog.streams.contract.controls import Control
from joblog.streams.contract.fields import is_queue, wrong_queue
from joblog.streams.contract.timestamps import format_time
from joblog.streams.errors import InvalidData
from msgspec import Raw, json
from pydantic import BaseModel, ValidationError


def change_record(
    kind: type[commands.Change],
    job_id: str,
    fields: Mapping[str, Any],
    rules: Rules,
    command_id: str | None = None,
) -> CommandRecord:
    """The command of this kind; raises InvalidData for what the contract does not allow.

    - command_id: what the events that it leads to name as their cause; a random one if None.
    """
    return _placed(kind, job_id, {**fields, "job_id": job_id}, rules, command_id)


def batch_record(
    kind: type[commands.CreateBatch | commands.AttachToBatch | commands.MarkBatch | commands.CancelBatch],
    batch_id: str,
    fields: Mapping[str, Any],
    rules: Rules,
) -> CommandRecord:
    """The command on a batch; it goes into the batch's lane, a mark into the lane that it names."""
    return _placed(kind, fields.get("mark_id", batch_id), {**fields, "batch_id": batch_id}, rules, None)


def _placed(
    kind: type[BaseModel], job_id: str, fields: Mapping[str, Any], rules: Rules, command_id: str | None
) -> CommandRecord:
    """A command for the lane that an id names."""
    check_job_id(job_id, rules.lanes)
    given = {name: value for name, value in fields.items() if value is not None or name == "value"}
    if "value" in given:
        given["value"] = json.decode(encode_json(given["value"], "value"))
    return _record(kind, given, rules, command_id, job_id)


def control_record(
    kind: type[Control],
    fields: Mapping[str, Any],
    rules: Rules,
    subject: str,
    lane: int,
    command_id: str | None = None,
) -> CommandRecord:
    """A command that names no job, for one lane; `subject` is the queue, worker or operation. Raises InvalidData."""
    given = {name: value for name, value in fields.items() if value is not None}
    return _record(kind, given, rules, command_id, subject)._replace(lane=lane)


def check_move(job_id: str, queue: str, rules: Rules) -> None:
    """InvalidData if the id or the queue is none."""
    check_job_id(job_id, rules.lanes)
    if not is_queue(queue):
        raise InvalidData(wrong_queue(queue))


def _record(
    kind: type[BaseModel],
    fields: Mapping[str, Any],
    rules: Rules,
    command_id: str | None,
    subject: str,
) -> CommandRecord:
    try:
        model = kind.model_validate(fields)
    except ValidationError as exc:
        raise InvalidData(explained(exc)) from exc
    data = model.model_dump(mode="python", exclude={"type"}, exclude_unset=True)
    value = encode(
        wire.CloudEvent(
            "1.0",
            command_id or str(uuid.uuid4()),
            rules.source,
            kind.model_fields["type"].default,
            subject,
            format_time(time.time_ns() // 1_000_000),
            "application/json",
            data=Raw(encode_json(data, kind.__name__, levels_around=0)),
        )
    )
    if len(value) > VALUE_BYTES_MAX:
        raise InvalidData(f"the command has {len(value)} bytes, more than the {VALUE_BYTES_MAX} of any command")
    return CommandRecord(subject, value)
