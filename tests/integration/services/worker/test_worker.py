"""A worker on a real broker; the test plays the elector."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from confluent_kafka import Message, TopicPartition
from joblog.services.tasks.context import CancellationToken
from joblog.services.tasks.task import TaskRegistry, task
from joblog.services.worker.announcing import LaneBook
from joblog.services.worker.intake import Intake
from joblog.services.worker.worker import Worker
from joblog.streams.contract.codec import encode
from joblog.streams.contract.ids import lane_of_queue, new_job_id
from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import CancelJob, RunFailed, RunJob, RunReleased, RunSucceeded, WorkerAnnounced
from joblog.streams.errors import TopicsError
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

from tests.support.worker_elector import TIMEOUT_S, Running, running

pytestmark = pytest.mark.broker


@task("add")
def add(a: int, b: int = 1) -> int:
    return a + b


@task("add_async")
async def add_async(a: int, b: int = 1) -> int:
    await asyncio.sleep(0)
    return a + b


@task("obey")
def obey(token: CancellationToken) -> str:
    token.wait(TIMEOUT_S)
    token.raise_if_cancelled()
    return "not stopped"


@task("odd")
def odd(what: str) -> object:
    return {"nan": float("nan"), "nul": "\0", "object": object()}[what]


class Gate:
    """A task that blocks until the test opens the gate, and one that notes its argument."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.notes: list[int] = []

    def tasks(self) -> TaskRegistry:
        @task("gated")
        def gated() -> bool:
            return self.is_open.wait(TIMEOUT_S)

        @task("note")
        def note(number: int) -> None:
            self.notes.append(number)

        return TaskRegistry.of(add, add_async, obey, odd, gated, note)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.is_open.set()


Start = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def start(kafka: KafkaConfig, topics: TopicNames, lanes: int, gate: Gate) -> Start:
    """Starts a worker on the test's topics."""

    def started(**settings: Any) -> AbstractContextManager[Running]:
        return running(kafka, topics, lanes, gate.tasks(), **settings)

    return started


def other_queue(lanes: int) -> str:
    """A queue whose lane is not that of `default`."""
    names = (f"other-{n}" for n in range(1_000))
    return next(name for name in names if lane_of_queue(name, lanes) != lane_of_queue("default", lanes))


def test_a_worker_announces_itself_to_each_of_its_lanes(start: Start, lanes: int) -> None:
    other = other_queue(lanes)
    with start(queues=["default", other], prefetch=2) as it:
        it.elector.until(lambda: len(it.elector.of(WorkerAnnounced)) >= 2)
        by_lane = {lane: report for lane, report in it.elector.heard if isinstance(report, WorkerAnnounced)}
    home = lane_of_queue("default", lanes)
    assert by_lane[home].home
    assert by_lane[home].queues == ("default",)
    assert not by_lane[lane_of_queue(other, lanes)].home
    for announced in by_lane.values():
        assert announced.worker.startswith("tester:")
        assert (announced.slots, announced.all_slots) == (6, 4)
        assert announced.all_queues == ("default", other)
        assert announced.tasks == ("add", "add_async", "gated", "note", "obey", "odd")


def test_a_worker_is_ready_once_kafka_has_its_announcement_and_goes_on_renewing(start: Start) -> None:
    with start(renew_s=0.2) as it:
        it.elector.until(lambda: it.health.ready)
        it.elector.until(lambda: len(it.elector.of(WorkerAnnounced)) >= 4)
        assert it.health.alive
    assert not it.health.ready


@pytest.mark.parametrize("name", ["add", "add_async"])
def test_an_assigned_job_runs_and_is_reported_in_its_lane(start: Start, name: str) -> None:
    with start() as it:
        job = it.elector.assign(name, 1, kwargs={"b": 2})
        report = it.elector.end()
        assert (report.job_id, report.lease, bytes(report.result)) == (job.job_id, 1, b"3")
        assert it.elector.heard[-1][0] == job.lane


