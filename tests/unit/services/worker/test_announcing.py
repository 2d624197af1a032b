from collections.abc import Callable, Iterable
from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.tasks.task import task
from joblog.services.worker.announcing import CHANGE_S, Announcer, LaneBook, LaneLoad, offers
from joblog.services.worker.execution.run import KnownTask, Leases, Run
from joblog.services.worker.options import WorkerOptions
from joblog.services.worker.report_sender import ReportSender
from joblog.services.worker.reports import Reports
from joblog.services.worker.served_lanes import ServedLanes
from joblog.services.worker.slots import Slots
from joblog.streams.contract.wire import AnyReport, RunJob, WorkerAnnounced, WorkerStopping
from msgspec import Raw

from tests.support.assigned import record_of

BEGIN = 100.0
SETTINGS = WorkerOptions(queues=("a", "b", "c"), lanes=4, slots=5)
FRONT, *_ = LANES = tuple(SETTINGS.queues_of_lanes)


class RecordingSender(ReportSender):
    """Keeps what would be sent, and the acknowledgements that the test may make."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, AnyReport]] = []
        self.acknowledge: list[Callable[[], None]] = []

    def send(self, lane: int, key: str, value: bytes) -> None:
        assert key == "w:1"
        self.sent.append((lane, msgspec.json.decode(value, type=AnyReport)))

    def renew(self, lane: int, key: str, value: bytes, acknowledged: Callable[[], None]) -> None:
        self.send(lane, key, value)
        self.acknowledge.append(acknowledged)


class Bench:
    def __init__(self) -> None:
        self.sender = RecordingSender()
        self.leases = Leases(LANES, SETTINGS.fence_s, BEGIN)
        self.announcer = Announcer(
            Reports(self.sender), SETTINGS, "w:1", {"t": None}, self.leases, ServedLanes(SETTINGS)
        )

    def say(self, slots: int, after_s: float, *, at_once: bool = False) -> int:
        """Announce so many slots to each lane; tells how many announcements that made."""
        before = len(self.sender.sent)
        self.announcer.announce(dict.fromkeys(LANES, slots), BEGIN + after_s, at_once=at_once)
        return len(self.sender.sent) - before


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_first_lane_is_the_home_of_the_worker(bench: Bench) -> None:
    assert len(LANES) > 1
    bench.say(5, 0)
    said = {lane: report for lane, report in bench.sender.sent if isinstance(report, WorkerAnnounced)}
    assert [lane for lane, report in said.items() if report.home] == [FRONT]
    assert {queue for report in said.values() for queue in report.queues} == {"a", "b", "c"}
    assert {(report.slots, report.all_slots, report.all_queues) for report in said.values()} == {
        (5, 5, ("a", "b", "c"))
    }


def test_an_offer_that_did_not_change_is_sent_again_only_to_renew(bench: Bench) -> None:
    assert bench.say(5, 0) == len(LANES)
    assert bench.say(5, SETTINGS.renew_s - 0.01) == 0
    assert bench.say(5, SETTINGS.renew_s) == len(LANES)


def test_a_change_is_announced_soon_but_not_more_often_than_every_change_s(bench: Bench) -> None:
    bench.say(5, 0)
    assert bench.say(4, CHANGE_S / 2) == 0
    assert bench.say(4, 1.1 * CHANGE_S) == len(LANES)
    assert bench.say(3, 1.5 * CHANGE_S) == 0
    assert bench.say(3, 2.2 * CHANGE_S) == len(LANES)


def test_the_last_change_is_announced_at_once(bench: Bench) -> None:
    bench.say(5, 0)
    assert bench.say(0, 0, at_once=True) == len(LANES)
    assert bench.say(0, 0, at_once=True) == 0


def test_a_worker_is_announced_when_every_lane_has_its_word(bench: Bench) -> None:
    bench.say(5, 0)
    for acknowledge in bench.sender.acknowledge[:-1]:
        acknowledge()
    assert not bench.announcer.is_announced
    bench.sender.acknowledge[-1]()
    assert bench.announcer.is_announced


def test_each_lanes_lease_counts_from_when_its_last_acknowledged_renewal_was_sent(bench: Bench) -> None:
    assert bench.leases.renewed_at == dict.fromkeys(LANES, BEGIN)
    bench.say(5, 1)
    bench.say(5, 4)
    for acknowledge in bench.sender.acknowledge[: len(LANES)]:
        acknowledge()
    assert bench.leases.renewed_at == dict.fromkeys(LANES, BEGIN + 1)
    bench.sender.acknowledge[-1]()
    assert bench.leases.renewed_at == {**dict.fromkeys(LANES, BEGIN + 1), LANES[-1]: BEGIN + 4}


def test_an_acknowledgement_that_is_late_does_not_turn_the_lease_back(bench: Bench) -> None:
    bench.say(5, 1)
    bench.say(5, 4)
    for acknowledge in reversed(bench.sender.acknowledge):
        acknowledge()
    assert bench.leases.renewed_at == dict.fromkeys(LANES, BEGIN + 4)


def test_every_lane_is_told_of_the_stop(bench: Bench) -> None:
    bench.announcer.announce_stop()
    assert bench.sender.sent == [(lane, WorkerStopping(worker="w:1")) for lane in LANES]


COUNT = st.integers(0, 50)
LOAD = st.builds(LaneLoad, COUNT, COUNT, COUNT, st.booleans())
LOADS = st.lists(LOAD, min_size=1, max_size=5)


def test_every_lane_is_offered_all_slots_and_the_prefetch() -> None:
    assert offers(20, 5, [LaneLoad(running=20), LaneLoad(waiting=20)]) == [25, 25]


def test_slots_that_are_blocked_are_not_offered() -> None:
    assert offers(18, 5, [LaneLoad()]) == [23]


def test_without_a_usable_slot_nothing_is_offered_not_even_the_prefetch() -> None:
    assert offers(0, 100, [LaneLoad(), LaneLoad(is_lowered=True)]) == [0, 0]


def test_a_lowered_lane_is_offered_what_runs_and_what_could_start() -> None:
    assert offers(20, 100, [LaneLoad(running=12, is_lowered=True)]) == [20]


def test_a_lowered_lane_may_let_wait_what_would_start_in_time() -> None:
    assert offers(20, 1000, [LaneLoad(running=20, started_lately=200, is_lowered=True)]) == [220]


def test_a_lane_in_front_of_a_lowered_one_keeps_its_offer() -> None:
    assert offers(20, 0, [LaneLoad(running=20), LaneLoad(is_lowered=True)]) == [20, 0]


def test_a_lane_behind_a_lowered_one_leaves_the_next_slot_to_it() -> None:
    assert offers(20, 0, [LaneLoad(is_lowered=True), LaneLoad(running=20)]) == [0, 19]
    # One of the lane behind has ended: it does not get the slot, the one in front does.
    assert offers(20, 0, [LaneLoad(is_lowered=True), LaneLoad(running=19)]) == [1, 19]
    # It took it, and is offered no more until the next one ends.
    assert offers(20, 0, [LaneLoad(running=1, is_lowered=True), LaneLoad(running=19)]) == [1, 18]


@given(COUNT, COUNT, LOADS)
def test_no_offer_is_negative_or_more_than_everything(capacity: int, prefetch: int, loads: list[LaneLoad]) -> None:
    assert all(0 <= offer <= capacity + prefetch for offer in offers(capacity, prefetch, loads))


@given(st.integers(1, 50), COUNT, LOADS)
def test_lanes_in_front_of_all_lowered_ones_get_everything(
    capacity: int, prefetch: int, loads: list[LaneLoad]
) -> None:
    lowered = [load.is_lowered for load in loads]
    front = lowered.index(True) if any(lowered) else len(loads)
    assert offers(capacity, prefetch, loads)[:front] == [capacity + prefetch] * front


@given(st.integers(1, 50), COUNT, st.lists(st.integers(0, 10), min_size=1, max_size=5))
def test_a_worker_with_a_free_slot_always_offers_one_to_a_lane_that_had_to_give_back(
    capacity: int, prefetch: int, running: list[int]
) -> None:
    loads = [LaneLoad(running=n, is_lowered=True) for n in running]
    has_room = sum(running) < capacity
    assert (offers(capacity, prefetch, loads)[0] > running[0]) == has_room or running[0] >= capacity + prefetch


@given(st.integers(1, 50), LOADS)
def test_lowering_a_lane_never_raises_an_offer(capacity: int, loads: list[LaneLoad]) -> None:
    raised = [LaneLoad(load.running, load.waiting, load.started_lately) for load in loads]
    before, after = offers(capacity, 10, raised), offers(capacity, 10, loads)
    assert all(now <= then for now, then in zip(after, before, strict=True))


FRONT_LANE, BACK_LANE = 5, 2
WINDOW_S = 1.0


@task("t")
def nothing() -> None: ...


KNOWN = KnownTask.of(nothing)


class Idle:
    """Starts runs and never ends them."""

    def start(self, run: Run) -> None: ...


class LanesBench:
    """Two lanes, one queue each, four slots, prefetch of two."""

    def __init__(self) -> None:
        self.slots = Slots(4, ("front", "back"))
        self.slots.connect(Idle(), Idle(), pytest.fail)
        self.book = LaneBook((FRONT_LANE, BACK_LANE), 4, 2, WINDOW_S)
        self._number = 0

    def hold(self, lane: int, count: int) -> None:
        self.slots.add(self._runs(lane, count))
        for _ in range(count):
            self.slots.start_next()

    def _runs(self, lane: int, count: int) -> Iterable[Run]:
        for _ in range(count):
            self._number += 1
            job = RunJob(
                job_id=f"job {self._number}",
                lease=1,
                attempt=1,
                lane=lane,
                task="t",
                queue="front" if lane == FRONT_LANE else "back",
                spec=Raw(b"{}"),
                ready_ms=0,
            )
            yield Run(job, KNOWN, "w", {}, 0.0, Leases((lane,), inf, 0.0), record_of(None))

    def end(self, count: int) -> None:
        for run in self.slots.running[:count]:
            self.slots.following(run)

    def offers(self, now: float) -> tuple[int, int]:
        offered = self.book.offers(self.slots, now)
        assert list(offered) == [FRONT_LANE, BACK_LANE]
        return offered[FRONT_LANE], offered[BACK_LANE]


def test_a_worker_offers_everything_to_each_lane_whatever_runs() -> None:
    bench = LanesBench()
    assert bench.offers(0) == (6, 6)
    bench.hold(BACK_LANE, 5)
    assert bench.offers(0.1) == (6, 6)


def test_a_run_that_was_stopped_and_goes_on_blocks_its_slot() -> None:
    bench = LanesBench()
    bench.hold(BACK_LANE, 2)
    bench.slots.running[0].stop("timeout")
    assert bench.offers(0) == (5, 5)


def test_a_lane_whose_job_went_back_is_offered_no_more_than_could_start() -> None:
    bench = LanesBench()
    bench.hold(BACK_LANE, 4)
    bench.book.lower(FRONT_LANE, 10)
    assert bench.offers(10) == (0, 3)


def test_the_slot_that_gets_free_goes_to_the_lane_in_front() -> None:
    bench = LanesBench()
    bench.hold(BACK_LANE, 4)
    bench.book.lower(FRONT_LANE, 10)
    bench.end(1)
    assert bench.offers(10.1) == (1, 3)
    bench.hold(FRONT_LANE, 1)
    assert bench.offers(10.2) == (2, 2)  # what it runs, and what it started lately


def test_lanes_are_raised_once_a_slot_was_free_for_the_whole_window() -> None:
    bench = LanesBench()
    bench.hold(BACK_LANE, 4)
    bench.book.lower(FRONT_LANE, 10)
    assert bench.offers(10) == (0, 3)
    bench.end(1)
    assert bench.offers(10.9) == (1, 3)
    assert bench.offers(11.1) == (6, 6)


def test_a_slot_that_was_taken_again_begins_the_window_anew() -> None:
    bench = LanesBench()
    bench.hold(BACK_LANE, 4)
    bench.book.lower(BACK_LANE, 10)
    bench.end(1)
    bench.offers(10.5)
    bench.hold(BACK_LANE, 1)
    assert bench.offers(10.9)[1] < 6
    bench.end(1)
    assert bench.offers(11.5)[1] < 6
    assert bench.offers(12.0) == (6, 6)


def test_a_lowered_lane_may_let_wait_as_many_as_started_within_the_window() -> None:
    bench = LanesBench()
    bench.hold(FRONT_LANE, 4)
    bench.book.lower(FRONT_LANE, 10)
    assert bench.offers(10)[0] == 4
    bench.hold(FRONT_LANE, 1)
    bench.end(1)
    assert bench.offers(10.2)[0] == 5
    bench.hold(FRONT_LANE, 1)
    bench.end(1)
    assert bench.offers(10.4)[0] == 6
    assert bench.offers(11.3)[0] == 5
    assert bench.offers(12.5)[0] == 4
