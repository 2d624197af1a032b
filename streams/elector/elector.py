"""The elector: consume, decide, produce, commit; no rules inside.

A plain loop on one thread. It owns the lanes that its consumer group gives it, each of them a `Lane` in memory.
Per turn: take what is there from `commands` and `reports`, let the lanes decide, write what they want written
and how far was read in one transaction.

What can go wrong, and what follows (`_recover`):

- a transaction failed, or its outcome is unknown (StepBack): all lanes are loaded again from the log
- deciding a record raised (RecordFailed): the lanes of the turn are loaded again, and the record is parked
- a lane raised without a record at fault (LaneFailed): that lane is set aside, the others go on
- what a lane wants written cannot be (WriteFailed): smaller turns find the record at fault, and it is parked
- the client was fenced (Fenced): this process ends if another one has its id, and joins the group again if not

Nothing is ever undone: a lane's memory is thrown away, and what was committed is read back.
"""

import gc
import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.failed_records import (
    TRIES_MAX,
    FailedRecords,
    LaneFailed,
    Place,
    RecordFailed,
    TurnFailed,
    WriteFailed,
)
from joblog.streams.elector.lane_records import AsideCode
from joblog.streams.elector.membership import ROLE, Membership, no_answer
from joblog.streams.elector.ownership import OwnedLanes
from joblog.streams.elector.quiet_period import QuietPeriod
from joblog.streams.elector.registration import Registration
from joblog.streams.elector.takeover import NotOurs, SetAside, Takeover
from joblog.streams.elector.transaction import TransactionLog
from joblog.streams.elector.turn import Turn
from joblog.streams.elector.turn_size import TurnSize
from joblog.streams.elector.unserved import UnservedJobs
from joblog.streams.errors import ElectorError, Fenced, ProducerFenced, StepBack, TooLarge
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.lane.filters import ElectFilter, FilterChain, RetryFilter
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.transitions import Election
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

TICK_S: Final = 0.1
#: How often lanes that are set aside are looked at: an operator may have asked for something.
LOOK_ASIDE_S: Final = 2.0
PAUSE_S: Final = 0.5