def test_records_for_other_workers_are_not_touched(start: Start, kafka: KafkaConfig, topics: TopicNames) -> None:
    with start() as it:
        announced = it.elector.of(WorkerAnnounced)[0]
        producer = clients.producer(kafka, "test-other")
        producer.produce(topics.assignments, b"not for us", "somebody:1:00000000", announced.partition)
        producer.flush(TIMEOUT_S)
        job = it.elector.assign("add", 1)
        assert it.elector.end().job_id == job.job_id
        assert len(it.elector.ends) == 1
        assert it.count("joblog_quarantined_records_total", role="worker", reason="undecodable") == 0


def write_raw(it: Running, kafka: KafkaConfig, topics: TopicNames, value: bytes | str) -> WorkerAnnounced:
    """Send a record to the worker that no elector would write."""
    announced: WorkerAnnounced = it.elector.of(WorkerAnnounced)[0]
    producer = clients.producer(kafka, "test-other")
    producer.produce(topics.assignments, value, announced.worker, announced.partition)
    producer.flush(TIMEOUT_S)
    return announced


def dead_letters(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, count: int
) -> list[tuple[bytes, dict[str, str]]]:
    """So many dead letters, once they are there: their values, and the headers that say why."""
    consumer = clients.reader(kafka, "test-deadletters", **{"enable.partition.eof": False})
    consumer.assign([TopicPartition(topics.deadletters, lane, 0) for lane in range(lanes)])
    found: list[Message] = []
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while len(found) < count:
            assert time.monotonic() < deadline
            found += consumer.consume(100, 0.1)
    finally:
        consumer.close()
    return [
        (one.value() or b"", {name: str(bytes(text), "utf-8") for name, text in one.headers() or ()}) for one in found
    ]


def test_a_record_that_cannot_be_read_is_parked_and_passed_over(
    start: Start, kafka: KafkaConfig, topics: TopicNames, lanes: int
) -> None:
    with start() as it:
        announced = write_raw(it, kafka, topics, b"not JSON")
        it.elector.assign("add", 1)
        assert isinstance(it.elector.end(), RunSucceeded)
        assert it.count("joblog_quarantined_records_total", role="worker", reason="undecodable") == 1
        [(value, headers)] = dead_letters(kafka, topics, lanes, 1)
        assert value == b"not JSON"
        assert (headers["joblog-reason-code"], headers["joblog-role"]) == ("undecodable", "worker")
        place = (topics.assignments, str(announced.partition), "0")
        assert tuple(headers[f"joblog-{name}"] for name in ("topic", "partition", "offset")) == place


def test_a_job_whose_assignment_cannot_be_read_fails_with_the_reason(
    start: Start, kafka: KafkaConfig, topics: TopicNames, lanes: int
) -> None:
    with start() as it:
        lane = lane_of_queue("default", lanes)
        run = {"type": "job.run", "job_id": new_job_id(lane, 1), "lease": 7, "lane": lane, "task": 3}
        announced = write_raw(it, kafka, topics, json.dumps(run))
        report = it.elector.end()
        assert isinstance(report, RunFailed)
        assert (report.job_id, report.lease, report.worker) == (run["job_id"], 7, announced.worker)
        assert report.exception.type == "joblog.Unreadable"
        assert "The assignment cannot be read: " in report.exception.message
        assert it.elector.heard[-1][0] == lane
        [(value, _)] = dead_letters(kafka, topics, lanes, 1)
        assert json.loads(value) == run


