"""Whether a process is alive (its loop turns) and ready (it does its work)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Health:
    """Written by one loop, read by the HTTP thread.

    Alive: `beat` was called within `stall_s`. Ready: the loop said so; `reason` tells why not.
    Neither asks after other processes: a broker that is away must not restart its clients.
    """

    role: str
    stall_s: float = 60.0
    clock: Callable[[], float] = time.monotonic
    ready: bool = False
    reason: str = "starting"
    _last_beat: float = field(init=False)

    def __post_init__(self) -> None:
        self._last_beat = self.clock()

    def beat(self) -> None:
        self._last_beat = self.clock()

    def set_ready(self) -> None:
        self.ready, self.reason = True, ""

    def set_unready(self, reason: str) -> None:
        self.ready, self.reason = False, reason

    @property
    def alive(self) -> bool:
        return self.clock() - self._last_beat < self.stall_s
