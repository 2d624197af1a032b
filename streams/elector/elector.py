"""The elector: consume, decide, produce, commit; no rules inside.

A plain loop on one thread. It owns the lanes that its consumer group gives it, each of them a `Lane` in memory.
Per turn: take what is there from `commands` and `reports`, let the lanes decide, write what they want written
and how far was read in one transaction. After a transaction that failed, or whose outcome is unknown, the lanes
are thrown away and loaded again from the log: nothing has to be undone.
"""

import gc
import logging
import random
import threading
import time
from collections.abc import Sequence
from math import inf
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from joblog.streams.contract.ids import lane_of_job
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.failed_records import FailedRecords, RecordFailed
from joblog.streams.elector.ownership import OwnedLanes
from joblog.streams.elector.quiet_period import QuietPeriod
from joblog.streams.elector.takeover import NotOurs, Takeover
from joblog.streams.elector.transaction import TransactionLog
from joblog.streams.elector.turn import ROLE, Turn
from joblog.streams.elector.unserved import UnservedJobs
from joblog.streams.errors import Fenced, LogLost, StepBack, TooLarge, TopicsError
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig, group_consumer
from joblog.streams.lane.filters import ElectFilter, FilterChain, RetryFilter
from joblog.streams.lane.rules import LaneRules
from joblog.streams.lane.transitions import Election
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

