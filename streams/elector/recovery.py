"""What an elector does when something went wrong.

- a transaction failed, or its outcome is unknown (StepBack): all lanes are loaded again from the log
- deciding a record raised (RecordFailed): the lanes of the turn are loaded again, and the record is parked
- a lane raised without a record at fault (LaneFailed): that lane is set aside, the others go on
- what a lane wants written cannot be (WriteFailed): smaller turns find the record at fault, and it is parked
- the client was fenced (Fenced): this process joins the group again

If another process was started with this elector's id after this one, this one ends instead.

Nothing is ever undone: a lane's memory is thrown away, and what was committed is read back.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import Final

from confluent_kafka import KafkaError, KafkaException
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
from joblog.streams.elector.registration import Registration
from joblog.streams.elector.takeover import SetAside
from joblog.streams.elector.transaction import TransactionLog
from joblog.streams.elector.turn_size import TurnSize
from joblog.streams.errors import ElectorError, Fenced, StepBack, TooLarge
from joblog.streams.health import Health
from joblog.streams.kafka.bounded import Hung
from joblog.streams.kafka.clients import SESSION_TIMEOUT_S
from joblog.streams.metrics import Meters

log: Final = logging.getLogger(__name__)

PAUSE_S: Final = 0.5
_FENCES: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})


class Recovery:
    """Puts an elector's parts back to work after an error.

    - is_reloading: whether the lanes that are to be taken were ours a moment ago: then nobody is fenced for them.
    - failed_records, turn_size: what follows for the next turns.
    """

    def __init__(
        self,
        member: Membership,
        owned: OwnedLanes,
        transactions: TransactionLog,
        registration: Registration,
        turn_size: TurnSize,
        meters: Meters,
        health: Health,
    ) -> None:
        self._member = member
        self._owned = owned
        self._log = transactions
        self._registration = registration
        self._meters = meters
        self._health = health
        self.turn_size = turn_size
        self.failed_records = FailedRecords()
        self.is_reloading = False

    def register(self, stop: threading.Event) -> None:
        """Say that this process is the latest with its id; waits for brokers."""
        goes_on = self._goes_on(stop)
        while goes_on():
            try:
                self._registration.register()
            except (KafkaException, Hung) as error:
                log.warning(
                    "elector.waiting_for_kafka",
                    extra={"brokers": self._registration.brokers, "error": no_answer(error)},
                )
                stop.wait(PAUSE_S)
            else:
                return

    def handle(self, error: ElectorError, stop: threading.Event) -> None:
        """Do what the module's docstring says for this kind of error; raises it again if nothing helps."""
        match error:
            case Fenced():
                self._meters.inc("joblog_fenced_total", ROLE)
                self._rejoin(error, stop)
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

    def _end_if_replaced(self, error: ElectorError, stop: threading.Event) -> None:
        """Raise Fenced if another process was started with this elector's id after this one, and lives.

        If not, it was fenced by itself (a join whose answer was lost with a broker is repeated, and fences its own
        first try), or by an elector that took its lanes over while it slept: it may go on.
        """
        is_latest = self._is_latest(stop)
        if stop.is_set() or is_latest:
            return
        if not isinstance(error, Fenced):
            self._wait_for_the_other(stop)  # raises Fenced
            self.register(stop)
            return
        raise Fenced(f"{error}; another elector was started with the same id") from error

    def _is_latest(self, stop: threading.Event) -> bool:
        """Waits for brokers; meaningless when `stop` was set meanwhile."""
        goes_on = self._goes_on(stop)
        while goes_on():
            try:
                return self._registration.is_latest()
            except (KafkaException, Hung) as unknown:
                log.warning("elector.waiting_for_kafka", extra={"error": no_answer(unknown)})
                stop.wait(PAUSE_S)
        return False

    def _wait_for_the_other(self, stop: threading.Event) -> None:
        """Return if the other process did not join the group: it ended right after it was started.

        Raises Fenced when it has, which this member's next heartbeats tell it.
        """
        goes_on, deadline = self._goes_on(stop), time.monotonic() + SESSION_TIMEOUT_S
        while goes_on() and time.monotonic() < deadline:
            try:
                self._member.fetch(1, PAUSE_S)
            except Fenced as fenced:
                raise Fenced(f"{fenced}; another elector was started with the same id") from fenced

    def _rejoin(self, error: Fenced, stop: threading.Event) -> None:
        """Join the group as a new client, with what the log says, unless another process has this elector's id."""
        self._end_if_replaced(error, stop)
        log.warning("elector.rejoin", extra={"error": str(error)})
        self._health.set_unready("joining the group anew")
        self._meters.set("joblog_lanes", 0)
        self._owned.drop()
        self._log.close()
        self._member.rejoin()

    def _step_back(self, error: StepBack, stop: threading.Event) -> None:
        """A new producer, and all lanes as the log has them."""
        log.warning("elector.step_back", extra={"error": str(error)})
        self._meters.inc("joblog_transactions_total", ROLE, "failed")
        if _is_fence(error.__cause__):
            self._meters.inc("joblog_fenced_total", ROLE)
        if isinstance(error, TooLarge):
            self.turn_size.shrink()
            log.warning("elector.smaller_turns", extra={"records": self.turn_size.now})
        self._health.set_unready("stepping back after a failed transaction")
        self.reload(self._owned.lanes)
        self._meters.set("joblog_lanes", 0)
        self._owned.drop()
        self._end_if_replaced(error, stop)  # a twin's producer would be fenced by a new one of ours
        self.renew_producer(stop)

    def _find_unwritable(self, error: WriteFailed) -> None:
        """Part the turn until it holds one record, which then is at fault; if there is none, it is the lane."""
        if error.inputs > 1:
            self.turn_size.shrink(error.inputs)
        elif error.last is not None and error.last[1] == error.number:
            self._blame(error.last, error)
        else:
            self._set_failed_aside(error.number, error)

    def _blame(self, place: Place, error: TurnFailed) -> None:
        """Have the record there parked when it is read again; if that failed, too, its lane is at fault."""
        known = self.failed_records.find(place)
        if known is None or known.tries < TRIES_MAX:
            self.failed_records.add(place, error.error)
        else:
            self._set_failed_aside(place[1], error)

    def _set_failed_aside(self, number: int, error: TurnFailed) -> None:
        self._owned.set_aside(number, SetAside(AsideCode.INTERNAL_ERROR, error.error.reason, error.error.details))

    def _decide_anew(self, error: TurnFailed, stop: threading.Event) -> None:
        """Load the lanes of a turn that failed again, and read its records again."""
        log.error("elector.turn_failed", exc_info=error.__cause__, extra={"error": str(error)})
        self.reload(error.lanes)
        self.renew_producer(stop)  # which also waits until all that was committed can be read

    def reload(self, lanes: Collection[int]) -> None:
        """Take over in the next turn what we have; of it, load these lanes again from the log."""
        self._member.forget_fetched()
        if self._member.wanted is None and (numbers := self._owned.numbers):
            self._member.wanted, self.is_reloading = numbers, True
        self._owned.distrust(lanes)

    def renew_producer(self, stop: threading.Event) -> None:
        """Make a new producer, which fences an older one of this id; waits for brokers."""
        goes_on = self._goes_on(stop)
        while goes_on():
            try:
                self._log.rebuild(goes_on)
            except KafkaException as error:
                log.warning("elector.no_producer", extra={"error": str(error)})
                stop.wait(PAUSE_S)
            else:
                self._meters.inc("joblog_producer_rebuilds_total", ROLE)
                return

    def _goes_on(self, stop: threading.Event) -> Callable[[], bool]:
        """For loops that wait: whether to go on; asking tells that this process lives, and serves the client.

        The group may give this elector other lanes meanwhile.
        """

        def goes_on() -> bool:
            self._health.beat()
            self._member.serve()
            return not stop.is_set()

        return goes_on


def _is_fence(cause: BaseException | None) -> bool:
    """Whether a transaction failed because another producer has taken its id."""
    return isinstance(cause, KafkaException) and cause.args[0].code() in _FENCES
