"""What a worker was told to be, checked; and which lanes its queues live in."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from socket import gethostname
from typing import Final

from joblog.streams.contract.fields import QUEUE_PATTERN, WORKER_PATTERN
from joblog.streams.contract.ids import LANES_MAX, lane_of_shard
from joblog.streams.errors import SettingsError

#: Slots of a worker that was not told otherwise: five for each core, as jobs mostly wait; at most 20.
DEFAULT_SLOTS: Final = min((os.cpu_count() or 1) * 5, 20)
SLOTS_MAX: Final = 10_000
NAME_CHARS_MAX: Final = 150  # leaves room in a worker's id for the process and the random part
RESULT_BYTES_MAX: Final = 1_000_000  # a report has to fit into one record


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """All of a worker's settings; SettingsError when one is impossible. Times are in seconds.

    - queues: in the order in which waiting jobs are started.
    - slots: jobs run at once; prefetch: jobs held besides, which saves short ones the way to the elector.
    - shards: lanes of each queue that has more than one.
    - renew_s, lease_s: how often the worker says that it lives, and after what silence the elector gives
      its jobs to others. After `fence_s` without an acknowledged renewal it gives them up itself.
    - grace_s: what running jobs get to end in when the worker stops.
    - release_after_s: how long a job may wait here for a slot before it goes back.
    - result_bytes_max: the longest result, as JSON.
    """

    queues: tuple[str, ...]
    lanes: int
    slots: int = DEFAULT_SLOTS
    prefetch: int = 0
    name: str = field(default_factory=gethostname)
    shards: Mapping[str, int] = field(default_factory=dict)
    renew_s: float = 3.0
    lease_s: float = 15.0
    grace_s: float = 25.0
    release_after_s: float = 1.0
    result_bytes_max: int = 262_144

    def __post_init__(self) -> None:
        for is_wrong, what in self._rules():
            if is_wrong:
                raise SettingsError(f"worker: {what}")

    def _rules(self) -> Sequence[tuple[bool, str]]:
        shards = self.shards.values()
        return (
            (not self.queues, "it needs a queue"),
            (len(set(self.queues)) < len(self.queues), f"a queue stands twice in {self.queues}"),
            (
                not all(re.fullmatch(QUEUE_PATTERN, queue) for queue in self.queues),
                f"a queue must match {QUEUE_PATTERN}",
            ),
            (not 1 <= self.lanes <= LANES_MAX, f"lanes must be 1 to {LANES_MAX}, not {self.lanes}"),
            (not all(1 <= n <= self.lanes for n in shards), f"shards must be 1 to {self.lanes}, the number of lanes"),
            (not 1 <= self.slots <= SLOTS_MAX, f"slots must be 1 to {SLOTS_MAX}, not {self.slots}"),
            (not 0 <= self.prefetch <= SLOTS_MAX, f"prefetch must be 0 to {SLOTS_MAX}, not {self.prefetch}"),
            (not re.fullmatch(WORKER_PATTERN, self.name), f"its name {self.name!r} must match {WORKER_PATTERN}"),
            (len(self.name) > NAME_CHARS_MAX, f"its name is longer than {NAME_CHARS_MAX} characters"),
            (not (self.renew_s > 0 and isfinite(self.lease_s)), "times must be positive"),
            (self.lease_s < 3 * self.renew_s, "a lease must last for three renewals at least (lease_s, renew_s)"),
            (not self.grace_s >= 0, "grace_s must not be negative"),
            (not self.release_after_s > 0, "release_after_s must be positive"),
            (
                not 0 <= self.result_bytes_max <= RESULT_BYTES_MAX,
                f"result_bytes_max must be 0 to {RESULT_BYTES_MAX}",
            ),
        )

    @property
    def fence_s(self) -> float:
        """Before the lease is over for the elector, whose clock and log may be a little behind."""
        return 0.8 * self.lease_s

    @property
    def queues_of_lanes(self) -> Mapping[int, tuple[str, ...]]:
        """The worker's lanes, in the order of its queues, and its queues in each."""
        found: dict[int, list[str]] = {}
        for queue in self.queues:
            for shard in range(self.shards.get(queue, 1)):
                found.setdefault(lane_of_shard(queue, self.lanes, shard), []).append(queue)
        return {lane: tuple(queues) for lane, queues in found.items()}
