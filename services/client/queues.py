"""The client's part for queues: pause, drain and resume them. Each call is acknowledged by Kafka when it returns."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from joblog.services.client.changes import control_record
from joblog.services.client.templates import CommandRecord, Rules
from joblog.streams.contract.controls import Control, DrainQueue, PauseQueue, ResumeQueue
from joblog.streams.contract.fields import is_queue, wrong_queue
from joblog.streams.errors import InvalidData

Send = Callable[[Sequence[CommandRecord]], None]


class Queues:
    """`client.queues`; thread-safe. A queue that is paused twice is paused as the second call says.

    `by` and `reason` are kept in the log, and shown with the queue. Raises InvalidData for what the contract does
    not allow, NotAcknowledged when the outcome is unknown; a call may be repeated.
    """

    def __init__(self, send: Send, rules: Rules) -> None:
        self._send, self._rules = send, rules

    def pause(
        self, queue: str, *, until: datetime | None = None, by: str | None = None, reason: str | None = None
    ) -> None:
        """Start no more jobs of a queue, for good or until an instant; those that run go on.

        What workers have prefetched counts as started: it runs, or comes back to wait within a second.
        """
        self._tell(PauseQueue, queue, by, reason, until=until)

    def drain(
        self, queue: str, *, until: datetime | None = None, by: str | None = None, reason: str | None = None
    ) -> None:
        """Pause a queue, and let the log tell when none of its jobs runs any more (`queue.drained`).

        `Monitor.queues` shows `draining`, then `drained`. The queue stays paused until `resume`.
        """
        self._tell(DrainQueue, queue, by, reason, until=until)

    def resume(self, queue: str, *, by: str | None = None, reason: str | None = None) -> None:
        """End the pause of a queue; rejected in lanes where it is not paused."""
        self._tell(ResumeQueue, queue, by, reason)

    def _tell(self, kind: type[Control], queue: str, by: str | None, reason: str | None, **fields: Any) -> None:
        """One command for each lane, since any may have jobs of the queue; one after the other: they have one key."""
        if not is_queue(queue):
            raise InvalidData(wrong_queue(queue))
        rules = self._rules
        said = {"queue": queue, "by": by, "reason": reason, **fields}
        for lane in range(rules.lanes):
            self._send([control_record(kind, said, rules, queue, lane)])
