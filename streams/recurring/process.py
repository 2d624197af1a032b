"""The recurring process: creates the jobs of recurring definitions when they are due.

Any number of them share the partitions of the topic `recurring`. Whoever is given a partition reads it from the
beginning, and writes a mark at its end: once the mark comes back, everything before it was read. Every tick

1. decides on each definition whose time has come (due.py);
2. sends the commands, and waits until Kafka has acknowledged them;
3. notes the progress in the same way.

A process that dies between 2 and 3 leaves occurrences that the next owner decides on again; the ids of the jobs are
those of before, so each is created once. No error disables a definition: what could not be sent is due at the next
tick.
"""

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from confluent_kafka import KafkaException
from joblog.streams.contract.recurring import Definition, Overlap, Progress, Skip, record_key
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import InvalidData
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.recurring.due import Decision, decide, lower_bound
from joblog.streams.recurring.endings import Endings
from joblog.streams.recurring.jobs import Installation, create_command, delete_command
from joblog.streams.recurring.membership import member
from joblog.streams.recurring.rows import Row, Rows, encode_aspect
from joblog.streams.recurring.sender import Record, Sender

log = logging.getLogger(__name__)

ROLE: Final = "recurring"
TICK_S: Final = 0.1
#: Delay before the group is joined again after an error.
START_OVER_S: Final = 1.0
#: How often the gauges are set.
SHOW_S: Final = 1.0
#: Commands of one tick; what is left is due at the next one.
COMMANDS_MAX: Final = 1_000
#: The key of the mark, which no definition can have.
MARK: Final = "|mark"


@dataclass(slots=True)
class Held:
    """A partition of this process; `is_ready` once its own mark was read."""

    rows: Rows = field(default_factory=Rows)
    mark: bytes = field(default_factory=lambda: secrets.token_hex(8).encode())
    is_marked: bool = False
    is_ready: bool = False


