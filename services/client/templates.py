"""Create commands, checked once and filled in for each job: the part of the client that many jobs pass through."""

import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from secrets import token_bytes, token_hex
from struct import iter_unpack
from typing import Any, Final, NamedTuple

import msgspec
from joblog.services.client.json_values import encode_json
from joblog.services.client.options import Call, JobOptions
from joblog.streams.contract import commands, wire
from joblog.streams.contract.cloudevents import check_text, explained
from joblog.streams.contract.codec import VALUE_BYTES_MAX, encode
from joblog.streams.contract.fields import JOB_ID_PATTERN, Key
from joblog.streams.contract.ids import hashed_job_id, lane_of_job, lane_of_shard, new_job_id
from joblog.streams.contract.relations import ParentKind
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.shards import shard_of_lane, shards_of
from joblog.streams.contract.timestamps import format_time
from joblog.streams.errors import InvalidData
from pydantic import TypeAdapter, ValidationError

#: The fields of features that most jobs do not use.
_EXTRAS: Final = {"parents", "limits", "unique", "batch", "deadline", "expires_in_s"}
_KEYS: Final = TypeAdapter[str](Key)
#: Random numbers that are asked of the system at once, for a call with many jobs.
NUMBERS_MAX: Final = 512


class CommandRecord(NamedTuple):
    """A command that is ready to be sent; the id names the lane, or else `lane` does, and the id is only a key."""

    job_id: str
    value: bytes
    lane: int | None = None


class Rules(NamedTuple):
    """What a client knows of its installation; `source` is the CloudEvents source of its commands.

    - spread: over how many lanes the jobs without keys of some queues are spread, in place of `shards`; it changes
      while the client lives (queue_settings.py).
    """

    lanes: int
    shards: Mapping[str, int]
    source: str
    args_bytes_max: int
    shards_before: Mapping[str, int] = {}
    spread: Mapping[str, int] = {}