def test_an_error_of_the_worker_itself_costs_one_job_which_is_parked_and_fails(
    start: Start, kafka: KafkaConfig, topics: TopicNames, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Intake._take

    def broken(intake: Intake, job: RunJob, *rest: Any) -> None:
        if job.task == "gated":
            raise RuntimeError("nobody foresaw this")
        take(intake, job, *rest)

    monkeypatch.setattr(Intake, "_take", broken)
    with start() as it:
        job = it.elector.assign("gated")
        report = it.elector.end()
        assert (report.job_id, type(report)) == (job.job_id, RunFailed)
        assert "RuntimeError: nobody foresaw this" in report.exception.message
        it.elector.assign("add", 1)
        assert isinstance(it.elector.end(2), RunSucceeded)
        assert it.count("joblog_quarantined_records_total", role="worker", reason="internal_error") == 1
        [(value, headers)] = dead_letters(kafka, topics, lanes, 1)
        assert value == encode(job)
        assert headers["joblog-reason-code"] == "internal_error"
        assert headers["joblog-reason"].startswith("Traceback")


def test_an_error_in_the_workers_loop_gives_back_what_runs_and_the_worker_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start() as it:
        before = it.worker.id
        job = it.elector.assign("obey")
        it.elector.until(lambda: it.started("obey"))

        def broken(*_: Any) -> None:
            monkeypatch.undo()
            raise RuntimeError("nobody foresaw this")

        monkeypatch.setattr(LaneBook, "offers", broken)
        report = it.elector.end()
        assert (report.job_id, type(report), report.worker) == (job.job_id, RunReleased, before)
        it.elector.until(lambda: it.elector.of(WorkerAnnounced)[-1].worker not in {before})
        it.elector.assign("add", 1)
        assert isinstance(it.elector.end(2), RunSucceeded)


@pytest.mark.parametrize("what", ["nan", "nul", "object"])
def test_a_result_that_cannot_be_kept_is_left_out(start: Start, what: str) -> None:
    with start() as it:
        it.elector.assign("odd", what)
        report = it.elector.end()
    assert isinstance(report, RunSucceeded)
    assert (bytes(report.result), bool(report.result_omitted)) == (b"null", True)


def test_a_cancelled_run_stops_and_its_slot_takes_the_next_job(start: Start) -> None:
    with start(slots=1) as it:
        job = it.elector.assign("obey")
        it.elector.write(CancelJob(job_id=job.job_id, lease=1, reason="deleted"))
        after = it.elector.assign("add", 1)
        assert it.elector.end().job_id == after.job_id


def test_a_run_fails_at_its_deadline_while_its_thread_keeps_the_slot(start: Start, gate: Gate) -> None:
    with start(slots=2) as it:
        lane = it.elector.assign("gated", timeout_s=0.2).lane
        report = it.elector.end()
        assert isinstance(report, RunFailed)
        assert report.exception.type == "joblog.streams.errors.JobTimeout"
        assert "in gated" in report.exception.details
        assert report.duration_ms >= 200
        it.elector.until(lambda: it.elector.offered(lane) == 1)
        gate.is_open.set()
        it.elector.until(lambda: it.elector.offered(lane) == 2)
        assert len(it.elector.ends) == 1


def test_a_job_that_found_no_slot_goes_back_and_its_lane_is_offered_less(start: Start, gate: Gate) -> None:
    with start(slots=1, prefetch=5, release_after_s=0.3) as it:
        lane = it.elector.assign("gated").lane
        waiting = it.elector.assign("add", 1)
        report = it.elector.end()
        assert (report.job_id, type(report), report.started) == (waiting.job_id, RunReleased, False)
        # The lane was told before the job went back, so that it does not send it here again.
        said = [heard for _, heard in it.elector.heard]
        before = said[: said.index(report)]
        assert [heard.slots for heard in before if isinstance(heard, WorkerAnnounced)][-1] == 1
        gate.is_open.set()
        it.elector.until(lambda: it.elector.offered(lane) == 6)


def test_jobs_of_the_first_queue_overtake_those_of_the_second(start: Start, lanes: int, gate: Gate) -> None:
    other = other_queue(lanes)
    with start(slots=1, queues=["default", other], release_after_s=TIMEOUT_S) as it:
        it.elector.assign("gated")
        for number, queue in enumerate([other, other, "default"]):
            it.elector.assign("note", number, queue=queue)
        it.elector.settle()
        gate.is_open.set()
        it.elector.end(4)
        assert gate.notes == [2, 0, 1]


def test_a_worker_refuses_topics_of_another_number_of_lanes(
    kafka: KafkaConfig, topics: TopicNames, lanes: int
) -> None:
    worker = Worker(
        kafka,
        topics,
        lanes + 1,
        TaskRegistry.of(add),
        queues=["default"],
        meters=Meters(),
        health=Health("worker"),
    )
    with pytest.raises(TopicsError, match="partitions"):
        worker.run(threading.Event())
