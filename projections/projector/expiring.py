"""When a projector lets rows expire: between its batches of events, for a small part of its time.

It owns its lanes, so nobody else writes there; and a batch of rows takes about 10 ms, so events hardly wait for it.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import psycopg
from joblog.projections.expiry.passing import Gone, age_s, expire
from joblog.projections.expiry.rules import BATCH_MAX, EXPIRING, Rules, is_idle
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

#: The part of its time that a pass takes.
SHARE: Final = 0.1
#: After a batch that took too long.
LATE_S: Final = 5.0


class Expiring:
    """The passes over the tables, one batch for each turn.

    - every_s: from the end of one pass to the begin of the next; also that of another process, or of a former one.
    """

    def __init__(
        self,
        rules: Rules,
        every_s: float,
        meters: Meters,
        *,
        batch_max: int = BATCH_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules, self._every_s, self._meters, self._clock = rules, every_s, meters, clock
        self._batch_max = self._limit = batch_max
        self._is_idle = is_idle(rules)
        self._pass: Iterator[Gone] | None = None
        self._next = 0.0

    @property
    def wait_s(self) -> float:
        """How long there is nothing to do."""
        return float("inf") if self._is_idle else max(self._next - self._clock(), 0.0)

    def forget(self) -> None:
        """The connection is gone; the pass that was under way begins anew."""
        self._pass, self._next = None, 0.0

    def turn(self, connection: psycopg.Connection[Any], lanes: Sequence[int]) -> None:
        """One batch, if it is time for one."""
        if self.wait_s:
            return
        began = self._clock()
        if self._pass is None:
            age = age_s(connection, lanes)
            if age is not None and age < self._every_s:
                self._next = began + self._every_s - age
                return
            self._pass = expire(connection, lanes, self._rules, self._limit)
        try:
            gone = next(self._pass, None)
        except psycopg.errors.QueryCanceled as error:
            self._limit = max(self._limit // 2, 1)
            log.warning("projector.expiry_late", extra={"reason": str(error).strip(), "batch": self._limit})
            self._pass, self._next = None, self._clock() + LATE_S
            return
        now = self._clock()
        if gone is None:
            self._ended(now)
        else:
            self._next = now + (now - began) * (1 / SHARE - 1)
            if gone.state is not None:
                self._meters.inc("joblog_expired_jobs_total", gone.state, by=gone.rows)

    def _ended(self, now: float) -> None:
        self._pass, self._next = None, now + self._every_s
        self._limit = min(self._limit * 2, self._batch_max)
        for state in EXPIRING:
            self._meters.inc("joblog_expired_jobs_total", state, by=0)
        self._meters.set("joblog_expiry_last_run_timestamp_seconds", time.time())
