"""The options of a worker, checked, and the lanes of its queues."""

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

#: Slots by default: five for each core, since jobs mostly wait; at most 20.
DEFAULT_SLOTS: Final = min((os.cpu_count() or 1) * 5, 20)
SLOTS_MAX: Final = 10_000
NAME_CHARS_MAX: Final = 150  # leaves room in a worker's id for the process and the random part
RESULT_BYTES_MAX: Final = 1_000_000  # a report has to fit into one record


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of a worker; SettingsError when one is out of its range. Times are in seconds.

    - queues: in the order in which waiting jobs are started.
    - slots: how many jobs run at once; prefetch: how many more the worker holds, so that a slot need not wait for
      the elector between short jobs.
    - shards: the number of lanes of each queue that has more than one.
    - renew_s, lease_s: how often the worker renews its lease, and how long a lease lasts: after that the elector
      gives the worker's jobs to others. After `fence_s` without an acknowledged renewal the worker stops them.
    - grace_s: how long running jobs may take to end when the worker stops.
    - release_after_s: how long a job may wait in the worker for a slot before it goes back.
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
        """Shorter than the lease: the elector measures it by its own clock and by the time in the log."""
        return 0.8 * self.lease_s

    @property
    def queues_of_lanes(self) -> Mapping[int, tuple[str, ...]]:
        """The worker's lanes in the order of its queues, each with the worker's queues that live in it."""
        found: dict[int, list[str]] = {}
        for queue in self.queues:
            for shard in range(self.shards.get(queue, 1)):
                found.setdefault(lane_of_shard(queue, self.lanes, shard), []).append(queue)
        return {lane: tuple(queues) for lane, queues in found.items()}

    @property
    def home(self) -> int:
        """The lane that writes the worker's events."""
        return next(iter(self.queues_of_lanes))
