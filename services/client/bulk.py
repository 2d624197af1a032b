"""The client's part for bulk operations, which change many jobs in the background.

::

    found = monitor.bulk.matched(JobFilter(state=State.FAILED, task="images.shrink"), settings.lanes)
    print(found.jobs)
    operation = client.bulk.start("requeue", found, reason="the disk was replaced")

A projector works through the jobs that the filter found; `monitor.bulk.operation(operation)` shows how far it is.
"""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from joblog.services.client.changes import control_record
from joblog.services.client.templates import CommandRecord, Rules, check_job_id
from joblog.streams.contract.controls import AdvanceBulk, BulkAction, BulkOutcome, CancelBulk, Control, StartBulk
from joblog.streams.contract.ids import lane_of_job, new_job_id

Send = Callable[[Sequence[CommandRecord]], None]

#: Jobs a second, unless another rate is given.
RATE: Final = 200.0


class Chosen(Protocol):
    """The jobs of an operation, as the monitor's `Matched` has them."""

    @property
    def jobs(self) -> int: ...
    @property
    def fence(self) -> Sequence[int]: ...
    @property
    def filter(self) -> Mapping[str, Any]: ...


class BulkOperations:
    """`client.bulk`; thread-safe. Raises InvalidData for what the contract does not allow, and NotAcknowledged."""

    def __init__(self, send: Send, rules: Rules) -> None:
        self._send, self._rules = send, rules

    def start(
        self,
        action: BulkAction | str,
        found: Chosen,
        *,
        queue: str | None = None,
        priority: int | None = None,
        rate: float = RATE,
        by: str | None = None,
        reason: str | None = None,
        operation: str | None = None,
    ) -> str:
        """Begin an operation, and return its id; to repeat a call that was not acknowledged, give its `operation`.

        - found: what `monitor.bulk.matched` has counted: the filter, and since when a job must have stayed as it was.
        - queue: where to move the jobs, or to requeue them. priority: for set_priority. rate: jobs a second.
        """
        one = operation or new_job_id(secrets.randbelow(self._rules.lanes), time.time_ns() // 1_000_000)
        said = {
            "action": action,
            "filter": dict(found.filter),
            "matched": found.jobs,
            "fence": tuple(found.fence),
            "queue": queue,
            "priority": priority,
            "rate": rate,
            "by": by,
            "reason": reason,
        }
        self._tell(StartBulk, one, said)
        return one

    def advance(
        self,
        operation: str,
        before: int,
        sent: int,
        cursor: str | None,
        outcome: BulkOutcome | None,
        reason: str | None,
    ) -> None:
        """Note how far an operation is; for its runner."""
        said = {"before": before, "sent": sent, "cursor": cursor, "outcome": outcome, "reason": reason}
        self._tell(AdvanceBulk, operation, said)

    def cancel(self, operation: str, *, by: str | None = None, reason: str | None = None) -> None:
        """End an operation; the jobs that it has changed stay so."""
        self._tell(CancelBulk, operation, {"by": by, "reason": reason})

    def _tell(self, kind: type[Control], operation: str, said: Mapping[str, Any]) -> None:
        check_job_id(operation, self._rules.lanes)
        fields = {"operation": operation, **said}
        self._send([control_record(kind, fields, self._rules, operation, lane_of_job(operation))])
