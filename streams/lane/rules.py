"""The settings that lanes decide by."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from joblog.streams.contract.ids import lane_of_queue


@dataclass(frozen=True, slots=True)
class LaneRules:
    """The settings that a lane decides by; all times in milliseconds.

    - lease_ms: a worker that did not renew for this long is lost.
    - overdue_ms: a scheduled job that is this late is elected without its timer.
    - pending_ms: how long a continuation waits for a parent that is not created yet.
    - alive_ms: how often an event is written for a worker that renews.
    - failed_kept, failed_ms: how many Failed jobs stay at hand for a requeue, and for how long.
    - remembered: how many ended jobs a lane remembers.
    - shards: over how many lanes a queue is spread; one for those not named.
    """

    lease_ms: int = 15_000
    overdue_ms: int = 5_000
    pending_ms: int = 60_000
    alive_ms: int = 60_000
    failed_kept: int = 10_000
    failed_ms: int = 30 * 86_400_000
    remembered: int = 30_000
    shards: Mapping[str, int] = field(default_factory=dict)

    def has_queue(self, queue: str, lane: int, lanes: int) -> bool:
        """Whether the queue, or one of its shards, lives in this lane."""
        return (lane - lane_of_queue(queue, lanes)) % lanes < self.shards.get(queue, 1)
