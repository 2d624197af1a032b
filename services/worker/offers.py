"""How many jobs a worker offers to hold for each of its lanes.

Every lane is offered all slots, and the prefetch, at once: which lane has work is not known, and an idle
slot is worse than a job that waits. A job that waited too long goes back, so that another worker can have
it, and its lane is *lowered*: it is offered what it runs and could start now, and as much again to wait as it
started within the last such time, since so many will not wait too long. So jobs do not go back and forth.

A lane that comes after a lowered one is asked to leave one slot: the next slot that gets free is not filled
from the lane behind before the one in front had its chance, and the order of the queues holds though the
lanes do not know of each other. A lowered lane is raised once a slot was free for that time: then nobody
in front wanted it.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LaneLoad:
    """One lane as the worker sees it now; jobs whose end is reported do not count, even if they go on."""

    running: int = 0
    waiting: int = 0
    started_lately: int = 0
    is_lowered: bool = False


def offers(capacity: int, prefetch: int, loads: Sequence[LaneLoad]) -> list[int]:
    """Slots to announce to each lane, given in the order of the worker's queues.

    `capacity` is the number of slots that are not blocked by runs nobody waits for any more.
    """
    free = max(0, capacity - sum(load.running + load.waiting for load in loads))
    full = capacity + prefetch if capacity > 0 else 0
    offered: list[int] = []
    is_behind = False
    for load in loads:
        slots = load.running + free
        if is_behind:
            offered.append(min(full, max(0, slots - 1)))
        elif load.is_lowered:
            offered.append(min(full, slots + load.started_lately))
        else:
            offered.append(full)
        is_behind = is_behind or load.is_lowered
    return offered
