"""The history of a job as bytes, for files that a stopped what-if goes on from: the messages in it stay JSON."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from joblog.streams.contract import wire
from joblog.streams.contract.retry import Retry
from joblog.streams.contract.states import State
from joblog.streams.lane.job import Job
from joblog.streams.lane.transitions import Expired, Lost, ParentNoted
from joblog.streams.replay.history import Cancelled, End, History, Outside, Run
from msgspec import Struct, json, msgpack

#: What a step of a history may hold, by name.
_KINDS: Final[Mapping[str, type]] = {
    kind.__name__: kind
    for kind in (
        wire.RunSucceeded,
        wire.RunFailed,
        wire.RunReleased,
        Lost,
        Expired,
        wire.ParentEnded,
        wire.ParentRequeued,
        ParentNoted,
        Cancelled,
        wire.DeleteJob,
        wire.RequeueJob,
        wire.RescheduleJob,
    )
}
_decoders: Final[Mapping[str, Callable[[bytes], Any]]] = {
    name: json.Decoder(kind).decode for name, kind in _KINDS.items()
}
_create: Final = json.Decoder(wire.CreateJob).decode


class _Step(Struct, array_like=True):
    """A run (without `before`), or what came from outside."""

    ms: int
    more_ms: int = 0
    kind: str = ""
    what: bytes = b""
    before: State | None = None


class _Packed(Struct, array_like=True):
    create: bytes
    spec: bytes
    created_ms: int
    job: Job
    steps: list[_Step]
    starts: list[int]
    ends: list[End]
    policy: Retry | None
    retries: int
    waited_ms: int
    is_replaced: bool
    ready_ms: int


_encode: Final = msgpack.Encoder().encode
_decode: Final = msgpack.Decoder(_Packed).decode


def packed(history: History) -> bytes:
    """A history as bytes."""
    one = history
    steps = [_step(step) for step in one.steps]
    return _encode(
        _Packed(
            json.encode(one.create), one.spec, one.created_ms, one.job, steps, one.starts, one.ends, one.policy,
            one.retries, one.waited_ms, one.is_replaced, one.ready_ms,
        )
    )  # fmt: skip


def unpacked(data: bytes) -> History:
    """The history; raises msgspec.MsgspecError."""
    one = _decode(data)
    return History(
        create=_create(one.create),
        spec=one.spec,
        created_ms=one.created_ms,
        job=one.job,
        steps=[_unpacked_step(step) for step in one.steps],
        starts=one.starts,
        policy=one.policy,
        retries=one.retries,
        waited_ms=one.waited_ms,
        is_replaced=one.is_replaced,
        ready_ms=one.ready_ms,
        ends=one.ends,
    )


def _step(step: Run | Outside) -> _Step:
    if isinstance(step, Run):
        return _Step(step.waited_ms, step.lasted_ms, *_named(step.outcome))
    return _Step(step.at_ms, step.due_ms, *_named(step.what), step.before)


def _unpacked_step(step: _Step) -> Run | Outside:
    what = _decoders[step.kind](step.what) if step.kind else None
    if step.before is None:
        return Run(step.ms, step.more_ms, what)
    return Outside(step.ms, what, step.before, step.more_ms)


def _named(what: Any) -> tuple[str, bytes]:
    return ("", b"") if what is None else (type(what).__name__, json.encode(what))
