"""The partitions that a process has: each is handled for itself, in order, so that one that waits stops no other."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from joblog.streams.triggers.records import Record

log = logging.getLogger(__name__)

#: Records of a partition in memory beyond which it is not read further, until half of them are handled.
HELD_MAX: Final = 1_000

Place = tuple[str, int]


class Delivery(NamedTuple):
    """A record, and what to call when everything that follows from it is acknowledged."""

    record: Record
    done: Callable[[], object]


@dataclass(slots=True)
class _Partition:
    queue: "asyncio.Queue[Delivery]" = field(default_factory=asyncio.Queue)
    task: "asyncio.Task[None] | None" = None
    is_full: bool = False
    is_busy: bool = False


class Partitions:
    """Queues of records with a task for each; used in one asyncio loop.

    - on_full, on_room: called with a partition that holds too much, and again when it has room.
    - on_failed: called with what a task raised; the partition stands still then.
    """

    def __init__(
        self,
        handle: Callable[[Record], Awaitable[None]],
        on_full: Callable[[Place], object],
        on_room: Callable[[Place], object],
        on_failed: Callable[[BaseException], object],
        held_max: int = HELD_MAX,
    ) -> None:
        self._handle = handle
        self._on_full = on_full
        self._on_room = on_room
        self._on_failed = on_failed
        self._held_max = held_max
        self._partitions: dict[Place, _Partition] = {}
        self._is_open = True

    def put(self, delivery: Delivery) -> None:
        """Take a record, to be handled after those of its partition that came before."""
        place = delivery.record.topic, delivery.record.partition
        found = self._partitions.get(place)
        if found is None:
            found = self._partitions[place] = _Partition()
            found.task = asyncio.create_task(self._work(place, found), name="{}/{}".format(*place))
            found.task.add_done_callback(self._ended)
        found.queue.put_nowait(delivery)
        if found.queue.qsize() >= self._held_max:
            found.is_full = True
            self._on_full(place)

    async def drop(self, places: Collection[Place] | None = None) -> None:
        """Forget these partitions, or all: what is being handled is broken off; their next owner repeats it."""
        doomed = [place for place in self._partitions if places is None or place in places]
        tasks = [task for place in doomed if (task := self._partitions.pop(place).task) is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def finish(self, timeout_s: float) -> None:
        """Begin nothing more, and wait for what is being handled, at most so long."""
        self._is_open = False
        deadline = asyncio.get_running_loop().time() + timeout_s
        while any(one.is_busy for one in self._partitions.values()):
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.01)

    async def _work(self, place: Place, own: _Partition) -> None:
        while True:
            delivery = await own.queue.get()
            if not self._is_open:
                return
            own.is_busy = True
            try:
                await self._handle(delivery.record)
                delivery.done()
            finally:
                own.is_busy = False
            if own.is_full and own.queue.qsize() <= self._held_max // 2:
                own.is_full = False
                self._on_room(place)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failed(error)
