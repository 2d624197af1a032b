"""The client's part for queues: pause, drain, resume and spread them. Kafka has acknowledged a call that returns."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from joblog.services.client.changes import control_record
from joblog.services.client.queue_settings import SettingsOfQueues
from joblog.services.client.templates import CommandRecord, Rules
from joblog.streams.contract.cloudevents import explained
from joblog.streams.contract.controls import Control, DrainQueue, PauseQueue, ResumeQueue
from joblog.streams.contract.fields import is_queue, wrong_queue
from joblog.streams.contract.queue_settings import QueueSettings
from joblog.streams.errors import InvalidData
from pydantic import ValidationError

Send = Callable[[Sequence[CommandRecord]], None]


class Queues:
    """`client.queues`; thread-safe. A queue that is paused twice is paused as the second call says.

    `by` and `reason` are kept in the log, and shown with the queue. Raises InvalidData for what the contract does
    not allow, NotAcknowledged when the outcome is unknown; a call may be repeated.
    """

    def __init__(self, send: Send, rules: Rules, settings: SettingsOfQueues) -> None:
        self._send, self._rules, self._settings = send, rules, settings

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

    def configure(self, queue: str, *, shards: int | None, by: str | None = None, reason: str | None = None) -> None:
        """Spread the new jobs of a queue over so many lanes from now on; None: as many as `queue_shards` says.

        Running clients hear of it within a second or two, when they send something. Jobs that are there stay in their
        lanes, and are run there. Those with keys go where the settings say, however a queue is spread: so keys hold
        exactly, before and after. Raises EnqueueError when the outcome is unknown; the call may be repeated.
        """
        if not is_queue(queue):
            raise InvalidData(wrong_queue(queue))
        if shards is None:
            if by is not None or reason is not None:
                raise InvalidData("by and reason have no effect without shards: what was set is removed")
            self._settings.write(queue, None)
            return
        if not 1 <= shards <= self._rules.lanes:
            raise InvalidData(f"shards: {shards} is not 1 to {self._rules.lanes}, the number of lanes")
        try:
            settings = QueueSettings(shards=shards, by=by, reason=reason)
        except ValidationError as exc:
            raise InvalidData(explained(exc)) from exc
        self._settings.write(queue, settings)

    def configured(self) -> Mapping[str, QueueSettings]:
        """The queues that `configure` has set."""
        return self._settings.read()

    def _tell(self, kind: type[Control], queue: str, by: str | None, reason: str | None, **fields: Any) -> None:
        """One command for each lane, since any may have jobs of the queue; one after the other: they have one key."""
        if not is_queue(queue):
            raise InvalidData(wrong_queue(queue))
        rules = self._rules
        said = {"queue": queue, "by": by, "reason": reason, **fields}
        for lane in range(rules.lanes):
            self._send([control_record(kind, said, rules, queue, lane)])
