"""The recurring process: creates the jobs of recurring definitions when they are due.

Any number of them share the partitions of the topic `recurring`. Whoever is given a partition reads it from the
beginning, and writes a mark at its end: once the mark comes back, everything before it was read. Every tick

1. decides on each definition whose time has come (deciding.py);
2. sends the commands, and waits until Kafka has acknowledged them;
3. notes the progress in the same way, and again at the next tick if that fails.

A process that dies between 2 and 3 leaves occurrences that the next owner decides on again; the ids of the jobs are
those of before, so each is created once. Where the overlap matters, what is about to be created is noted before 2, so
that the next owner knows a job that runs though another occurrence has become due. No error disables a definition:
what could not be sent is due at the next tick.

A process that was paused for longer than its session starts over before it decides anything (awake.py), and so does
one that reads nothing of a partition whose mark has not come back.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from confluent_kafka import KafkaException
from joblog.streams.contract.topics import TopicNames
from joblog.streams.errors import InvalidData
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.recurring.awake import Awake, Slept
from joblog.streams.recurring.deciding import planned, watched
from joblog.streams.recurring.endings import Endings
from joblog.streams.recurring.held import MARK, Held, Silent
from joblog.streams.recurring.jobs import Installation
from joblog.streams.recurring.membership import Read, member
from joblog.streams.recurring.notes import of_ends, of_intentions, of_progress
from joblog.streams.recurring.parking import PARKED, ROLE, Unreadable, park
from joblog.streams.recurring.plan import Plan
from joblog.streams.recurring.rows import Row
from joblog.streams.recurring.sender import Record, Sender
from joblog.streams.recurring.telling import count, show

log = logging.getLogger(__name__)

TICK_S: Final = 0.1
#: Delay before the group is joined again after an error.
START_OVER_S: Final = 1.0
#: How often the gauges are set.
SHOW_S: Final = 1.0
#: Delay before dead letters are tried again that were not acknowledged.
PARK_AGAIN_S: Final = 60.0
#: Commands of one tick; what is left is due at the next one.
COMMANDS_MAX: Final = 1_000
#: How long a tick decides, after an outage that left much to decide: heartbeats of the membership wait meanwhile.
DECIDING_S: Final = 1.0
#: How long a row is left alone whose decision failed in a way that nobody foresaw.
UNDECIDED: Final = timedelta(minutes=1)


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
        self._awake = Awake()
        self._park_at = 0.0  # by the clock of the event loop
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
            except (Slept, Silent) as error:
                log.warning("recurring.began_again", extra={"reason": str(error)})
                self._health.set_unready(f"starting over: {error}")
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
        try:
            await app.start()
            await self._turns(app, stop)
        finally:
            self._held.clear()
            await app.stop()

    async def _turns(self, app: Any, stop: threading.Event) -> None:
        self._awake = Awake()
        awake = asyncio.create_task(self._awake.stay())
        show_at = 0.0
        try:
            while not stop.is_set():
                self._health.beat()
                if app.crashed:
                    raise app.crash_reason or RuntimeError("Faust ended")
                # While partitions are given out, Faust may throw away what it fetched, and go back to the beginning.
                await self._tick(can_mark=not app.rebalancing)
                loop_time = asyncio.get_running_loop().time()
                if loop_time >= show_at:
                    show_at = loop_time + SHOW_S
                    show(self._meters, self._health, self._held, self._clock())
                await asyncio.sleep(TICK_S)
        finally:
            awake.cancel()

    # --- reading ---

    def _assigned(self, partitions: Iterable[int]) -> None:
        self._held.clear()
        self._held.update({number: Held() for number in partitions})
        self._meters.inc("joblog_rebalances_total", ROLE)
        log.info("recurring.assigned", extra={"partitions": sorted(self._held)})

    def _take(self, read: Read) -> None:
        held = self._held.get(read.partition)
        if held is None:
            return
        held.read_at = time.monotonic()
        if read.key is None:
            return
        if read.key == MARK.encode():
            held.is_ready = held.is_ready or read.value == held.mark
        elif read.key == PARKED.encode():
            held.parking.read(read.value)
        elif (error := held.rows.unreadable(read.key, read.value)) is not None:
            held.parking.add(Unreadable(read.offset, read.key, read.value, read.headers, error))

    # --- deciding ---

    async def _tick(self, *, can_mark: bool = True) -> None:
        """One turn; a failure to send is logged, and everything is decided again."""
        self._awake.look()
        for number, held in self._held.items():
            held.listen(number)
        try:
            if can_mark:
                await self._mark()
            now = self._clock()
            self._endings.watch(watched(self._rows(), now, self._where))
            plans = list(self._plans(now))
            try:
                if plans:
                    await self._perform(plans)
            finally:
                await self._note()
            await self._note_ends(now)
            await self._park()
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

    def _rows(self) -> Iterator[Row]:
        for held in self._held.values():
            if held.is_ready:
                yield from held.rows.rows.values()

    def _plans(self, now: datetime) -> Iterator[tuple[int, Held, Plan]]:
        """What is to be done now, with the partition of each."""
        left, until = COMMANDS_MAX, time.monotonic() + DECIDING_S
        for number, held in self._held.items():
            for row in held.rows.rows.values() if held.is_ready else ():
                made = self._planned(row, now)
                if made is None:
                    continue
                yield number, held, made
                left -= len(made.commands)
                if left <= 0 or time.monotonic() > until:
                    return

    def _planned(self, row: Row, now: datetime) -> Plan | None:
        """The plan of one row; one that cannot be made costs this row a while, and the others nothing."""
        try:
            return planned(row, self._endings.is_running, now, self._where, self._endings.has_come)
        except InvalidData as error:  # a definition that no client would have written
            row.error = str(error)
            log.warning("recurring.undecided", extra={"recurring_id": row.id, "reason": row.error})
        except Exception as error:  # its records may be anybody's
            self._meters.inc("joblog_internal_errors_total", ROLE)
            log.exception("recurring.undecided", extra={"recurring_id": row.id})
            row.error = f"{type(error).__name__}: {error}"
        row.next_due = now + UNDECIDED
        return None

    # --- doing ---

    async def _perform(self, plans: list[tuple[int, Held, Plan]]) -> None:
        topic = self._names.commands
        commands = [Record(topic, one.lane, one.job_id, one.value) for *_, made in plans for one in made.commands]
        await self._intend(plans)
        self._awake.look()
        created_at = await asyncio.to_thread(self._sender.send, commands)
        # From here on they exist. What is noted is read back, too; until then the rows have it.
        for _, held, made in plans:
            held.carried_out(made, created_at)
        count(self._meters, [made for *_, made in plans], self._clock())

    async def _intend(self, plans: list[tuple[int, Held, Plan]]) -> None:
        """Note which jobs are about to be created that have to end before the next ones, and watch them."""
        awaited = {job_id: (number, made) for number, _, made in plans if (job_id := made.awaited) is not None}
        notes = of_intentions(self._names.recurring, awaited.values())
        if notes:
            self._awake.look()
            await asyncio.to_thread(self._sender.send, notes)
        now = self._clock()
        for _, made in awaited.values():
            made.row.progress, made.row.next_due = made.intended, None
        # However soon their ends come, they are seen.
        self._endings.expect({job_id: min(made.decision.create[0], now) for job_id, (_, made) in awaited.items()})

    async def _note(self) -> None:
        """Note how far it came, until that is acknowledged: whoever has the partition next would decide it again.

        A process that lost a partition meanwhile notes nothing there: its progress could be the last of its key, and
        less than another's.
        """
        self._awake.look()
        noted = [(number, held) for number, held in self._held.items() if held.unnoted]
        notes = of_progress(self._names.recurring, noted)
        if notes:
            await asyncio.to_thread(self._sender.send, notes)
        for _, held in noted:
            held.unnoted.clear()

    async def _note_ends(self, now: datetime) -> None:
        notes = of_ends(self._names.recurring, self._held, self._endings.is_running, now, self._where)
        if notes:
            self._awake.look()  # another process may have got the partition, and gone on
            await asyncio.to_thread(self._sender.send, notes)

    async def _park(self) -> None:
        """Make dead letters of what cannot be read; a failure is tried again later, and jobs do not wait for it."""
        loop_time = asyncio.get_running_loop().time()
        if loop_time < self._park_at:
            return
        self._park_at = loop_time + PARK_AGAIN_S
        try:
            for number, held in list(self._held.items()):
                if self._held.get(number) is held and held.is_ready and (batch := held.parking.batch()):
                    await asyncio.to_thread(park, self._sender, batch, self._names, number, self._meters)
                    held.parking.done(batch[-1].offset)
            self._park_at = 0.0
        except (KafkaException, BufferError):
            raise
        except Exception:
            self._meters.inc("joblog_internal_errors_total", ROLE)
            log.exception("recurring.not_parked")
