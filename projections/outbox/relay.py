"""The relay: puts the rows of an outbox into the log, in the order of their ids, each exactly once.

A writer inserts rows in its own transaction (services/outbox), so a row is there when that was committed, and never
if not. The relay then does, again and again:

1. Read the first rows that it sees, by id.
2. Commit one Kafka transaction with their commands and, in the topic `outbox`, the mark: the ids of these rows.
3. Delete the rows.

Nothing is left out. There is no position that rows could end up behind: a row is relayed because it is there, and it
is there until the log has it. One of a transaction that commits late, with an id below those that are relayed
already, is simply read later; so it need not be waited for, and a long transaction elsewhere holds nobody up. The
order is kept where there is one: if a transaction began to write when another one was committed, its ids are higher,
and whoever sees its rows sees those of the other one, or they are relayed.

Nothing is there twice. The mark is true if and only if its rows' commands are in the log. Whenever the relay does not
know what became of a step (it starts, Kafka or Postgres did not answer, it was fenced), it forgets all it knows, and:

a. connects, and takes the session lock of this outbox; without it, it stands by until the other relay's session ends;
b. opens the log: fences every older relay, which from then on can commit nothing, ends the transaction that one may
   have left open, and reads the mark;
c. deletes those of the mark's rows that are still there. Only now it reads rows (1).

A relay that is killed before the commit in 2 has done nothing. One that is killed after it, and before the end of 3,
has left a mark by which c deletes what 3 did not. Older marks do not matter: 2 comes after 3 of the rows before. As
the mark is kept for as long as the outbox is, it does not matter when the next relay starts, nor how many jobs the
elector remembers. The lock only keeps twins from fencing each other in turn; that they cannot both commit is the
fence's work. It passes on when its session ends: with the process, after 30 s without a sign of life (a process that
hangs, a machine that is gone), and with each step back, so that who cannot reach Kafka does not hold up who can.

What is beyond this: a database that is restored from a backup, or that failed over and lost its last transactions,
has rows again that are in the log. They are relayed again, and the elector rejects those jobs as duplicates while it
knows them. Rows whose id and command are not in the mark are never taken for relayed: a job that runs twice can be
seen in the log, one that is lost cannot.

While a transaction of 2 is open, records behind it in its lanes are not read yet. It lasts milliseconds; that of a
relay which is killed in it lasts until b of the next one, or 10 s.

What Kafka cannot take (a row that is too large, or for a lane that does not exist) is parked with its reason in the
column `error`, and the others go on. If only Kafka can tell, the rows are sent one by one until it is found.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import psycopg
from joblog.projections import database
from joblog.projections.outbox.rows import OutboxRows, understood
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.outbox.log import NotCommitted, OutboxLog, RowsRefused
from joblog.streams.outbox.marks import Row, problem_of
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception, stop_when_event_set
from tenacity.nap import sleep_using_event
from tenacity.wait import wait_exponential_jitter

log = logging.getLogger(__name__)

ROLE: Final = "outbox"
#: How late a stop may be noticed while there are no rows.
STOP_S: Final = 0.25
#: How often it looks how many rows there are, for the metrics.
GAUGES_S: Final = 2.0
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 10.0


class Relay:
    """The relay of one outbox. Of several processes one works, and the others stand by.

    - batch_max: rows in one transaction.
    - poll_s: how often it looks for rows without being told of any.
    """

    def __init__(
        self,
        config: KafkaConfig,
        names: TopicNames,
        lanes: int,
        dsn: str,
        schema: str,
        *,
        meters: Meters,
        health: Health,
        batch_max: int = 1_000,
        poll_s: float = 1.0,
    ) -> None:
        self._config, self._names, self._lanes = config, names, lanes
        self._dsn, self._schema = dsn, schema
        self._meters, self._health = meters, health
        self._batch_max = batch_max
        self._poll_s = poll_s
        self._rows: OutboxRows | None = None
        self._log: OutboxLog | None = None
        #: How many rows are to be sent one by one, after Kafka has refused some of them.
        self._one_by_one = 0
        self._was_open = self._stands_by = False
        self._gauged_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Relay until `stop`, and wait out whatever passes by itself. Raises SchemaError when a person has to act."""
        retrying = Retrying(
            retry=retry_if_exception(_passes),
            wait=wait_exponential_jitter(multiplier=BACKOFF_FIRST_S, max=BACKOFF_MAX_S, jitter=BACKOFF_FIRST_S),
            sleep=sleep_using_event(stop),
            stop=stop_when_event_set(stop),
            before_sleep=self._step_back,
        )
        try:
            while not stop.is_set():
                retrying(self.step, stop)
        except RetryError:
            log.info("outbox.stopped", extra={"reason": "stopped while stepping back"})
        finally:
            self.close()
            self._health.set_unready("stopped")

    def step(self, stop: threading.Event) -> int:
        """Relay what is there, or wait for rows; returns how many were there."""
        self._health.beat()
        try:
            return self._step(stop)
        except psycopg.Error as error:
            raise understood(error, self._schema) from error

    def _step(self, stop: threading.Event) -> int:
        if self._rows is None:
            self._rows = OutboxRows(self._dsn, self._schema)
        rows = self._rows
        self._gauge(rows)
        if self._log is None:
            self._log = self._taken_over(rows, stop)
        if self._log is None:
            stop.wait(STOP_S)
            return 0
        read = rows.waiting(1 if self._one_by_one else self._batch_max)
        if not read:
            self._wait(rows, stop)
        elif found := self._sendable(rows, read):
            self._relay(rows, self._log, found)
        return len(read)

    def close(self) -> None:
        """Drop both connections, and with them the lock; the next step begins anew."""
        opened, self._log = self._log, None
        rows, self._rows = self._rows, None
        if opened is not None:
            opened.close()
        if rows is not None:
            rows.close()

    def _taken_over(self, rows: OutboxRows, stop: threading.Event) -> OutboxLog | None:
        """Steps a to c of the module's docstring; None while another relay works."""
        if not rows.lock():
            if not self._stands_by:
                log.info("outbox.stands_by", extra={"outbox": rows.identity})
            self._stands_by = True
            self._health.set_ready()  # to work when the other one ends
            return None
        self._stands_by = False
        opened = OutboxLog(self._config, self._names, rows.identity)
        mark = opened.open(self._goes_on(rows, stop))
        if mark is None:
            opened.close()
            return None
        relayed = mark.holds(rows.named([row_id for row_id, _ in mark.rows]))
        if relayed:
            rows.delete(relayed)
        if self._was_open:
            self._meters.inc("joblog_producer_rebuilds_total", ROLE)
        self._was_open = True
        self._health.set_ready()
        log.info("outbox.relaying", extra={"outbox": rows.identity, "relayed_before": len(relayed)})
        return opened

    def _sendable(self, rows: OutboxRows, found: Sequence[Row]) -> list[Row]:
        """These rows without those that can never be sent, which are parked."""
        good = []
        for row in found:
            if (problem := problem_of(row, self._lanes)) is None:
                good.append(row)
            else:
                self._park(rows, row, problem)
        return good

    def _relay(self, rows: OutboxRows, opened: OutboxLog, found: Sequence[Row]) -> None:
        """Steps 2 and 3 of the module's docstring."""
        try:
            opened.send(found)
        except RowsRefused as refusal:
            if len(found) == 1:
                self._park(rows, found[0], str(refusal))
            self._one_by_one = len(found) if len(found) > 1 else self._one_by_one - 1
            self._log = None  # it is closed; what it left open is ended when it is opened again
            return
        rows.delete([row.id for row in found])
        self._one_by_one = max(self._one_by_one - len(found), 0)
        now = time.time()
        self._meters.inc("joblog_outbox_relayed_total", by=len(found))
        self._meters.observe_all("joblog_outbox_lag_seconds", [max(now - row.created_s, 0) for row in found])

    def _park(self, rows: OutboxRows, row: Row, reason: str) -> None:
        rows.park(row.id, reason)
        self._meters.inc("joblog_outbox_parked_total")
        self._gauged_at = 0.0
        log.warning("outbox.parked", extra={"row": row.id, "job_id": row.key, "reason": reason})

    def _wait(self, rows: OutboxRows, stop: threading.Event) -> None:
        """Return when there may be rows, or something else is to be done."""
        deadline = time.monotonic() + self._poll_s
        while not stop.is_set() and (left := deadline - time.monotonic()) > 0:
            if rows.wait(min(left, STOP_S)):
                return
            self._health.beat()
            self._gauge(rows)  # which also lets the server hear of the session

    def _gauge(self, rows: OutboxRows) -> None:
        """Look now and then how many rows there are; where that takes too long, relaying them matters more."""
        if time.monotonic() - self._gauged_at < GAUGES_S:
            return
        try:
            status = rows.status()
        except psycopg.errors.QueryCanceled as error:
            self._meters.inc("joblog_db_errors_total", ROLE, database.sqlstate_class(error))
            log.warning("outbox.gauges_late", extra={"reason": database.why(error)})
            return
        finally:
            self._gauged_at = time.monotonic()
        oldest = time.time() if status.oldest is None else status.oldest.timestamp()
        self._meters.set("joblog_outbox_rows", status.waiting)
        self._meters.set("joblog_outbox_oldest_row_timestamp_seconds", oldest)
        self._meters.set("joblog_outbox_parked_rows", status.parked)

    def _goes_on(self, rows: OutboxRows, stop: threading.Event) -> Callable[[], bool]:
        def goes_on() -> bool:
            self._health.beat()
            rows.ping()
            return not stop.is_set()

        return goes_on

    def _step_back(self, state: RetryCallState) -> None:
        assert state.outcome is not None
        error = state.outcome.exception()
        if isinstance(error, psycopg.Error):
            self._meters.inc("joblog_db_errors_total", ROLE, database.sqlstate_class(error))
        if isinstance(error, NotCommitted):
            self._meters.inc("joblog_kafka_errors_total", ROLE, error.code)
        if isinstance(error, SystemError):
            self._meters.inc("joblog_internal_errors_total", ROLE)
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        self._health.set_unready(reason)
        self._health.beat()
        log.warning("outbox.stepped_back", extra={"reason": reason, "wait_s": round(state.upcoming_sleep, 1)})
        self.close()


def _passes(error: BaseException) -> bool:
    if isinstance(error, psycopg.Error):
        return database.is_passing(error)
    # Kafka's client may leave an exception set when a producer that was given up is freed; Python reports that as
    # SystemError in whatever comes next.
    return isinstance(error, NotCommitted | SystemError)
