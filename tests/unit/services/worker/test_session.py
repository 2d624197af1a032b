"""One life of a worker whose Kafka acknowledges what the test lets it."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from joblog.services.tasks.context import CancellationToken, Cause
from joblog.services.tasks.task import TaskRegistry, task
from joblog.services.worker.assignments import Arrived
from joblog.services.worker.execution.loop import LoopExecutor
from joblog.services.worker.execution.performing import Performer
from joblog.services.worker.execution.processes import ProcessRuns
from joblog.services.worker.execution.results import Outcome, Released
from joblog.services.worker.execution.run import Run, clock, known_tasks
from joblog.services.worker.execution.threads import ThreadExecutor
from joblog.services.worker.options import WorkerOptions
from joblog.services.worker.orders import Orders
from joblog.services.worker.reports import Endings, RunMeters
from joblog.services.worker.session import Parts, Session
from joblog.services.worker.slots import Slots
from joblog.streams.contract.wire import OrderWorker, RunJob, ServeQueue, WorkerAnnounced
from joblog.streams.health import Health
from joblog.streams.metrics import Meters
from msgspec import Raw, structs

from tests.support.assigned import arrived

SETTINGS = WorkerOptions(queues=("a", "default"), lanes=4, slots=2, renew_s=0.1, lease_s=0.5)
WELL, ILL = SETTINGS.queues_of_lanes
TIMEOUT_S = 30.0


class Kafka:
    """Takes announcements and reports, and hands assignments out."""

    def __init__(self) -> None:
        self.away: set[int] = set()
        self.assigned: list[RunJob | OrderWorker | ServeQueue] = []
        self.announced: list[WorkerAnnounced] = []
        self.lanes: list[int] = []
        self.ended: dict[str, Outcome] = {}
        self.goodbyes: list[int] = []
        self.released: list[RunJob] = []
        self.is_readable = True
        self.unread_since = 0.0
        self.fetched_asleep: RunJob | None = None
        self.error: Exception | None = None

    def announce(self, lane: int, announced: WorkerAnnounced, acknowledged: Callable[[], None]) -> None:
        self.announced.append(announced)
        self.lanes.append(lane)
        if lane not in self.away:
            acknowledged()

    def stopping(self, lane: int, _worker: str) -> None:
        self.goodbyes.append(lane)

    def refused(self, job: RunJob, _worker: str, _reason: str) -> None:
        self.released.append(job)

    def ended_run(self, run: Run, outcome: Outcome) -> None:
        self.ended[run.job.job_id] = outcome

    def read_at(self, now: float) -> float:
        return now if self.is_readable else self.unread_since

    def take(self, timeout_s: float) -> list[Arrived]:
        if self.fetched_asleep is not None:
            job, self.fetched_asleep = self.fetched_asleep, None
            time.sleep(2 * SETTINGS.lease_s)
            return [arrived(job)]
        assigned, self.assigned = self.assigned, []
        if not assigned:
            time.sleep(min(timeout_s, 0.01))
        return list(map(arrived, assigned))

    def turn(self) -> None:
        if self.error is not None:
            raise self.error

    def drain(self, _timeout_s: float) -> bool:
        return True


class Reports:
    """What a session and its endings ask of reports."""

    def __init__(self, kafka: Kafka) -> None:
        self.announce, self.stopping, self.refused = kafka.announce, kafka.stopping, kafka.refused
        self.ended = kafka.ended_run


class Life:
    """A session in a thread of the test, with tokens of what it runs."""

    def __init__(self) -> None:
        self.kafka, self.tokens, self.over = Kafka(), dict[int, CancellationToken](), threading.Event()

        @task("patient", queue="a")
        def patient(lane: int, token: CancellationToken) -> None:
            self.tokens[lane] = token
            token.wait(TIMEOUT_S)

        known, meters, reports = known_tasks(TaskRegistry.of(patient)), Meters(), Reports(self.kafka)
        endings = Endings(reports, RunMeters(meters))  # type: ignore[arg-type]
        slots = Slots(SETTINGS.slots, SETTINGS.queues)
        performer = Performer(endings, RunMeters(meters), ProcessRuns(1_000), (), 1_000)
        threads, loop = ThreadExecutor(slots, performer.perform), LoopExecutor(slots, performer.perform_async)
        slots.connect(threads, loop, endings.fault)
        self.parts = parts = Parts(
            SETTINGS, known, slots, self.kafka, reports, endings, RunMeters(meters), Health("worker"), meters
        )  # type: ignore[arg-type]
        self.session = Session(parts, "w", self.kafka)  # type: ignore[arg-type]
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.is_well = self.session.run(self.stop)
        self.over.set()

    def job(self, lane: int) -> RunJob:
        queue = SETTINGS.queues_of_lanes[lane][0]
        spec = Raw(b'{"args":[%d]}' % lane)
        return RunJob(
            job_id=f"job-{lane}", lease=1, attempt=1, lane=lane, task="patient", queue=queue, spec=spec, ready_ms=1
        )

    def run(self, lane: int) -> str:
        """Assign a job of a lane, and wait until it runs."""
        job = self.job(lane)
        self.kafka.assigned.append(job)
        self.until(lambda: lane in self.tokens)
        return job.job_id

    def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def life() -> Iterator[Life]:
    made = Life()
    yield made
    made.kafka.away.clear()
    for token in made.tokens.values():
        token.cancel("the test is over")
    made.stop.set()
    made.thread.join(TIMEOUT_S)
    assert not made.thread.is_alive()


def test_a_lane_that_is_away_costs_its_own_runs_only(life: Life) -> None:
    well, ill = life.run(WELL), life.run(ILL)
    life.kafka.away.add(ILL)
    life.until(lambda: ill in life.kafka.ended)
    assert isinstance(life.kafka.ended[ill], Released)
    assert life.tokens[ILL].reason == Cause.LEASE_LOST
    assert not life.tokens[WELL].is_cancelled
    assert well not in life.kafka.ended
    assert not life.over.is_set()


def test_a_worker_that_no_lane_hears_gives_up_without_a_word(life: Life) -> None:
    life.run(WELL)
    life.kafka.away.update((WELL, ILL))
    assert life.over.wait(TIMEOUT_S)
    assert life.tokens[WELL].reason == Cause.LEASE_LOST
    assert life.kafka.ended == {}
    assert sorted(life.kafka.goodbyes) == sorted((WELL, ILL))


def test_what_was_fetched_while_the_process_slept_through_its_lease_does_not_start(life: Life) -> None:
    life.run(WELL)
    life.kafka.fetched_asleep = life.job(ILL)
    assert life.over.wait(TIMEOUT_S)
    assert ILL not in life.tokens
    assert life.tokens[WELL].reason == Cause.LEASE_LOST


def test_a_worker_that_cannot_read_its_assignments_gives_back_what_it_runs(life: Life) -> None:
    job_id = life.run(WELL)
    life.kafka.unread_since = clock()
    life.kafka.is_readable = False
    assert life.over.wait(TIMEOUT_S)
    assert clock() - life.kafka.unread_since >= SETTINGS.lease_s
    assert isinstance(life.kafka.ended[job_id], Released)
    assert life.tokens[WELL].reason == Cause.LEASE_LOST
    assert sorted(life.kafka.goodbyes) == sorted((WELL, ILL))


def test_an_error_in_the_loop_ends_the_session_and_gives_back_what_runs(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = life.run(WELL)
    life.kafka.error = RuntimeError("nobody foresaw this")
    assert life.over.wait(TIMEOUT_S)
    assert not life.is_well
    assert isinstance(life.kafka.ended[job_id], Released)
    assert life.tokens[WELL].is_cancelled
    assert sorted(life.kafka.goodbyes) == sorted((WELL, ILL))
    assert [record.exc_text for record in caplog.records if record.message == "worker.session_failed"]


def test_a_quiet_worker_takes_no_more_jobs_and_goes_on_with_what_it_runs(life: Life) -> None:
    job_id = life.run(WELL)
    life.kafka.assigned.append(OrderWorker(what="quiet", reason="told"))
    life.until(lambda: life.kafka.announced[-1].quiet)
    seen = len(life.kafka.announced)
    life.kafka.assigned.append(life.job(ILL))
    life.until(lambda: life.kafka.released)
    life.until(lambda: len(life.kafka.announced) >= seen + 4)  # it goes on renewing its leases
    assert {(one.slots, one.quiet) for one in life.kafka.announced[seen:]} == {(0, True)}
    assert not life.tokens[WELL].is_cancelled
    assert job_id not in life.kafka.ended
    assert not life.over.is_set()
    life.kafka.assigned.append(OrderWorker(what="resume", reason="told"))
    life.until(lambda: life.kafka.announced[-1].slots == SETTINGS.slots)
    assert not life.kafka.announced[-1].quiet
    assert life.run(ILL) not in life.kafka.ended


def test_a_job_of_a_further_lane_runs_after_the_worker_was_told_of_it_and_only_then(life: Life) -> None:
    queue, further = SETTINGS.queues[0], next(lane for lane in range(SETTINGS.lanes) if lane not in (WELL, ILL))
    job = structs.replace(life.job(WELL), lane=further)
    life.kafka.assigned.append(job)
    life.until(lambda: life.kafka.released)
    life.kafka.assigned += [ServeQueue(queue=queue, lane=further), ServeQueue(queue="not-its-own", lane=further)]
    life.until(lambda: further in life.kafka.lanes)
    offers = [one for lane, one in zip(life.kafka.lanes, life.kafka.announced, strict=False) if lane == further]
    assert {(one.queues, one.slots, one.home) for one in offers} == {((queue,), SETTINGS.slots, False)}
    life.kafka.assigned.append(structs.replace(job, lease=2))
    life.until(lambda: WELL in life.tokens)
    life.tokens[WELL].cancel("enough")
    life.until(lambda: job.job_id in life.kafka.ended)
    life.stop.set()
    assert life.over.wait(TIMEOUT_S)
    assert sorted(life.kafka.goodbyes) == sorted((WELL, ILL, further))


def test_a_worker_that_is_told_to_stop_gives_back_what_does_not_end_in_time(life: Life) -> None:
    job_id = life.run(WELL)
    life.kafka.assigned.append(OrderWorker(what="stop", reason="told"))
    life.until(lambda: life.kafka.announced[-1].slots == 0)
    life.tokens[WELL].cancel("its time is over")
    assert life.over.wait(TIMEOUT_S)
    assert life.stop.is_set()
    assert life.is_well
    assert job_id in life.kafka.ended
    assert sorted(life.kafka.goodbyes) == sorted((WELL, ILL))


def test_a_quiet_worker_stays_quiet_when_a_session_begins_anew(life: Life) -> None:
    life.kafka.assigned.append(OrderWorker(what="quiet", reason="told"))
    life.until(lambda: life.kafka.announced and life.kafka.announced[-1].quiet)
    life.kafka.error = RuntimeError("nobody foresaw this")
    assert life.over.wait(TIMEOUT_S)
    life.kafka.error = None
    life.kafka.announced.clear()
    following = Session(life.parts, "w2", life.kafka)  # type: ignore[arg-type]
    stop = threading.Event()
    thread = threading.Thread(target=following.run, args=(stop,))
    thread.start()
    life.until(lambda: life.kafka.announced)
    stop.set()
    thread.join(TIMEOUT_S)
    assert {(one.slots, one.quiet) for one in life.kafka.announced} == {(0, True)}


def test_a_worker_that_was_told_to_stop_takes_no_jobs_again() -> None:
    orders = Orders()
    for what, is_quiet in (("quiet", True), ("resume", False), ("stop", True), ("resume", True)):
        orders.take(OrderWorker(what=what, reason="told"))  # type: ignore[arg-type]
        assert orders.is_quiet is is_quiet
    assert orders.is_stop
