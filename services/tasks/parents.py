"""How the parents of a continuation ended, as its run reads it in its JobContext."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from joblog.streams.contract import wire
from joblog.streams.contract.relations import PARENT_PARAMETER
from joblog.streams.contract.states import FINAL_STATES, State


class ParentEnd(msgspec.Struct, frozen=True):
    """How one parent ended.

    - state: None if nobody knows: the parent was never created, or ended too long ago.
    - result: what it returned, as JSON can express it. exception: why it failed, if it Failed.
    - omitted: why result and exception are left out although there may be some, such as a result beyond 64 KB.
    """

    job_id: str
    state: State | None
    result: Any = None
    exception: wire.JobException | None = None
    omitted: str | None = None


class _Outcome(msgspec.Struct):
    state: State | None
    result: Any = None
    exception: wire.JobException | None = None
    omitted: str | None = None


_outcome: Final = msgspec.json.Decoder(_Outcome).decode
_parameters: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def ends_of(parameters: bytes | msgspec.Raw) -> Mapping[str, ParentEnd]:
    """The parents that have ended, by id, of a job with these parameters."""
    ends = {}
    for name, value in _parameters(parameters).items():
        if name.startswith(PARENT_PARAMETER):
            told, parent = _outcome(value), name.removeprefix(PARENT_PARAMETER)
            if told.state is not None and told.state not in FINAL_STATES:
                continue  # it was requeued
            ends[parent] = ParentEnd(parent, told.state, told.result, told.exception, told.omitted)
    return ends
