"""Create commands, checked once and filled in for each job: the part of the client that many jobs pass through."""

import random
import re
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

import msgspec
from joblog.services.client.json_values import encode_json
from joblog.services.client.options import Call, JobOptions
from joblog.streams.contract import commands, wire
from joblog.streams.contract.cloudevents import check_text, explained
from joblog.streams.contract.codec import VALUE_BYTES_MAX, encode
from joblog.streams.contract.fields import JOB_ID_PATTERN, Key
from joblog.streams.contract.ids import hashed_job_id, lane_of_job, lane_of_shard, new_job_id
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.shards import shard_of_lane, shards_of
from joblog.streams.contract.timestamps import format_time
from joblog.streams.errors import InvalidData
from pydantic import TypeAdapter, ValidationError

_KEYS: Final = TypeAdapter[str](Key)


class CommandRecord(NamedTuple):
    """A command that is ready to be sent; the id names the lane."""

    job_id: str
    value: bytes


class Rules(NamedTuple):
    """What a client knows of its installation; `source` is the CloudEvents source of its commands."""

    lanes: int
    shards: Mapping[str, int]
    source: str
    args_bytes_max: int
    shards_before: Mapping[str, int] = {}


class CreateTemplate:
    """All of a create command but its arguments and its id."""

    def __init__(self, task: str, options: JobOptions, rules: Rules) -> None:
        """Raises InvalidData for options that the contract does not allow."""
        model = _checked(task, options)
        if model.parent is not None:
            check_job_id(model.parent.job_id, rules.lanes)
        self._rules = rules
        self._model = model
        self._shards = shards_of(model.queue, rules.shards, rules.shards_before)
        self._traceparent = options.traceparent
        self._run_at = model.run_at
        self._parent = wire.Parent(model.parent.job_id, model.parent.on) if model.parent else None
        self._retry = msgspec.convert(model.retry.model_dump(mode="json"), Retry) if model.retry else None
        self._parameters = {
            name: msgspec.Raw(encode_json(value, f"parameter {name}")) for name, value in model.parameters.items()
        }

    def fill(self, call: Call) -> CommandRecord:
        """The command for one call; raises InvalidData for arguments that cannot be sent."""
        args = encode_json(call.args if isinstance(call.args, list | tuple) else _listed(call.args), "args")
        kwargs = encode_json(dict(call.kwargs), "kwargs") if call.kwargs else b"{}"
        if len(args) + len(kwargs) > self._rules.args_bytes_max:
            raise InvalidData(
                f"the arguments of {self._model.task} have {len(args) + len(kwargs)} bytes as JSON, more than "
                f"{self._rules.args_bytes_max} (client.args_bytes_max): pass a reference to large data instead"
            )
        now_ms = time.time_ns() // 1_000_000
        key = _first(call.idempotency_key, self._model.idempotency_key)
        job_id = self._job_id(_first(call.job_id, self._model.job_id), key, now_ms)
        value = encode(
            wire.CloudEvent(
                "1.0",
                job_id,
                self._rules.source,
                "job.create",
                job_id,
                format_time(now_ms),
                "application/json",
                None,
                self._traceparent,
                self._command(msgspec.Raw(args), msgspec.Raw(kwargs), job_id, key),
            )
        )
        if len(value) > VALUE_BYTES_MAX:
            raise InvalidData(f"the command has {len(value)} bytes, more than the {VALUE_BYTES_MAX} of any command")
        return CommandRecord(job_id, value)

    def _command(self, args: msgspec.Raw, kwargs: msgspec.Raw, job_id: str, key: str | None) -> wire.CreateJob:
        model = self._model
        return wire.CreateJob(
            model.task,
            args,
            kwargs,
            model.queue,
            job_id,
            key,
            model.priority,
            self._run_at,
            self._parent,
            self._retry,
            model.timeout_s,
            self._parameters,
        )

    def _job_id(self, given: str | None, key: str | None, now_ms: int) -> str:
        """The id of a job tells its lane, so it is made where the queue, the key or the caller say so."""
        queue, lanes = self._model.queue, self._rules.lanes
        if given is not None:
            return self._held_to_its_queue(given)
        if key is None:
            shard = random.randrange(self._shards.written) if self._shards.written > 1 else 0
            return new_job_id(lane_of_shard(queue, lanes, shard), now_ms)
        _check_key(key)
        return hashed_job_id(lane_of_shard(queue, lanes, self._shards.of_key(key)), queue, key)

    def _held_to_its_queue(self, job_id: str) -> str:
        check_job_id(job_id, self._rules.lanes)
        queue, lane = self._model.queue, lane_of_job(job_id)
        if shard_of_lane(queue, lane, self._rules.lanes) >= self._shards.served:
            raise InvalidData(f"job id {job_id} names lane {lane}, where queue {queue} does not live")
        return job_id


def _first(call: str | None, options: str | None) -> str | None:
    return options if call is None else call


def _listed(args: Sequence[Any]) -> list[Any]:
    """The arguments of any other sequence; a lone one would come apart into its characters, numbers or keys."""
    if isinstance(args, str | bytes | bytearray | memoryview | Mapping):
        raise InvalidData(
            f"args is a {type(args).__name__}: a call is (args, kwargs) with the positional arguments in a list or "
            'tuple, such as (("a.png",), {"width": 640})'
        )
    return list(args)


def check_job_id(job_id: str, lanes: int) -> None:
    """Raise InvalidData unless this can be the id of a job in one of so many lanes."""
    if not re.fullmatch(JOB_ID_PATTERN, job_id):
        raise InvalidData(f"{job_id!r:.60} is not a job id")
    if lane_of_job(job_id) >= lanes:
        raise InvalidData(f"job id {job_id} names lane {lane_of_job(job_id)}, but there are {lanes} lanes")


def _checked(task: str, options: JobOptions) -> commands.CreateJob:
    timeout = options.timeout
    fields: dict[str, Any] = {
        "task": task,
        "queue": "default" if options.queue is None else options.queue,
        "priority": options.priority,
        "retry": options.retry,
        "timeout_s": timeout / timedelta(seconds=1) if isinstance(timeout, timedelta) else timeout,
        "parameters": dict(options.parameters),
        "idempotency_key": options.idempotency_key,
        "job_id": options.job_id,
        "run_at": options.run_at,
        "parent": None if options.parent is None else {"job_id": options.parent, "on": options.on},
    }
    try:
        model = commands.CreateJob.model_validate(fields)
    except ValidationError as exc:
        raise InvalidData(explained(exc)) from exc
    check_text([model.idempotency_key, options.traceparent, *model.parameters], "options")
    return model


def _check_key(key: str) -> None:
    try:
        _KEYS.validate_python(key)
    except ValidationError as exc:
        raise InvalidData(f"idempotency_key: {explained(exc)}") from exc
    check_text(key, "idempotency_key")
