"""The usual trace, seen at once: one life, in its lane, in order, each run ended by whoever had it. Pure.

Nearly all jobs are so, and to look at their steps once costs a tenth of all the looks that an unusual one gets. A
trace that is regular has no finding of `audit` and no row of `gaps`, and its history and ends are those given here.
"""

from typing import Final, NamedTuple

from joblog.projections.replay.verification.compare import TYPES_OF_ENDS
from joblog.projections.replay.verification.trace import (
    BEGINS,
    COMMANDED,
    KINDS,
    NO_TRANSITIONS,
    TRAVERSED,
    Trace,
    unpacked,
)
from joblog.streams.contract.states import State

_PROCESSING: Final = KINDS.index("job.processing")
#: Events after which the job's state is as before.
_NOTED: Final = frozenset(KINDS.index(kind) for kind in NO_TRANSITIONS)
_RUN_ENDS: Final = frozenset(KINDS.index(kind) for kind in ("job.succeeded", "job.failed"))
_ENDS: Final = {KINDS.index(kind): state for kind, state in TYPES_OF_ENDS.items()}


class Regular(NamedTuple):
    """Of a regular trace: how many events it has, the sum of their digests, and its ends: lane, hour and state."""

    events: int
    digests: int
    ends: tuple[tuple[int, int, State], ...]


def regular(trace: Trace) -> Regular | None:
    """What a regular trace says; None for one that has to be looked at in full."""
    home = (trace.key[6] & 15) << 8 | trace.key[7]
    count = digests = at = open_lease = 0
    is_final = False
    ends: tuple[tuple[int, int, State], ...] = ()
    for lane, offset, version, kind, flags, lease, _twin, hour, digest in unpacked(trace.steps):
        count += 1
        if version != count or lane != home or (count > 1 and (offset <= at or flags & BEGINS)):
            return None
        if is_final and not flags & COMMANDED:
            return None
        at, digests = offset, digests + digest
        if kind in _NOTED:
            continue
        if kind == _PROCESSING:
            if open_lease:
                return None
            open_lease = lease
        else:
            if kind in _RUN_ENDS and lease and lease != open_lease:
                return None
            open_lease = 0
        is_final = kind in _ENDS and not flags & TRAVERSED
        if is_final:
            ends = (*ends, (lane, hour, _ENDS[kind]))
    return Regular(count, digests, ends)
