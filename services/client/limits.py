"""The client's part for limits: change them while jobs run. Each call is acknowledged by Kafka when it returns."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from joblog.services.client.changes import control_record
from joblog.services.client.templates import CommandRecord, Rules
from joblog.streams.contract.controls import SetLimit
from joblog.streams.contract.relations import LimitKind
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

    def _tell(self, kind: LimitKind, key: str, fields: dict[str, Any]) -> None:
        lane = owner_of((kind, key), self._rules.lanes)
        said = {"kind": kind, "key": key, **fields}
        self._send([control_record(SetLimit, said, self._rules, f"{kind}:{key}", lane)])