class Elector:
    """One member of the electors' group.

    - instance: names this elector among the others, the same after a restart: it is the group's static member
      id and the end of the transactional id.
    - batch_max: records per transaction at most; a turn never waits for more than what is there.
    """

    def __init__(
        self,
        config: KafkaConfig,
        names: TopicNames,
        lanes: int,
        *,
        instance: str,
        meters: Meters,
        health: Health,
        rules: LaneRules | None = None,
        batch_max: int = 10_000,
        filters: Sequence[ElectFilter] = (),
    ) -> None:
        self._names = names
        self._meters = meters
        self._health = health
        instance_id = f"{names.prefix}elector-{instance}"
        self._config = config
        self._registration = Registration(config, names, instance_id)
        self._log = TransactionLog(config, names, instance_id)
        rules = rules or LaneRules()
        self._takeover = Takeover(config, names, lanes, rules, instance_id)
        self._owned = OwnedLanes(names, self._takeover, self._log)
        self._chain = FilterChain(
            (RetryFilter(random.random), *filters),
            on_error=lambda name: meters.inc("joblog_filter_errors_total", name),
            has_queue=lambda job_id, queue: rules.has_queue(queue, lane_of_job(job_id), lanes),
        )
        self._member = Membership(
            config,
            names,
            instance_id,
            meters,
            lanes=lanes,
            on_revoke=self._give_back,
            on_lost=self._lose,
            on_trouble=self._in_trouble,
        )
        #: Whether lanes are loaded again that were ours: then nobody is fenced for them.
        self._reloading = False
        self._failed_records = FailedRecords()
        self._unserved = UnservedJobs(meters)
        self._quiet = QuietPeriod()
        self._turn_size = TurnSize(batch_max)
        self._ticked_at = self._looked_aside_at = 0.0
        #: Fetched and not decided yet.
        self._rest: list[Message] = []

    def run(self, stop: threading.Event) -> None:
        """Elect until `stop` is set, then hand the lanes over. Raises Fenced, TopicsError, ElectorError."""
        gc.set_threshold(100_000, 50, 100)  # what lives here lives long, and holds no cycles
        try:
            self._register(stop)
            self._member.join()
            while not stop.is_set():
                self._health.beat()
                try:
                    self._turn(stop)
                except ElectorError as error:
                    self._recover(error, stop)
            self._member.leave()
        finally:
            self._member.close()
            self._takeover.close()
            self._log.close()

    def _register(self, stop: threading.Event) -> None:
        """Say that this process is the latest with its id; waits for brokers."""
        goes_on = self._beats_until(stop)
        while goes_on():
            try:
                self._registration.register()
            except KafkaException as error:
                log.warning(
                    "elector.waiting_for_kafka",
                    extra={"brokers": self._config.bootstrap_servers, "error": no_answer(error)},
                )
                stop.wait(PAUSE_S)
            else:
                return

    # --- one turn ---

    def _turn(self, stop: threading.Event) -> None:
        messages = self._fetched()
        if self._member.wanted is not None:
            self._take_over(self._member.wanted, stop)
            return
        self._look_aside()
        lanes = self._owned.lanes
        if not lanes:
            return
        election = Election(_now_ms(), _clock_ms(), self._chain.elect, self._chain.watched)
        turn = Turn(self._names, lanes, election, self._failed_records)
        self._decide(turn, messages)
        self._tick(turn)
        turn.assign()
        if not turn.empty:
            self._commit(turn)

    def _fetched(self) -> list[Message]:
        """What is there now, up to the size of a turn; waits a tick for the first record."""
        messages, self._rest = self._rest, []
        most = max(self._turn_size.now - len(messages), 1)
        found = self._member.fetch(most, 0 if messages or self._is_unfilled() else TICK_S)
        if found is None:
            if self._member.wanted is None and self._owned.lanes:
                self._owned.assign(self._member.consumer)
            return []
        if self._member.missing:
            self._set_lost_aside()
            return []
        return messages + found

    def _is_unfilled(self) -> bool:
        return any(lane.is_unfilled for lane in self._owned.lanes.values())

    def _decide(self, turn: Turn, messages: list[Message]) -> None:
        for index, message in enumerate(messages):
            if turn.is_full or index == self._turn_size.now:
                self._rest = messages[index:]
                return
            turn.take(message)
        ends = self._member.ends
        turn.skip_markers(self._owned.markers(ends))
        ends.clear()

    def _tick(self, turn: Turn) -> None:
        now = time.monotonic()
        if now - self._ticked_at >= TICK_S:
            self._ticked_at = now
            is_quiet_over = self._quiet.is_over(now)
            turn.tick(self._owned.read_to_end(turn.offsets, self._member.consumer) if is_quiet_over else ())
            self._meters.set("joblog_live_jobs", sum(len(lane.jobs) for lane in self._owned.lanes.values()))

    def _commit(self, turn: Turn) -> None:
        began = time.perf_counter()
        self._owned.commit(turn, self._member.consumer)
        self._failed_records.forget(turn.offsets)
        self._turn_size.grow()
        self._measure(turn, time.perf_counter() - began)

    def _measure(self, turn: Turn, seconds: float) -> None:
        meters = self._meters
        meters.inc("joblog_transactions_total", ROLE, "committed")
        meters.observe("joblog_transaction_duration_seconds", seconds, ROLE)
        meters.inc("joblog_election_inputs_total", by=turn.inputs)
        for out in turn.outputs.values():
            meters.inc("joblog_log_events_total", by=len(out.events))
            for (name, label), count in out.counts.items():
                labels = (ROLE, label) if name == "joblog_quarantined_records_total" else (label,) if label else ()
                meters.inc(name, *labels, by=count)

    # --- which lanes ---

    def _take_over(self, numbers: list[int], stop: threading.Event) -> None:
        began = time.perf_counter()
        member = self._member
        if not self._log.is_ready:
            self._renew_producer(stop)
        try:
            loaded = self._owned.take(numbers, member.consumer, _clock_ms(), _now_ms(), fence=not self._reloading)
        except NotOurs as error:
            # The group gave our lanes away while we slept or failed: ask it anew, do not fence the new owner.
            log.warning("elector.not_ours", extra={"owners": str(error)})
            member.wanted, self._reloading = None, False
            member.join()
            return
        except KafkaException as error:
            raise StepBack(f"taking lanes {numbers} over failed: {error}") from error
        self._owned.assign(member.consumer)
        member.wanted, self._reloading = None, False
        self._forget_fetched()
        # Renewals that came meanwhile lie in the log, and the first fetch may be late.
        self._quiet.begin(time.monotonic())
        gc.collect()
        gc.freeze()
        self._report_lanes(loaded, time.perf_counter() - began)

    def _report_lanes(self, loaded: list[int], seconds: float) -> None:
        self._meters.observe("joblog_lane_takeover_seconds", seconds)
        self._meters.set("joblog_lanes", len(self._owned.lanes))
        aside = self._owned.aside
        for code in AsideCode:
            self._meters.set("joblog_lanes_aside", sum(one.code is code for one in aside.values()), code)
        for number, one in aside.items():
            hint = f"joblog lanes show {number}"
            log.error(
                "elector.lane_aside", extra={"lane": number, "code": one.code, "reason": one.reason, "hint": hint}
            )
        self._unserved.report(self._owned.lanes.values())
        lanes = sorted(self._owned.lanes)
        log.info("elector.lanes", extra={"lanes": lanes, "loaded": loaded, "seconds": round(seconds, 3)})
        self._health.set_ready()

    def _look_aside(self) -> None:
        """Load lanes again that were set aside, if somebody asked for it."""
        now = time.monotonic()
        if not self._owned.aside or now - self._looked_aside_at < LOOK_ASIDE_S:
            return
        self._looked_aside_at = now
        try:
            is_asked_for = self._owned.is_asked_for()
        except KafkaException as error:
            log.warning("elector.kafka_error", extra={"error": no_answer(error)})
            return
        if is_asked_for:
            self._reload(())

    def _set_lost_aside(self) -> None:
        """Set those lanes aside of which the next record to read is not in the log any more."""
        for (topic, number), why in self._member.missing.items():
            if number in self._owned.lanes:
                self._owned.set_aside(number, SetAside(AsideCode.LOG_LOST, self._owned.gap(topic, number) or why))
        self._reload(())

    def _give_back(self, consumer: Consumer) -> None:
        """Give the lanes back in order, and keep them at hand: the next assignment may be the same."""
        self._health.set_unready("rebalancing")
        self._owned.give_back(consumer)

    def _lose(self) -> None:
        self._owned.drop()
        self._health.set_unready("lost the group")

    # --- when something went wrong ---

    def _recover(self, error: ElectorError, stop: threading.Event) -> None:
        match error:
            case Fenced():
                self._rejoin(error, stop)
            case ProducerFenced():
                self._end_if_replaced(error, stop)
                self._step_back(error, stop)
            case StepBack():
                self._step_back(error, stop)
            case RecordFailed():
                self._blame(error.place, error)
                self._decide_anew(error, stop)
            case LaneFailed():
                self._set_failed_aside(error.number, error)
                self._decide_anew(error, stop)
            case WriteFailed():
                self._find_unwritable(error)
                self._decide_anew(error, stop)
            case _:
                raise error

    def _in_trouble(self) -> None:
        self._quiet.begin(time.monotonic())

    def _forget_fetched(self) -> None:
        self._rest.clear()
        self._member.forget_fetched()

    def _end_if_replaced(self, error: ElectorError, stop: threading.Event) -> None:
        """Raise Fenced if another process was started with this elector's id after this one.

        If not, it was fenced by itself (a join whose answer was lost with a broker is repeated, and fences its own
        first try), or by an elector that took its lanes over while it slept: it may go on.
        """
        goes_on = self._beats_until(stop)
        while goes_on():
            try:
                is_latest = self._registration.is_latest()
            except KafkaException as unknown:
                log.warning("elector.waiting_for_kafka", extra={"error": no_answer(unknown)})
                stop.wait(PAUSE_S)
                continue
            if not is_latest:
                raise Fenced(f"{error}; another elector was started with the same id") from error
            return

    def _rejoin(self, error: Fenced, stop: threading.Event) -> None:
        """Join the group as a new client, with what the log says, unless another process has this elector's id."""
        self._end_if_replaced(error, stop)
        log.warning("elector.rejoin", extra={"error": str(error)})
        self._health.set_unready("joining the group anew")
        self._in_trouble()
        self._owned.drop()
        self._rest.clear()
        self._log.close()
        self._member.rejoin()

    def _step_back(self, error: StepBack, stop: threading.Event) -> None:
        """A new producer, and all lanes as the log has them."""
        log.warning("elector.step_back", extra={"error": str(error)})
        self._meters.inc("joblog_transactions_total", ROLE, "failed")
        self._in_trouble()
        if isinstance(error, TooLarge):
            self._turn_size.shrink()
            log.warning("elector.smaller_turns", extra={"records": self._turn_size.now})
        self._health.set_unready("stepping back after a failed transaction")
        self._reload(self._owned.lanes)
        self._owned.drop()
        self._renew_producer(stop)

    def _find_unwritable(self, error: WriteFailed) -> None:
        """Part the turn until it holds one record, which then is at fault; if there is none, it is the lane."""
        if error.inputs > 1:
            self._turn_size.shrink(error.inputs)
        elif error.last is not None and error.last[1] == error.number:
            self._blame(error.last, error)
        else:
            self._set_failed_aside(error.number, error)

    def _blame(self, place: Place, error: TurnFailed) -> None:
        """Have the record there parked when it is read again; if that failed, too, its lane is at fault."""
        known = self._failed_records.find(place)
        if known is None or known.tries < TRIES_MAX:
            self._failed_records.add(place, error.error)
        else:
            self._set_failed_aside(place[1], error)

    def _set_failed_aside(self, number: int, error: TurnFailed) -> None:
        self._owned.set_aside(number, SetAside(AsideCode.INTERNAL_ERROR, error.error.reason, error.error.details))

    def _decide_anew(self, error: TurnFailed, stop: threading.Event) -> None:
        """Load the lanes of a turn that failed again, and read its records again."""
        log.error("elector.turn_failed", exc_info=error.__cause__, extra={"error": str(error)})
        self._reload(error.lanes)
        self._renew_producer(stop)  # which also waits until all that was committed can be read

    def _reload(self, lanes: Collection[int]) -> None:
        """Take over in the next turn what we have; of it, load these lanes again from the log."""
        self._forget_fetched()
        if self._member.wanted is None and (numbers := self._owned.numbers):
            self._member.wanted, self._reloading = numbers, True
        self._owned.distrust(lanes)

    def _renew_producer(self, stop: threading.Event) -> None:
        goes_on = self._beats_until(stop)
        while goes_on():
            try:
                self._log.rebuild(goes_on)
            except KafkaException as error:
                log.warning("elector.no_producer", extra={"error": str(error)})
                stop.wait(PAUSE_S)
            else:
                self._meters.inc("joblog_producer_rebuilds_total", ROLE)
                return

    def _beats_until(self, stop: threading.Event) -> Callable[[], bool]:
        """For loops that wait: whether to go on; asking tells that this process lives."""

        def goes_on() -> bool:
            self._health.beat()
            return not stop.is_set()

        return goes_on


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _clock_ms() -> int:
    return time.monotonic_ns() // 1_000_000
