"""The settings that lanes decide by."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from joblog.streams.contract.ids import lane_of_shard
from joblog.streams.contract.shards import shard_of_lane, shards_of


@dataclass(frozen=True, slots=True)
class LaneRules:
    """The settings that a lane decides by; all times in milliseconds.

    - lease_ms: a worker that did not renew for this long is lost.
    - overdue_ms: a scheduled job that is this late is elected without its timer.
    - pending_ms: how long a continuation waits for a parent that is not created yet.
    - alive_ms: how often an event is written for a worker that renews.
    - failed_kept, failed_ms: how many Failed jobs stay at hand for a requeue, and for how long.
    - batches_kept, batches_ms: how many batches that ended a lane keeps, and for how long; those with Failed jobs as
      long as these.
    - remembered: how many ended jobs a lane remembers.
    - shards, shards_before: over how many lanes each queue is, and was, spread (contract/shards.py); one for those
      not named.
    """

    lease_ms: int = 15_000
    overdue_ms: int = 5_000
    pending_ms: int = 60_000
    alive_ms: int = 60_000
    failed_kept: int = 10_000
    failed_ms: int = 30 * 86_400_000
    batches_kept: int = 10_000
    batches_ms: int = 7 * 86_400_000
    remembered: int = 30_000
    shards: Mapping[str, int] = field(default_factory=dict)
    shards_before: Mapping[str, int] = field(default_factory=dict)

    def has_queue(self, queue: str, lane: int, lanes: int) -> bool:
        """Whether the queue, or one of its shards, lives in this lane, or did before the number was changed."""
        shard = shard_of_lane(queue, lane, lanes)
        return shard < self.shards.get(queue, 1) or shard < self.shards_before.get(queue, 1)

    def lane_of_key(self, queue: str, key: str, lanes: int) -> int:
        """The lane of a job with this idempotency key."""
        return lane_of_shard(queue, lanes, shards_of(queue, self.shards, self.shards_before).of_key(key))
