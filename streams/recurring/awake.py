"""Whether this process ran all the time: one that was paused is the last to know that it lost its partitions."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from joblog.streams.kafka.clients import SESSION_TIMEOUT_S

#: A heartbeat is sent every third of a session: after a pause of this length, the next one may be too late.
ASLEEP_S: Final = SESSION_TIMEOUT_S * 2 / 3
LOOK_S: Final = 0.1


class Slept(Exception):
    """This process was paused: by a debugger, a suspended machine, or a container without CPU time."""


class Awake:
    """Looks at a clock again and again; once a look was late, all that follow raise Slept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_at = clock()
        self._slept_s = 0.0

    def look(self) -> None:
        """Raises Slept if this process did nothing for so long that the group may have given its partitions away."""
        before, self._looked_at = self._looked_at, self._clock()
        self._slept_s = max(self._slept_s, self._looked_at - before)
        if self._slept_s > ASLEEP_S:
            raise Slept(f"this process was paused for {self._slept_s:.1f} s")

    async def stay(self) -> None:
        """Look all the time, also while others wait."""
        with suppress(Slept):  # who looks next is told
            while True:
                self.look()
                await asyncio.sleep(LOOK_S)
