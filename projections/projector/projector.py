"""The projector: applies the topic `events` to Postgres, batch by batch, and never stops for an outage.

Whatever passes by itself (Postgres or Kafka away, a lock, another projector) makes it step back: it drops
both connections, waits, and goes on from the offsets in Postgres. A missing schema or log ends it.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final

import psycopg
from confluent_kafka import KafkaException
from joblog.projections import database
from joblog.projections.projector.answers import Answering
from joblog.projections.projector.event_batch import Entries, Parked
from joblog.projections.projector.expiring import Expiring
from joblog.projections.projector.log import QUEUE_KB, ROLE, EventLog
from joblog.projections.projector.tables import Tables
from joblog.projections.schema.schema import checked_name
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import OffsetConflict, SchemaError, TopicsError
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception, stop_when_event_set
from tenacity.nap import sleep_using_event
from tenacity.wait import wait_exponential_jitter

log = logging.getLogger(__name__)

BATCH_MAX: Final = 60_000
#: The bytes of a batch's records, at most; the next one may be in memory, too.
BATCH_BYTES: Final = 64 * 1024 * 1024
#: Records are read and taken in by so many, so that they are still in the processor's cache.
READ_MAX: Final = 500
#: How long a step waits for the first record; also how late a stop may be noticed.
POLL_S: Final = 0.25
#: How often it looks how far behind it is.
OBSERVE_S: Final = 2.0
#: How often it reads from the tables what there is, for the metrics.
GAUGES_S: Final = 5.0
#: It is not ready when it could not see that for so long; a broker that is busy for a moment does not matter.
UNSEEN_MAX_S: Final = 10.0
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 10.0


class Projector:
    """Applies all lanes, or those in `only`; one projector at a time may write a lane of a schema.

    - expiring: lets rows expire between the batches. answering: tells lanes how jobs ended that they have forgotten.
    - prepare: called before the tables are opened; what it raises of psycopg is waited out like the rest.
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
        batch_max: int = BATCH_MAX,
        batch_bytes: int = BATCH_BYTES,
        queue_kb: int = QUEUE_KB,
        only: Collection[int] | None = None,
        expiring: Expiring | None = None,
        answering: Answering | None = None,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        self._config = config
        self._topic = names.events
        self._lanes = lanes
        self._only = range(lanes) if only is None else sorted(only)
        self._dsn = dsn
        self._schema = checked_name(schema)
        self._meters = meters
        self._health = health
        self._expiring = expiring
        self._answering = answering
        self._prepare = prepare
        self._batch_max = self._limit = batch_max
        self._batch_bytes = batch_bytes
        self._queue_kb = queue_kb
        self._tables: Tables | None = None
        self._log: EventLog | None = None
        self._ahead = Entries()
        self._was_open = False
        self._observed_at = self._seen_at = self._gauged_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Apply until `stop`. Raises SchemaError, TopicsError or LogLost when a person has to act."""
        retrying = Retrying(
            retry=retry_if_exception(self._passes),
            wait=wait_exponential_jitter(multiplier=BACKOFF_FIRST_S, max=BACKOFF_MAX_S, jitter=BACKOFF_FIRST_S),
            sleep=sleep_using_event(stop),
            stop=stop_when_event_set(stop),
            before_sleep=self._step_back,
        )
        try:
            while not stop.is_set():
                retrying(self.step)
        except RetryError:
            log.info("projector.stopped", extra={"reason": "stopped while stepping back"})
        finally:
            self.close()
            if self._answering is not None:
                self._answering.close()
            self._health.set_unready("stopped")

    def step(self) -> int:
        """Apply what is there, waiting `POLL_S` for the first record; returns how many records that were."""
        self._health.beat()
        tables, events = self._opened()
        entries, self._ahead = self._ahead, Entries()
        poll_s = min(POLL_S, self._expiring.wait_s) if self._expiring is not None else POLL_S
        is_asked = self._answering is not None and self._answering.questions
        self._read(entries, events, 0 if entries or is_asked else poll_s)
        if entries:
            self._apply(entries, tables, events)
        if time.monotonic() - self._observed_at > OBSERVE_S:
            self._observe(tables, events)
        if time.monotonic() - self._gauged_at > GAUGES_S:
            self._gauge(tables)
        if self._expiring is not None:
            tables.expire(self._expiring)
        if self._answering is not None:
            tables.answer(self._answering)
        return len(entries)

    def _gauge(self, tables: Tables) -> None:
        """Read what there is; where that takes too long, the events matter more than the gauges."""
        self._gauged_at = time.monotonic()
        try:
            tables.gauge(self._meters)
        except psycopg.errors.QueryCanceled as error:
            self._meters.inc("joblog_db_errors_total", ROLE, database.sqlstate_class(error))
            log.warning("projector.gauges_late", extra={"reason": database.why(error)})

    def _apply(self, entries: Entries, tables: Tables, events: EventLog) -> None:
        def read_ahead() -> None:
            if not self._ahead:
                self._read(self._ahead, events, 0)

        begun = time.perf_counter()
        try:
            aside = tables.apply(entries, read_ahead)
        except psycopg.errors.QueryCanceled:
            self._limit = max(len(entries) // 2, 1)
            raise
        self._limit = min(self._limit * 2, self._batch_max)
        self._meters.observe("joblog_projection_batch_seconds", time.perf_counter() - begun)
        self._meters.inc("joblog_projection_events_total", by=len(entries))
        self._report_parked(aside)
        self._measure(entries)

    def _measure(self, entries: Entries) -> None:
        """How late the batch is; of each lane only its oldest event and its newest one are looked at."""
        now = time.time()
        newest = {record.lane: record for record in entries.records}
        oldest = {record.lane: record for record in reversed(entries.records)}
        lags = [max(now - record.log_ms / 1000, 0) for record in oldest.values()]
        self._meters.observe_all("joblog_projection_lag_seconds", lags)
        for lane, record in newest.items():
            self._meters.set("joblog_projection_applied_timestamp_seconds", record.log_ms / 1000, str(lane))
            self._meters.set("joblog_projection_current_timestamp_seconds", record.log_ms / 1000, str(lane))

    def _read(self, entries: Entries, events: EventLog, timeout_s: float) -> None:
        """Add what is there, up to the limit; waits for the first record only."""
        while (left := self._limit - len(entries)) > 0 and entries.bytes < self._batch_bytes:
            records = events.read(min(left, READ_MAX), 0 if entries else timeout_s)
            if not records:
                break
            entries.extend(records)

    def close(self) -> None:
        """Drop both connections; the next step opens them anew, from the offsets in Postgres."""
        self._ahead = Entries()
        if self._expiring is not None:
            self._expiring.forget()
        events, self._log = self._log, None
        tables, self._tables = self._tables, None
        if events is not None:
            events.close()
        if tables is not None:
            tables.close()

    def _opened(self) -> tuple[Tables, EventLog]:
        if self._tables is None or self._log is None:
            self.close()
            try:
                self._prepare()
                sought = None if self._answering is None else self._answering.questions
                self._tables = Tables(self._dsn, self._schema, self._only, beat=self._health.beat, sought=sought)
            except psycopg.Error as error:
                raise _understood(error) from error
            self._log = EventLog(
                self._config, self._topic, self._lanes, self._tables.positions, self._meters, self._queue_kb
            )
            self._was_open = True
            self._seen_at = time.monotonic()
            self._health.set_ready()
            log.info("projector.started", extra={"schema": self._schema, "lanes": len(self._only)})
        return self._tables, self._log

    def _observe(self, tables: Tables, events: EventLog) -> None:
        self._observed_at = time.monotonic()
        lags = events.lags(tables.positions, read_ahead={record.lane for record in self._ahead.records})
        if lags is None:
            if time.monotonic() - self._seen_at > UNSEEN_MAX_S:
                self._health.set_unready("Kafka does not tell how far the lanes go")
            return
        self._seen_at = time.monotonic()
        self._health.set_ready()
        for lane, lag in lags.items():
            self._meters.set("joblog_projection_lag_records", lag, str(lane))
            if lag == 0:
                self._meters.set("joblog_projection_current_timestamp_seconds", time.time(), str(lane))
        tables.stay_current(lane for lane, lag in lags.items() if lag == 0)

    def _report_parked(self, aside: Sequence[Parked]) -> None:
        """One line for each code: a batch of nothing but broken records shall not flood the log."""
        for code, count in Counter(one.code for one in aside).items():
            self._meters.inc("joblog_quarantined_records_total", ROLE, code, by=count)
            first = next(one for one in aside if one.code == code)
            place = {"lane": first.record.lane, "offset": first.record.offset, "reason": first.reason}
            log.warning("projection.parked", extra={"code": code, "count": count, **place})

    def _step_back(self, state: RetryCallState) -> None:
        assert state.outcome is not None
        error = state.outcome.exception()
        if isinstance(error, psycopg.Error):
            self._meters.inc("joblog_db_errors_total", ROLE, database.sqlstate_class(error))
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        self._health.set_unready(reason)
        self._health.beat()
        log.warning("projector.stepped_back", extra={"reason": reason, "wait_s": round(state.upcoming_sleep, 1)})
        self.close()

    def _passes(self, error: BaseException) -> bool:
        if isinstance(error, psycopg.Error):
            return database.is_passing(error)
        # A broker that comes up may not know a topic yet that was there before.
        if isinstance(error, TopicsError):
            return self._was_open
        return isinstance(error, OffsetConflict | KafkaException)


def _understood(error: psycopg.Error) -> Exception:
    if database.is_schema(error):
        return SchemaError(f"the tables are not as expected ({error.sqlstate}: {error}): run `joblog migrate`")
    return error
