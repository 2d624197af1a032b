"""The client's part for limits: change them while jobs run. Each call is acknowledged by Kafka when it returns."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from joblog.services.client.changes import control_record
from joblog.services.client.templates import CommandRecord, Rules
from joblog.streams.contract.controls import SetLimit
from joblog.streams.contract.fields import is_queue, wrong_queue
from joblog.streams.contract.ids import lane_of_queue
from joblog.streams.contract.relations import LimitKind, LimitScope
from joblog.streams.errors import InvalidData
from joblog.streams.lane.limits.claims import owner_of

Send = Callable[[Sequence[CommandRecord]], None]


class Limits:
    """`client.limits`; thread-safe.

    `by` and `reason` are kept in the log. Raises InvalidData for what the contract does not allow, NotAcknowledged
    when the outcome is unknown; a call may be repeated.
    """

    def __init__(self, send: Send, rules: Rules) -> None:
        self._send, self._rules = send, rules

    def set(
        self,
        kind: LimitKind,
        key: str,
        capacity: int,
        *,
        per: timedelta | float | None = None,
        by: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Let a limit have this capacity, and interval, whatever its jobs say, until `clear`.

        It holds for jobs that start after it. If less are allowed than run, those that run go on.
        """
        interval_s = per / timedelta(seconds=1) if isinstance(per, timedelta) else per
        self._tell(kind, key, {"capacity": capacity, "interval_s": interval_s, "by": by, "reason": reason})

    def clear(self, kind: LimitKind, key: str, *, by: str | None = None, reason: str | None = None) -> None:
        """Let a limit be as the jobs say that use it, again."""
        self._tell(kind, key, {"by": by, "reason": reason})

    def set_queue(
        self,
        queue: str,
        kind: LimitKind,
        capacity: int,
        *,
        per: timedelta | float | None = None,
        by: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Give all jobs of a queue a limit, whatever limits they have themselves, until `clear_queue`.

        It holds for jobs that start after it, in all shards of the queue together. A queue has one such limit:
        another one takes its place.
        """
        interval_s = per / timedelta(seconds=1) if isinstance(per, timedelta) else per
        fields = {"kind": kind, "capacity": capacity, "interval_s": interval_s, "by": by, "reason": reason}
        self._tell_queue(queue, fields)

    def clear_queue(self, queue: str, *, by: str | None = None, reason: str | None = None) -> None:
        """Take the limit of a queue away."""
        self._tell_queue(queue, {"kind": LimitKind.MUTEX, "by": by, "reason": reason})

    def _tell_queue(self, queue: str, fields: dict[str, Any]) -> None:
        if not is_queue(queue):
            raise InvalidData(wrong_queue(queue))
        rules = self._rules
        said = {"key": queue, "scope": LimitScope.QUEUE, **fields}
        self._send([control_record(SetLimit, said, rules, queue, lane_of_queue(queue, rules.lanes))])

    def _tell(self, kind: LimitKind, key: str, fields: dict[str, Any]) -> None:
        try:
            lane = owner_of((kind, key), self._rules.lanes)
        except UnicodeEncodeError as exc:
            raise InvalidData(f"key {key!r:.60} is not UTF-8: it holds half of a surrogate pair") from exc
        said = {"kind": kind, "key": key, **fields}
        self._send([control_record(SetLimit, said, self._rules, f"{kind}:{key}", lane)])
