"""The commands of recurring jobs: the occurrence decides the job's id, so it is created once, however often sent."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from joblog.streams.contract import wire
from joblog.streams.contract.codec import VALUE_BYTES_MAX, encode
from joblog.streams.contract.ids import hashed_job_id, lane_of_job, lane_of_queue, lane_of_shard
from joblog.streams.contract.recurring import (
    PARAMETER_CAUSE,
    PARAMETER_ID,
    PARAMETER_TIME,
    Cause,
    Definition,
)
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.shards import shards_of
from joblog.streams.contract.timestamps import format_time, time_ms
from joblog.streams.errors import InvalidData

SOURCE = "/joblog/recurring"


class Installation(NamedTuple):
    """The lanes of an installation, and those of each queue that has several."""

    lanes: int
    shards: Mapping[str, int]
    shards_before: Mapping[str, int]


class Command(NamedTuple):
    """A record of the topic `commands`: its key is the job's id, its partition the job's lane."""

    job_id: str
    lane: int
    value: bytes


def partition_of(recurring_id: str, lanes: int) -> int:
    """The partition of `recurring` that has the records of this id: what Kafka's partitioner gives for it."""
    return lane_of_queue(recurring_id, lanes)


def job_of(definition: Definition, occurrence: datetime, where: Installation) -> str:
    """The id of the job of an occurrence."""
    key = f"{definition.id} {format_time(time_ms(occurrence))}"
    shards = shards_of(definition.queue, where.shards, where.shards_before)
    lane = lane_of_shard(definition.queue, where.lanes, shards.of_key(key))
    return hashed_job_id(lane, "recurring", key)


def parameters_of(definition: Definition, occurrence: datetime, cause: Cause) -> dict[str, Any]:
    """The parameters of a job: those of its definition, and those that say where it comes from."""
    time = format_time(time_ms(occurrence))
    return {**definition.parameters, PARAMETER_ID: definition.id, PARAMETER_TIME: time, PARAMETER_CAUSE: str(cause)}


def create_command(
    definition: Definition, occurrence: datetime, cause: Cause, now: datetime, where: Installation
) -> Command:
    """The command that creates the job of an occurrence; InvalidData if no elector would read it for its size.

    Who sends it again after a restart may think of another cause; the job is the same, and keeps the first one.
    """
    job_id = job_of(definition, occurrence, where)
    parameters = parameters_of(definition, occurrence, cause)
    retry = definition.retry
    command = wire.CreateJob(
        definition.task,
        _raw(list(definition.args)),
        _raw(definition.kwargs),
        definition.queue,
        job_id,
        priority=definition.priority,
        retry=None if retry is None else msgspec.convert(retry.model_dump(mode="json"), Retry),
        timeout_s=definition.timeout_s,
        parameters={name: _raw(value) for name, value in parameters.items()},
    )
    made = _command("job.create", job_id, now, command)
    if len(made.value) > VALUE_BYTES_MAX:
        raise InvalidData(
            f"a job of {definition.id} would be a command of {len(made.value)} bytes, more than the "
            f"{VALUE_BYTES_MAX} of any command: pass a reference to large data instead"
        )
    return made


def delete_command(job_id: str, definition: Definition, now: datetime) -> Command:
    """The command that deletes the job before, which the next one replaces."""
    reason = f"replaced by the next job of {definition.id}"
    return _command("job.delete", job_id, now, wire.DeleteJob(job_id=job_id, reason=reason))


def _command(kind: str, job_id: str, now: datetime, command: wire.CreateJob | wire.DeleteJob) -> Command:
    time = format_time(time_ms(now))
    event_id = job_id if kind == "job.create" else f"{job_id} {time}"
    value = encode(
        wire.CloudEvent("1.0", event_id, SOURCE, kind, job_id, time, "application/json", None, None, command)
    )
    return Command(job_id, lane_of_job(job_id), value)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
