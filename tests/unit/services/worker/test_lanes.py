from collections.abc import Iterable

from joblog.services.tasks.task import task
from joblog.services.worker.execution.run import KnownTask, Run
from joblog.services.worker.lanes import LaneBook
from joblog.services.worker.slots import Slots
from joblog.streams.contract.wire import RunJob
from msgspec import Raw

FRONT, BACK = 5, 2
WINDOW_S = 1.0


@task("t")
def nothing() -> None: ...


KNOWN = KnownTask.of(nothing)


class Idle:
    """Starts runs and never ends them."""

    def start(self, run: Run) -> None: ...


class Bench:
    """Two lanes, one queue each, four slots, prefetch of two."""

    def __init__(self) -> None:
        self.slots = Slots(4, ("front", "back"))
        self.slots.connect(Idle(), Idle())
        self.book = LaneBook((FRONT, BACK), 4, 2, WINDOW_S)
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
                queue="front" if lane == FRONT else "back",
                spec=Raw(b"{}"),
                ready_ms=0,
            )
            yield Run(job, KNOWN, "w", {}, 0.0)

    def end(self, count: int) -> None:
        for run in self.slots.running[:count]:
            self.slots.following(run)

    def offers(self, now: float) -> tuple[int, int]:
        offered = self.book.offers(self.slots, now)
        assert list(offered) == [FRONT, BACK]
        return offered[FRONT], offered[BACK]


def test_a_worker_offers_everything_to_each_lane_whatever_runs() -> None:
    bench = Bench()
    assert bench.offers(0) == (6, 6)
    bench.hold(BACK, 5)
    assert bench.offers(0.1) == (6, 6)


def test_a_run_that_was_stopped_and_goes_on_blocks_its_slot() -> None:
    bench = Bench()
    bench.hold(BACK, 2)
    bench.slots.running[0].stop("timeout")
    assert bench.offers(0) == (5, 5)


def test_a_lane_whose_job_went_back_is_offered_no_more_than_could_start() -> None:
    bench = Bench()
    bench.hold(BACK, 4)
    bench.book.lower(FRONT, 10)
    assert bench.offers(10) == (0, 3)


def test_the_slot_that_gets_free_goes_to_the_lane_in_front() -> None:
    bench = Bench()
    bench.hold(BACK, 4)
    bench.book.lower(FRONT, 10)
    bench.end(1)
    assert bench.offers(10.1) == (1, 3)
    bench.hold(FRONT, 1)
    assert bench.offers(10.2) == (2, 2)  # what it runs, and what it started lately


def test_lanes_are_raised_once_a_slot_was_free_for_the_whole_window() -> None:
    bench = Bench()
    bench.hold(BACK, 4)
    bench.book.lower(FRONT, 10)
    assert bench.offers(10) == (0, 3)
    bench.end(1)
    assert bench.offers(10.9) == (1, 3)
    assert bench.offers(11.1) == (6, 6)


def test_a_slot_that_was_taken_again_begins_the_window_anew() -> None:
    bench = Bench()
    bench.hold(BACK, 4)
    bench.book.lower(BACK, 10)
    bench.end(1)
    bench.offers(10.5)
    bench.hold(BACK, 1)
    assert bench.offers(10.9)[1] < 6
    bench.end(1)
    assert bench.offers(11.5)[1] < 6
    assert bench.offers(12.0) == (6, 6)


def test_a_lowered_lane_may_let_wait_as_many_as_started_within_the_window() -> None:
    bench = Bench()
    bench.hold(FRONT, 4)
    bench.book.lower(FRONT, 10)
    assert bench.offers(10)[0] == 4
    bench.hold(FRONT, 1)
    bench.end(1)
    assert bench.offers(10.2)[0] == 5
    bench.hold(FRONT, 1)
    bench.end(1)
    assert bench.offers(10.4)[0] == 6
    assert bench.offers(11.3)[0] == 5
    assert bench.offers(12.5)[0] == 4
