"""The commands of a redrive: a job put back as it is, or a new one in its place with other arguments. Pure.

A requeue keeps a job's arguments, since the log would otherwise say two things of one job. So a mapping makes a new
job: its id follows from those of the redrive and of the old job, which its parameters `redrive` and `redriveOf` name.
The old job stays as it is.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from joblog.projections.monitor.models import Job
from joblog.services.client.changes import change_record
from joblog.services.client.json_values import encode_json
from joblog.services.client.templates import CommandRecord, Rules
from joblog.streams.contract import commands, wire
from joblog.streams.contract.cloudevents import explained
from joblog.streams.contract.codec import VALUE_BYTES_MAX, encode
from joblog.streams.contract.ids import hashed_job_id, lane_of_job
from joblog.streams.contract.relations import PARENT_PARAMETER
from joblog.streams.contract.states import FINAL_STATES
from joblog.streams.contract.timestamps import format_time
from joblog.streams.errors import InvalidData
from joblog.streams.replay.lineage import Fate, command_id
from msgspec import Raw
from pydantic import ValidationError

#: What a mapping gives: positional and named arguments.
Arguments = tuple[list[Any], dict[str, Any]]

_CARRIED: Final = ("priority", "retry", "timeout_s", "unique")


def put_back(job: Job, snapshot: Mapping[str, Any] | None, redrive: str, reason: str, rules: Rules) -> CommandRecord:
    """Requeue this job if it is still as it was found; an ended one takes its snapshot along."""
    fields = {
        "expected_state": job.state,
        "expected_version": job.version,
        "reason": f"{reason} (redrive {redrive})",
        "snapshot": snapshot if job.state in FINAL_STATES else None,
    }
    return change_record(commands.RequeueJob, job.id, fields, rules, command_id(redrive, job.id))


def made_anew(
    job: Job, snapshot: Mapping[str, Any], arguments: Arguments, redrive: str, rules: Rules
) -> CommandRecord:
    """Create a job like this one with other arguments."""
    spec = snapshot["spec"]
    job_id = hashed_job_id(lane_of_job(job.id), "redrive", redrive, job.id)
    own = {name: value for name, value in snapshot["parameters"].items() if not name.startswith(PARENT_PARAMETER)}
    parameters = {**(spec.get("parameters") or {}), **own, "redrive": redrive, "redriveOf": job.id}
    carried = {name: spec[name] for name in _CARRIED if spec.get(name) is not None}
    if snapshot.get("priority"):  # as it was changed since
        carried["priority"] = snapshot["priority"]
    args, kwargs = arguments
    data = {"task": job.task, "queue": job.queue, "job_id": job_id, "args": args, "kwargs": kwargs, **carried}
    try:
        model = commands.CreateJob.model_validate({**data, "parameters": parameters})
    except ValidationError as exc:
        raise InvalidData(f"the mapping of job {job.id}: {explained(exc)}") from exc
    dumped = model.model_dump(mode="python", exclude={"type"}, exclude_unset=True)
    return _record(job_id, command_id(redrive, job.id), "job.create", encode_json(dumped, "arguments"), rules)


def taken_back(job_id: str, fate: Fate, redrive: str, rules: Rules) -> CommandRecord:
    """Delete a job that was put back, if it has not started meanwhile."""
    fields = {
        "expected_state": fate.state,
        "expected_version": fate.version,
        "reason": f"undo of redrive {redrive}",
    }
    return change_record(commands.DeleteJob, job_id, fields, rules, command_id(redrive, job_id, undo=True))


def _record(job_id: str, command: str, kind: str, data: bytes, rules: Rules) -> CommandRecord:
    now = format_time(time.time_ns() // 1_000_000)
    event = wire.CloudEvent("1.0", command, rules.source, kind, job_id, now, "application/json", data=Raw(data))
    value = encode(event)
    if len(value) > VALUE_BYTES_MAX:
        raise InvalidData(f"the command has {len(value)} bytes, more than the {VALUE_BYTES_MAX} of any command")
    return CommandRecord(job_id, value)
