"""Jobs that wait in a worker: by the order of its queues, then by arrival."""

from collections import OrderedDict
from collections.abc import Sequence

from joblog.services.worker_run import Run, RunKey


class Inbox:
    """Not thread-safe: its owner holds a lock."""

    def __init__(self, queues: Sequence[str]) -> None:
        # Ordered dictionaries, since a plain one walks over the gaps at its front for each first item.
        self._waiting: dict[str, OrderedDict[RunKey, Run]] = {queue: OrderedDict() for queue in queues}
        self._in_order = tuple(self._waiting.values())

    def __len__(self) -> int:
        return sum(map(len, self._in_order))

    def put(self, run: Run) -> None:
        self._waiting[run.job.queue][run.key] = run

    def take(self) -> Run | None:
        """The next run to start, None if none waits."""
        for waiting in self._in_order:
            if waiting:
                return waiting.popitem(last=False)[1]
        return None

    def discard(self, run: Run) -> bool:
        """Take this one out; false when it does not wait (any more)."""
        return self._waiting[run.job.queue].pop(run.key, None) is not None

    def take_older(self, arrived_before: float) -> list[Run]:
        """Take out all that arrived before this instant."""
        old: list[Run] = []
        for waiting in self._in_order:
            while waiting and next(iter(waiting.values())).arrived_at < arrived_before:
                old.append(waiting.popitem(last=False)[1])
        return old