class CreateTemplate:
    """All of a create command but its arguments and its id; belongs to one call of the client, in one thread."""

    def __init__(self, task: str, options: JobOptions, rules: Rules) -> None:
        """Raises InvalidData for options that the contract does not allow."""
        model = _checked(task, options)
        if model.parent is not None:
            check_job_id(model.parent.job_id, rules.lanes)
        if model.batch is not None:
            check_job_id(model.batch, rules.lanes)
        for parent in model.parents.job_ids if model.parents is not None else ():
            check_job_id(parent, rules.lanes)
        self._rules = rules
        self._model = model
        self._shards = shards_of(model.queue, rules.shards, rules.shards_before)
        written = rules.spread.get(model.queue, self._shards.written)
        shards = range(written) if model.unique is None else [self._shards.of_key(model.unique.key)]
        self._lanes = [lane_of_shard(model.queue, rules.lanes, shard) for shard in shards]
        self._traceparent = options.traceparent
        self._run_at = model.run_at
        self._parent = wire.Parent(model.parent.job_id, model.parent.on, model.parent.kind) if model.parent else None
        self._retry = msgspec.convert(model.retry.model_dump(mode="json"), Retry) if model.retry else None
        self._parameters = {
            name: msgspec.Raw(encode_json(value, f"parameter {name}", levels_around=2))
            for name, value in model.parameters.items()
        }
        self._extras = _extras(model)
        self._numbers: list[int] = []
        self._numbers_next = 1

    def fill(self, call: Call) -> CommandRecord:
        """The command for one call; raises InvalidData for arguments that cannot be sent."""
        args, kwargs = self._arguments(call)
        now_ms = time.time_ns() // 1_000_000
        key = _first(call.idempotency_key, self._model.idempotency_key)
        job_id = self._job_id(_first(call.job_id, self._model.job_id), key, now_ms)
        return self._record(job_id, self._encoded(args, kwargs, job_id, key, format_time(now_ms)))

    def fill_all(self, calls: Iterable[Call]) -> list[CommandRecord]:
        """The commands for many calls; raises InvalidData if the arguments of one cannot be sent.

        Commands with ids of their own differ in arguments, id and time only, so they are put together from the pieces
        of one that was encoded.
        """
        if self._model.job_id is not None or self._model.idempotency_key is not None:
            return [self.fill(call) for call in calls]
        before_id, before_subject, before_time, before_args, before_kwargs, before_job_id, end = self._pieces()
        records, before_ms, time_text = [], -1, b""
        for call in calls:
            if call.job_id is not None or call.idempotency_key is not None:
                records.append(self.fill(call))
                continue
            args, kwargs = self._arguments(call)
            now_ms = time.time_ns() // 1_000_000
            if now_ms != before_ms:  # many have one time
                before_ms, time_text = now_ms, format_time(now_ms).encode()
            job_id = self._new_id(now_ms)
            data = job_id.encode()
            value = b"".join(
                (
                    before_id, data, before_subject, data, before_time, time_text,
                    before_args, args, before_kwargs, kwargs, before_job_id, data, end,
                )
            )  # fmt: skip
            records.append(self._record(job_id, value))
        return records

    def _arguments(self, call: Call) -> tuple[bytes, bytes]:
        args = encode_json(call.args if isinstance(call.args, list | tuple) else _listed(call.args), "args")
        kwargs = encode_json(dict(call.kwargs), "kwargs") if call.kwargs else b"{}"
        if len(args) + len(kwargs) > self._rules.args_bytes_max:
            raise InvalidData(
                f"the arguments of {self._model.task} have {len(args) + len(kwargs)} bytes as JSON, more than "
                f"{self._rules.args_bytes_max} (client.args_bytes_max): pass a reference to large data instead"
            )
        return args, kwargs

    def _record(self, job_id: str, value: bytes) -> CommandRecord:
        if len(value) > VALUE_BYTES_MAX:
            raise InvalidData(f"the command has {len(value)} bytes, more than the {VALUE_BYTES_MAX} of any command")
        return CommandRecord(job_id, value)

    def _encoded(self, args: bytes, kwargs: bytes, job_id: str, key: str | None, time_text: str) -> bytes:
        model = self._model
        command = wire.CreateJob(
            model.task,
            msgspec.Raw(args),
            msgspec.Raw(kwargs),
            model.queue,
            job_id,
            key,
            model.priority,
            self._run_at,
            self._parent,
            self._retry,
            model.timeout_s,
            self._parameters,
            **self._extras,
        )
        return encode(
            wire.CloudEvent(
                "1.0",
                job_id,
                self._rules.source,
                "job.create",
                job_id,
                time_text,
                "application/json",
                None,
                self._traceparent,
                command,
            )
        )

    def _pieces(self) -> list[bytes]:
        """What stands before, between and behind the id, the subject, the time, args, kwargs and the job id."""
        mark = token_hex(16)  # random, so that nothing of the user's is taken for it
        raw = mark.encode()
        return self._encoded(raw, raw, mark, None, mark).split(raw)

    def _job_id(self, given: str | None, key: str | None, now_ms: int) -> str:
        """The id of a job tells its lane, so it is made where the queue, the key or the caller say so."""
        queue, lanes = self._model.queue, self._rules.lanes
        if given is not None:
            return self._held_to_its_key(given, key)
        if key is None:
            return self._new_id(now_ms)
        _check_key(key)
        shard = self._shards.of_key(key if self._model.unique is None else self._model.unique.key)
        return hashed_job_id(lane_of_shard(queue, lanes, shard), queue, key)

    def _new_id(self, now_ms: int) -> str:
        lanes = self._lanes
        lane = lanes[int(random.random() * len(lanes))] if len(lanes) > 1 else lanes[0]
        try:
            number = self._numbers.pop()
        except IndexError:
            number = self._refilled().pop()
        return new_job_id(lane, now_ms, number)

    def _refilled(self) -> list[int]:
        """More random numbers: asked of the system one by one they cost more than the rest of an id."""
        count = self._numbers_next
        self._numbers_next = min(2 * count, NUMBERS_MAX)
        data = token_bytes(8 * count)
        self._numbers.extend(number >> 2 for (number,) in iter_unpack("Q", data))
        return self._numbers

    def _held_to_its_key(self, job_id: str, key: str | None) -> str:
        check_job_id(job_id, self._rules.lanes)
        queue, lane = self._model.queue, lane_of_job(job_id)
        if key is not None and shard_of_lane(queue, lane, self._rules.lanes) >= self._shards.served:
            raise InvalidData(f"job id {job_id} names lane {lane}, where queue {queue} has no idempotency keys")
        if self._model.unique is not None and lane != self._lanes[0]:
            raise InvalidData(
                f"job id {job_id} names lane {lane}, but lane {self._lanes[0]} decides about unique key "
                f"{self._model.unique.key!r:.60}: leave the job id out"
            )
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
    fields: dict[str, Any] = {
        "task": task,
        "queue": "default" if options.queue is None else options.queue,
        "priority": options.priority,
        "retry": options.retry,
        "timeout_s": _seconds(options.timeout),
        "parameters": dict(options.parameters),
        "idempotency_key": options.idempotency_key,
        "job_id": options.job_id,
        "run_at": options.run_at,
        "parent": _parent(options),
        "parents": options.parents,
        "limits": tuple(options.limits),
        "unique": options.unique,
        "batch": options.batch,
        "deadline": options.deadline,
        "expires_in_s": _seconds(options.expires_in),
    }
    try:
        model = commands.CreateJob.model_validate(fields)
        if (problem := _never_runs(model)) is not None:
            raise InvalidData(problem)
    except ValidationError as exc:
        raise InvalidData(explained(exc)) from exc
    unique_key = model.unique.key if model.unique is not None else None
    check_text([model.idempotency_key, unique_key, options.traceparent, *model.parameters], "options")
    return model


def _never_runs(model: commands.CreateJob) -> str | None:
    """Why a job would be due only when its time is over; None if it would not."""
    if model.run_at is None:
        return None
    if model.deadline is not None and model.run_at >= model.deadline:
        return f"the job would never run: it is due at {model.run_at}, and its deadline is {model.deadline}"
    if model.expires_in_s is not None:
        wait_s = (model.run_at - datetime.now(UTC)).total_seconds()
        if wait_s >= model.expires_in_s:
            return (
                f"the job would never run: it is due in {wait_s:.0f} s, and expires {model.expires_in_s:g} s after "
                "its creation; expires_in counts from there"
            )
    return None


def _parent(options: JobOptions) -> dict[str, Any] | None:
    if options.after_batch is not None:
        return {"job_id": options.after_batch, "on": options.on, "kind": ParentKind.BATCH}
    return None if options.parent is None else {"job_id": options.parent, "on": options.on}


def _seconds(time: timedelta | float | None) -> float | None:
    return time / timedelta(seconds=1) if isinstance(time, timedelta) else time


def _extras(model: commands.CreateJob) -> dict[str, Any]:
    """The fields of a create command that most have not, as its struct has them."""
    given = model.model_dump(mode="json", include=_EXTRAS, exclude_defaults=True)
    if not given:
        return {}
    converted = msgspec.convert({"task": model.task, **given}, wire.CreateJob)
    return {name: getattr(converted, name) for name in given}


def _check_key(key: str) -> None:
    try:
        _KEYS.validate_python(key)
    except ValidationError as exc:
        raise InvalidData(f"idempotency_key: {explained(exc)}") from exc
    check_text(key, "idempotency_key")