TICK_S: Final = 0.1
RETIRE_S: Final = 2.0
REJOIN_S: Final = 60.0
_NO_TOPIC: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
_FATAL: Final = frozenset({KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID})


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
        self._lanes = lanes
        self._batch_max = batch_max
        self._meters = meters
        self._health = health
        client_id = f"{names.prefix}elector-{instance}"
        self._log = TransactionLog(config, names, client_id)
        rules = rules or LaneRules()
        self._takeover = Takeover(config, names, lanes, rules, client_id)
        self._chain = FilterChain(
            (RetryFilter(random.random), *filters),
            on_error=lambda name: meters.inc("joblog_filter_errors_total", name),
            has_queue=lambda job_id, queue: rules.has_queue(queue, lane_of_job(job_id), lanes),
        )
        self._config = config
        self._client_id = client_id
        self._consumer = self._member()
        self._owned = OwnedLanes(names, self._takeover, self._log)
        self._wanted: list[int] | None = None
        self._reloading = False
        self._returned = False
        self._generation = 0
        self._fatal: KafkaError | None = None
        self._failed_records = FailedRecords()
        self._unserved = UnservedJobs(meters)
        self._quiet = QuietPeriod()
        self._trouble_at = -inf
        self._ticked_at = -inf
        # Fetched and not decided yet; and where the client found partitions to end, since the last turn.
        self._rest: list[Message] = []
        self._ends: dict[tuple[str, int], int] = {}

    def _member(self) -> Consumer:
        return group_consumer(
            self._config,
            f"{self._names.prefix}electors",
            self._client_id,
            error_cb=self._on_error,
            **{"group.instance.id": self._client_id, "enable.partition.eof": True},
        )

    def run(self, stop: threading.Event) -> None:
        """Elect until `stop` is set, then hand the lanes over. Raises Fenced, LogLost, ElectorError."""
        gc.set_threshold(100_000, 50, 100)  # what lives here lives long, and holds no cycles
        self._renew_producer(stop)
        self._subscribe()
        try:
            while not stop.is_set():
                self._health.beat()
                try:
                    self._turn()
                except StepBack as error:
                    self._step_back(error, stop)
                except RecordFailed as error:
                    self._decide_anew(error, stop)
                except Fenced as error:
                    if time.monotonic() - self._trouble_at > REJOIN_S:
                        raise
                    self._rejoin(error, stop)
            self._retire()
        finally:
            self._consumer.close()
            self._takeover.close()
            self._log.close()

    # --- one turn ---

    def _turn(self) -> None:
        messages = self._fetched()
        if self._returned:
            # Back under its name within the session after a hand-over (see _retire), a static member is given
            # what it had then: nothing. The group shares the lanes out anew when a member's topics change;
            # what is assigned of the additional topic is not read.
            self._returned = False
            self._subscribe(self._names.assignments)
            return
        if self._wanted is not None:
            self._take_over(self._wanted)
            return
        lanes = self._owned.lanes
        if not lanes:
            return
        election = Election(_now_ms(), _clock_ms(), self._chain.elect, self._chain.watched)
        turn = Turn(self._names, lanes, election, self._failed_records)
        self._decide(turn, messages)
        self._tick(turn)
        turn.assign()
        if not turn.empty:
            self._commit(turn, len(messages) - len(self._rest))

    def _fetched(self) -> list[Message]:
        """What is there now, about `batch_max` records; waits a tick for the first of them."""
        generation = self._generation
        messages, self._rest = self._rest, []
        found = self._consumer.consume(1, 0 if messages or self._is_unfilled() else TICK_S)
        if found and len(messages) < self._batch_max:
            found += self._consumer.consume(self._batch_max - len(messages), 0)
        messages += self._checked(found)
        if generation != self._generation:
            # The group was rebalanced between two records: they are fetched again, from the right place.
            self._ends.clear()
            if self._wanted is None and self._owned.lanes:
                self._owned.assign(self._consumer)
            return []
        return messages

    def _is_unfilled(self) -> bool:
        return any(lane.is_unfilled for lane in self._owned.lanes.values())

    def _decide(self, turn: Turn, messages: list[Message]) -> None:
        for index, message in enumerate(messages):
            if turn.is_full:
                self._rest = messages[index:]
                return
            turn.take(message)
        turn.skip_markers(self._owned.markers(self._ends))
        self._ends.clear()

    def _tick(self, turn: Turn) -> None:
        now = time.monotonic()
        if now - self._ticked_at >= TICK_S:
            self._ticked_at = now
            is_calm = self._quiet.is_over(now)
            turn.tick(self._owned.read_to_end(turn.offsets, self._consumer) if is_calm else ())
            self._meters.set("joblog_live_jobs", sum(len(lane.jobs) for lane in self._owned.lanes.values()))

    def _commit(self, turn: Turn, inputs: int) -> None:
        began = time.perf_counter()
        self._owned.commit(turn, self._consumer)
        self._failed_records.forget(turn.offsets)
        self._measure(turn, inputs, time.perf_counter() - began)

    def _measure(self, turn: Turn, inputs: int, seconds: float) -> None:
        meters = self._meters
        meters.inc("joblog_transactions_total", ROLE, "committed")
        meters.observe("joblog_transaction_duration_seconds", seconds, ROLE)
        meters.inc("joblog_election_inputs_total", by=inputs)
        for out in turn.outputs.values():
            meters.inc("joblog_log_events_total", by=len(out.events))
            for (name, label), count in out.counts.items():
                labels = (ROLE, label) if name == "joblog_quarantined_records_total" else (label,) if label else ()
                meters.inc(name, *labels, by=count)

    def _checked(self, messages: list[Message]) -> list[Message]:
        """The records among what was fetched; what the client has to say comes the same way."""
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            else:
                self._hear(error, message)
        if self._fatal is not None:
            raise Fenced(f"{self._log.transactional_id}: {self._fatal.str()}; does another elector use this id?")
        return records

    def _hear(self, error: KafkaError, message: Message) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            self._ends[str(message.topic()), message.partition() or 0] = message.offset() or 0
            return
        if error.fatal() or error.code() in _FATAL:
            self._fatal = error
        self._meters.inc("joblog_kafka_errors_total", ROLE, error.name())
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise LogLost(
                f"{message.topic()}/{message.partition()} no longer holds the next record to read ({error.str()}): "
                "it was deleted, or its retention is shorter than this elector was away"
            )
        hint = {"hint": "create the topics: joblog topics create"} if error.code() in _NO_TOPIC else {}
        log.warning("elector.kafka_error", extra={"error": error.str(), "code": error.name(), **hint})

    # --- membership ---

    def _subscribe(self, *more: str) -> None:
        topics = [self._names.commands, self._names.reports, *more]
        self._consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Note what is to be taken over; that happens in the next turn, where errors can be handled."""
        self._generation += 1
        self._meters.inc("joblog_rebalances_total", ROLE)
        by_topic = {
            topic: sorted(one.partition for one in partitions if one.topic == topic)
            for topic in (self._names.commands, self._names.reports)
        }
        consumer.assign([])
        if partitions and all(one.topic == self._names.deadletters for one in partitions):
            self._returned = True
            return
        commands, reports = by_topic.values()
        if commands != reports or (commands and commands[-1] >= self._lanes):
            raise TopicsError(
                f"assigned partitions {commands} of commands and {reports} of reports, with {self._lanes} lanes "
                "(JOBLOG_LANES): were partitions added?"
            )
        self._wanted, self._reloading = commands, False

    def _on_revoke(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        """Give the lanes back in order, and keep them at hand: the next assignment may be the same."""
        self._generation += 1
        self._health.set_unready("rebalancing")
        self._wanted = None
        self._owned.give_back(consumer)
        consumer.unassign()

    def _on_lost(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        """The group went on without us: nothing here is ours any more."""
        self._generation += 1
        self._wanted = None
        self._owned.drop()
        self._health.set_unready("lost the group")
        consumer.unassign()

    def _take_over(self, numbers: list[int]) -> None:
        began = time.perf_counter()
        try:
            loaded = self._owned.take(numbers, self._consumer, _clock_ms(), fence=not self._reloading)
        except NotOurs as error:
            # The group gave our lanes away while we slept or failed: ask it anew, do not fence the new owner.
            log.warning("elector.not_ours", extra={"owners": str(error)})
            self._wanted, self._reloading = None, False
            self._subscribe()
            return
        except KafkaException as error:
            raise StepBack(f"taking lanes {numbers} over failed: {error}") from error
        self._owned.assign(self._consumer)
        self._wanted, self._reloading = None, False
        self._forget_fetched()
        # Renewals that came meanwhile lie in the log, and the first fetch may be late.
        self._quiet.begin(time.monotonic())
        gc.collect()
        gc.freeze()
        seconds = time.perf_counter() - began
        self._meters.observe("joblog_lane_takeover_seconds", seconds)
        self._meters.set("joblog_lanes", len(numbers))
        self._unserved.report(self._owned.lanes.values())
        log.info("elector.lanes", extra={"lanes": numbers, "loaded": loaded, "seconds": round(seconds, 3)})
        self._health.set_ready()

    # --- trouble ---

    def _on_error(self, error: KafkaError) -> None:
        self._meters.inc("joblog_kafka_errors_total", ROLE, error.name())
        if error.fatal():
            self._fatal = error
        else:
            self._in_trouble()

    def _in_trouble(self) -> None:
        self._trouble_at = time.monotonic()
        self._quiet.begin(self._trouble_at)

    def _forget_fetched(self) -> None:
        self._rest.clear()
        self._ends.clear()

    def _rejoin(self, error: Fenced, stop: threading.Event) -> None:
        """Join the group as a new client, with what the log says.

        A member whose answer was lost with a broker asks again, and its second request fences its first: right
        after trouble with the brokers that is more likely than a second elector of this name.
        """
        log.warning("elector.rejoin", extra={"error": str(error)})
        self._health.set_unready("joining the group anew")
        self._generation += 1
        self._wanted, self._fatal = None, None
        self._owned.drop()
        self._forget_fetched()
        self._consumer.close()
        self._consumer = self._member()
        self._renew_producer(stop)
        self._subscribe()

    def _step_back(self, error: StepBack, stop: threading.Event) -> None:
        """A new producer, and all lanes as the log has them."""
        log.warning("elector.step_back", extra={"error": str(error)})
        self._meters.inc("joblog_transactions_total", ROLE, "failed")
        self._in_trouble()
        self._forget_fetched()
        if isinstance(error, TooLarge):
            self._batch_max = max(self._batch_max // 2, 1)
            log.warning("elector.smaller_batches", extra={"batch_max": self._batch_max})
        self._health.set_unready("stepping back after a failed transaction")
        if self._wanted is None and self._owned.lanes:
            self._wanted, self._reloading = sorted(self._owned.lanes), True
        self._owned.drop()
        self._renew_producer(stop)

    def _decide_anew(self, error: RecordFailed, stop: threading.Event) -> None:
        """Load the lanes of the turn again; when the record that failed is read again, it is not decided."""
        position = "{}/{}@{}".format(*error.place)
        log.error("elector.record_failed", exc_info=error.__cause__, extra={"position": position})
        self._failed_records.add(error.place, error.error)
        self._forget_fetched()
        self._wanted, self._reloading = sorted(self._owned.lanes), True
        self._owned.distrust(error.lanes)
        self._renew_producer(stop)  # which also waits until all that was committed can be read

    def _renew_producer(self, stop: threading.Event) -> None:
        def goes_on() -> bool:
            self._health.beat()
            return not stop.is_set()

        while goes_on():
            try:
                self._log.rebuild(goes_on)
            except KafkaException as error:
                log.warning("elector.no_producer", extra={"error": str(error)})
                stop.wait(0.5)
            else:
                self._meters.inc("joblog_producer_rebuilds_total", ROLE)
                return

    def _retire(self) -> None:
        """Hand the lanes over at once.

        A static member that closes does not leave its group: its lanes would wait for its session to end. A
        member that subscribes to other topics makes the group rebalance, and gets none of the lanes.
        """
        self._generation += 1
        generation = self._generation
        self._consumer.subscribe(
            [self._names.deadletters], on_assign=self._on_retired, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        deadline = time.monotonic() + RETIRE_S
        while time.monotonic() < deadline and self._generation < generation + 2:
            self._consumer.poll(0.05)

    def _on_retired(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._generation += 1
        consumer.assign([])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _clock_ms() -> int:
    return time.monotonic_ns() // 1_000_000
