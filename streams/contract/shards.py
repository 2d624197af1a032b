"""Over how many lanes a queue is spread, also while that number changes, and which of them a job goes to.

A queue with n shards lives in n neighbouring lanes. Two settings describe it: over how many lanes new jobs are spread
(`queue_shards`), and, after a change, over how many they were spread before (`queue_shards_before`):

- served: workers announce themselves to the lanes of both, and keys are known there. Jobs may be in any other lane,
  too: features/queues_elsewhere.py;
- written: clients create jobs in the lanes of the first only, so that the others run empty;
- keyed: a job with an idempotency key must always get the same lane, because its id names the lane. Such jobs use
  the smaller of both numbers and a consistent hash. So no key moves when the number grows, for as long as the second
  setting stays; and when it shrinks, only the keys in the lanes that are given up move.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from joblog.streams.contract.ids import lane_of_queue, murmur2

_MASK: Final = (1 << 64) - 1


class Shards(NamedTuple):
    """The shards of one queue: those that new jobs are spread over, and those that were used before."""

    written: int = 1
    before: int | None = None

    @property
    def served(self) -> int:
        """How many neighbouring lanes may hold jobs of the queue."""
        return max(self.written, self.before or 1)

    def of_key(self, key: str) -> int:
        """The shard of a job with this idempotency key."""
        keyed = min(self.written, self.before or self.written)
        return jump_hash(murmur2(key.encode()) << 32 | murmur2(b"\x00" + key.encode()), keyed) if keyed > 1 else 0


def shards_of(queue: str, written: Mapping[str, int], before: Mapping[str, int]) -> Shards:
    """The shards of a queue, by the two settings; one for a queue that they do not name."""
    return Shards(written.get(queue, 1), before.get(queue))


def served_shards(written: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """How many lanes are served of each queue that the settings name."""
    return {queue: shards_of(queue, written, before).served for queue in {**written, **before}}


def shard_of_lane(queue: str, lane: int, lanes: int) -> int:
    """The (0-based) shard of the queue that this lane is; the queue lives there if it has more shards than that."""
    return (lane - lane_of_queue(queue, lanes)) % lanes


def jump_hash(number: int, buckets: int) -> int:
    """A bucket for a 64-bit number; of n + 1 buckets the last one gets 1/(n + 1) of the numbers, and no other moves.

    Jump consistent hash: Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm" (arXiv:1406.2294).
    """
    bucket, following = 0, 0
    while following < buckets:
        bucket = following
        number = (number * 2862933555777941757 + 1) & _MASK
        following = int((bucket + 1) * ((1 << 31) / ((number >> 33) + 1)))
    return bucket
