"""The elector: consume, decide, produce, commit; no rules inside.

A plain loop on one thread. It owns the lanes that its consumer group gives it, each of them a `Lane` in memory.
Per turn: take what is there from `commands` and `reports`, let the lanes decide, write what they want written
and how far was read in one transaction.

What happens when something goes wrong is in recovery.py; which lanes the elector has, and how it gets and loses them,
in membership.py, ownership.py and takeover.py.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.counting import count
from joblog.streams.elector.lane_records import AsideCode
from joblog.streams.elector.limits_count import LimitsCount
from joblog.streams.elector.membership import ROLE, Membership, no_answer
from joblog.streams.elector.ownership import OwnedLanes
from joblog.streams.elector.quiet_period import QuietPeriod
from joblog.streams.elector.recovery import Recovery
from joblog.streams.elector.registration import Registration
from joblog.streams.elector.takeover import NotOurs, SetAside, Takeover
from joblog.streams.elector.ticks import Ticks
from joblog.streams.elector.transaction import TransactionLog
from joblog.streams.elector.turn import Turn
from joblog.streams.elector.turn_size import TurnSize
from joblog.streams.errors import ElectorError, StepBack
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.lane.filters import ElectFilter, FilterChain, RetryFilter
from joblog.streams.lane.output import LaneOutput
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.transitions import Election
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

#: How often lanes that are set aside are looked at: an operator may have asked for something.
LOOK_ASIDE_S: Final = 2.0

#: Told what a committed turn led to in each lane, and when it began, in unix milliseconds.
OnCommitted = Callable[[Mapping[int, LaneOutput], int], None]


class Elector:
    """One member of the electors' group.

    - instance: names this elector among the others, the same after a restart: it is the group's static member
      id and the end of the transactional id.
    - batch_max: records per transaction at most; a turn never waits for more than what is there.
    - on_committed: called after each turn, for traces.
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
        on_committed: OnCommitted | None = None,
    ) -> None:
        self._names = names
        self._meters = meters
        self._health = health
        self._on_committed = on_committed
        instance_id = f"{names.prefix}elector-{instance}"
        self._log = TransactionLog(config, names, lanes, instance_id)
        rules = rules or LaneRules()
        self._takeover = Takeover(config, names, lanes, rules, instance_id)
        self._owned = OwnedLanes(names, self._takeover, self._log)
        self._chain = FilterChain(
            (RetryFilter(), *filters),
            on_error=lambda name: meters.inc("joblog_filter_errors_total", name),
        )
        self._member = Membership(
            config,
            names,
            instance_id,
            meters,
            lanes=lanes,
            on_revoke=self._give_back,
            on_lost=self._lose,
        )
        self._turn_size = TurnSize(batch_max)
        self._registration = Registration(config, names, instance_id)
        self._recovery = Recovery(
            self._member,
            self._owned,
            self._log,
            self._registration,
            self._turn_size,
            meters,
            health,
        )
        self._quiet = QuietPeriod()
        self._limits_count = LimitsCount(meters)
        self._ticks = Ticks()
        self._looked_aside_at = 0.0
        #: Fetched and not decided yet.
        self._rest: list[Message] = []

    def run(self, stop: threading.Event) -> None:
        """Elect until `stop` is set, then hand the lanes over. Raises Fenced, TopicsError, ElectorError."""
        gc.set_threshold(100_000, 50, 100)  # what lives here lives long, and holds no cycles
        try:
            self._recovery.register(stop)
            self._member.join()
            while not stop.is_set():
                self._health.beat()
                try:
                    self._turn(stop)
                except ElectorError as error:
                    self._recovery.handle(error, stop)
            self._member.leave()
        finally:
            self._member.close()
            self._takeover.close()
            self._registration.close()
            self._log.close()

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
        turn = Turn(self._names, lanes, election, self._recovery.failed_records)
        self._decide(turn, messages)
        self._tick(turn)
        turn.assign()
        if not turn.empty:
            self._commit(turn)

    def _fetched(self) -> list[Message]:
        """What is there now, up to the size of a turn; waits a tick for the first record."""
        messages, self._rest = self._rest, []
        most = max(self._turn_size.now - len(messages), 1)
        found = self._member.fetch(
            most, 0 if messages or self._is_unfilled() else self._ticks.wait_s(self._owned.lanes.values())
        )
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
        if self._ticks.is_due(self._owned.lanes.values(), now):
            is_quiet_over = self._quiet.is_over(now)
            turn.tick(self._owned.read_to_end(turn.offsets, self._member.consumer) if is_quiet_over else ())
            self._meters.set("joblog_live_jobs", sum(len(lane.jobs) for lane in self._owned.lanes.values()))
            self._limits_count.report(self._owned.lanes.values())

    def _commit(self, turn: Turn) -> None:
        began = time.perf_counter()
        self._owned.commit(turn, self._member.consumer)
        self._recovery.failed_records.forget(turn.offsets)
        self._turn_size.grow()
        self._measure(turn, time.perf_counter() - began)

    def _measure(self, turn: Turn, seconds: float) -> None:
        meters = self._meters
        meters.inc("joblog_transactions_total", ROLE, "committed")
        meters.observe("joblog_transaction_duration_seconds", seconds, ROLE)
        meters.inc("joblog_election_inputs_total", by=turn.inputs)
        for out in turn.outputs.values():
            count(meters, out, turn.now_ms)
        if self._on_committed is not None:
            self._on_committed(turn.outputs, turn.now_ms)

    # --- which lanes ---

    def _take_over(self, numbers: list[int], stop: threading.Event) -> None:
        began = time.perf_counter()
        member, recovery = self._member, self._recovery
        if not self._log.is_ready:
            recovery.renew_producer(stop)
            if member.wanted != numbers or not self._log.is_ready:
                return  # the group has decided anew while this waited, or `stop` was set
        fence = not recovery.is_reloading
        try:
            loaded = self._owned.take(numbers, member.consumer, _clock_ms(), _now_ms(), fence=fence)
        except NotOurs as error:
            # The group gave our lanes away while we slept or failed: ask it anew, do not fence the new owner.
            log.warning("elector.not_ours", extra={"owners": str(error)})
            member.wanted, recovery.is_reloading = None, False
            member.join()
            return
        except KafkaException as error:
            raise StepBack(f"taking lanes {numbers} over failed: {error}") from error
        self._owned.assign(member.consumer)
        member.wanted, recovery.is_reloading = None, False
        self._rest.clear()
        member.forget_fetched()
        # Renewals that came meanwhile lie in the log, and the first fetch may be late.
        self._quiet.begin(time.monotonic())
        gc.collect()
        gc.freeze()
        self._report_lanes(loaded, time.perf_counter() - began)

    def _report_lanes(self, loaded: list[int], seconds: float) -> None:
        self._meters.observe("joblog_lane_takeover_seconds", seconds)
        self._show_lanes()
        aside = self._owned.aside
        for number, one in aside.items():
            extra = {"lane": number, "code": one.code, "reason": one.reason, "hint": f"joblog lanes show {number}"}
            log.error("elector.lane_aside", extra=extra)
        lanes = sorted(self._owned.lanes)
        log.info("elector.lanes", extra={"lanes": lanes, "loaded": loaded, "seconds": round(seconds, 3)})
        self._health.set_ready()

    def _show_lanes(self) -> None:
        self._meters.set("joblog_lanes", len(self._owned.lanes))
        aside = self._owned.aside.values()
        for code in AsideCode:
            self._meters.set("joblog_lanes_aside", sum(one.code is code for one in aside), code)

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
            self._recovery.reload(())

    def _set_lost_aside(self) -> None:
        """Set those lanes aside of which the next record to read is not in the log any more."""
        for (topic, number), why in self._member.missing.items():
            if number in self._owned.lanes:
                self._owned.set_aside(number, SetAside(AsideCode.LOG_LOST, self._owned.gap(topic, number) or why))
        self._recovery.reload(())

    def _give_back(self, consumer: Consumer) -> None:
        """Give the lanes back in order, and keep them at hand: the next assignment may be the same."""
        self._health.set_unready("rebalancing")
        self._owned.give_back(consumer)
        self._show_lanes()

    def _lose(self) -> None:
        self._owned.drop()
        self._show_lanes()
        self._health.set_unready("lost the group")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _clock_ms() -> int:
    return time.monotonic_ns() // 1_000_000