class Recurring:
    """Runs until told to stop; see above."""

    def __init__(
        self,
        config: KafkaConfig,
        names: TopicNames,
        where: Installation,
        *,
        meters: Meters,
        health: Health,
        prepare: Callable[[], None] = lambda: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`prepare` registers the definitions of this process's tasks; it is called before the group is joined."""
        self._config = config
        self._names = names
        self._where = where
        self._meters = meters
        self._health = health
        self._prepare = prepare
        self._clock = clock
        self._held: dict[int, Held] = {}
        client_id = f"{names.prefix}recurring"
        self._sender = Sender(config, client_id, lambda: meters.inc("joblog_producer_rebuilds_total", ROLE))
        self._endings = Endings(config, names.events, f"{client_id}-events")

    def run(self, stop: threading.Event) -> None:
        """Join the group and tick until `stop` is set."""
        try:
            self._prepare()
            asyncio.run(self._run(stop))
        finally:
            self._endings.close()
            self._sender.close()

    async def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                await self._joined(stop)
            except Exception as error:  # the topic has everything: start over from it
                self._meters.inc("joblog_internal_errors_total", ROLE)
                log.exception("recurring.started_over")
                self._health.set_unready(f"starting over after {type(error).__name__}: {error}")
                await asyncio.sleep(START_OVER_S)

    async def _joined(self, stop: threading.Event) -> None:
        app = member(
            self._config,
            self._names,
            on_assigned=self._assigned,
            on_revoked=self._held.clear,
            on_record=self._take,
        )
        await app.start()
        show_at = 0.0
        try:
            while not stop.is_set():
                self._health.beat()
                if app.crashed:
                    raise app.crash_reason or RuntimeError("Faust ended")
                await self._tick()
                loop_time = asyncio.get_running_loop().time()
                if loop_time >= show_at:
                    show_at = loop_time + SHOW_S
                    self._show()
                await asyncio.sleep(TICK_S)
        finally:
            self._held.clear()
            await app.stop()

    # --- reading ---

    def _assigned(self, partitions: Iterable[int]) -> None:
        self._held.clear()
        self._held.update({number: Held() for number in partitions})
        self._meters.inc("joblog_rebalances_total", ROLE)
        log.info("recurring.assigned", extra={"partitions": sorted(self._held)})

    def _take(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        held = self._held.get(partition)
        if held is None or key is None:
            return
        if key == MARK.encode():
            held.is_ready = held.is_ready or value == held.mark
            return
        try:
            held.rows.apply(key, value)
        except InvalidData as exc:
            self._meters.inc("joblog_quarantined_records_total", ROLE, exc.code)
            log.warning("recurring.unreadable", extra={"partition": partition, "key": repr(key), "reason": str(exc)})

    # --- deciding ---

    async def _tick(self) -> None:
        """One turn; a failure to send is logged, and everything is decided again."""
        try:
            await self._mark()
            self._watch()
            now = self._clock()
            decided = list(self._decisions(now))
            if decided:
                await self._perform(decided, now)
        except (KafkaException, BufferError) as exc:
            reason = exc.args[0].str() if isinstance(exc, KafkaException) else str(exc)
            self._meters.inc("joblog_kafka_errors_total", ROLE, "send")
            log.warning("recurring.not_acknowledged", extra={"reason": reason})

    async def _mark(self) -> None:
        unmarked = [(number, held) for number, held in self._held.items() if not held.is_marked]
        if not unmarked:
            return
        topic = self._names.recurring
        await asyncio.to_thread(
            self._sender.send, [Record(topic, number, MARK, held.mark) for number, held in unmarked]
        )
        for _, held in unmarked:
            held.is_marked = True

    def _watch(self) -> None:
        """Watch the last jobs of the definitions whose overlap matters."""
        watched = {}
        for row in self._rows():
            progress = row.progress
            if row.definition is None or row.definition.overlap is Overlap.ALLOW or progress is None:
                continue
            if progress.last_job_id is not None and progress.last_created_at is not None:
                watched[progress.last_job_id] = progress.last_created_at
        self._endings.watch(watched)

    def _rows(self) -> Iterator[Row]:
        for held in self._held.values():
            if held.is_ready:
                yield from held.rows.rows.values()

    def _decisions(self, now: datetime) -> Iterator[tuple[int, Row, Definition, Decision]]:
        left = COMMANDS_MAX
        for number, held in self._held.items():
            for row in held.rows.rows.values() if held.is_ready else ():
                decision = self._decision(row, now)
                if decision is None or row.definition is None:
                    continue
                yield number, row, row.definition, decision
                left -= len(decision.create)
                if left <= 0:
                    return

    def _decision(self, row: Row, now: datetime) -> Decision | None:
        definition, schedule = row.definition, row.schedule
        if definition is None or schedule is None or (row.next_due is not None and now < row.next_due):
            return None
        is_running = self._is_running(row, definition)
        if is_running is None:
            return None
        decision = decide(definition, schedule, row.pause, row.skip, row.progress, is_running=is_running, now=now)
        if decision is None and (row.progress is None or row.progress.waiting is None):
            row.next_due = _next_due(row, now)
        return decision

    def _is_running(self, row: Row, definition: Definition) -> bool | None:
        """Whether the last job has not ended, if that matters; None while it is not known."""
        if definition.overlap is Overlap.ALLOW or row.progress is None or row.progress.last_job_id is None:
            return False
        return self._endings.is_running(row.progress.last_job_id)

    # --- doing ---

    async def _perform(self, decided: list[tuple[int, Row, Definition, Decision]], now: datetime) -> None:
        commands, notes, topic = list[Record](), list[Record](), self._names.recurring
        after = list[tuple[Row, Progress]]()
        for number, row, definition, decision in decided:
            last = row.progress
            if decision.delete and last is not None and last.last_job_id is not None:
                job_id, lane, value = delete_command(last.last_job_id, definition, now)
                commands.append(Record(self._names.commands, lane, job_id, value))
            progress = Progress(through=decision.through) if last is None else last
            progress = progress.model_copy(update={"through": decision.through, "waiting": decision.waiting})
            for occurrence in decision.create:
                job_id, lane, value = create_command(definition, occurrence, now, self._where)
                commands.append(Record(self._names.commands, lane, job_id, value))
                made = {"last_job_id": job_id, "last_occurrence": occurrence, "last_created_at": now}
                progress = progress.model_copy(update=made)
            if decision.left_out:
                occurrence, why = decision.left_out[-1]
                progress = progress.model_copy(update={"last_skipped": occurrence, "skipped_for": why})
            notes.append(Record(topic, number, record_key(row.id, Progress), encode_aspect(progress)))
            if row.skip is not None and row.schedule is not None:
                skipped = row.schedule.next_after(row.skip.after)
                if skipped is not None and skipped <= decision.through:
                    notes.append(Record(topic, number, record_key(row.id, Skip), None))
            after.append((row, progress))
        await asyncio.to_thread(self._sender.send, commands)
        # From here on they exist. What is noted is read back, too; until then the rows have it.
        for row, progress in after:
            row.progress, row.next_due = progress, None
        self._count(decided)
        await asyncio.to_thread(self._sender.send, notes)

    def _count(self, decided: list[tuple[int, Row, Definition, Decision]]) -> None:
        now = self._clock()
        for _, row, _, decision in decided:
            for occurrence in decision.create:
                self._meters.inc("joblog_recurring_created_total")
                self._meters.observe("joblog_recurring_lateness_seconds", max((now - occurrence).total_seconds(), 0))
            for occurrence, why in decision.left_out:
                self._meters.inc("joblog_recurring_left_out_total", why)
                log.info(
                    "recurring.left_out",
                    extra={"recurring_id": row.id, "occurrence": occurrence.isoformat(), "reason": why},
                )

    def _show(self) -> None:
        waiting = sorted(number for number, held in self._held.items() if not held.is_ready)
        # A member beyond the number of partitions has none, and is ready to take over.
        if waiting:
            self._health.set_unready(f"reading partitions {waiting}")
        else:
            self._health.set_ready()
        now = self._clock()
        rows = [row for row in self._rows() if row.definition is not None]
        paused = sum(row.is_paused(now) for row in rows)
        self._meters.set("joblog_recurring_definitions", paused, "yes")
        self._meters.set("joblog_recurring_definitions", len(rows) - paused, "no")
        self._meters.set("joblog_recurring_errors", sum(row.error is not None for row in rows))
        self._meters.set("joblog_recurring_partitions", len(self._held))


def _next_due(row: Row, now: datetime) -> datetime | None:
    """When to look at a row again, if no record comes for it."""
    if row.definition is None or row.schedule is None:
        return None
    if row.is_paused(now):
        return row.pause.until if row.pause is not None and row.pause.until is not None else now + timedelta(days=1)
    after = max(lower_bound(row.definition, row.pause, row.progress, now), now)
    return row.schedule.next_after(after) or now + timedelta(days=1)
