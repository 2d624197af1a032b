"""The elector on a real broker: decisions, take-over, fencing; the tests play clients and workers."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job, lane_of_queue, murmur2, new_job_id
from joblog.streams.contract.topics import ASSIGNMENT_PARTITIONS, TopicNames
from joblog.streams.elector.elector import Elector
from joblog.streams.elector.lane_records import LaneRecord, read_state
from joblog.streams.elector.transaction import TransactionLog
from joblog.streams.errors import Fenced, StepBack, TooLarge
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig, producer, reader
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.rules import LaneRules
from joblog.streams.metrics import Meters
from msgspec import Raw, json

pytestmark = pytest.mark.broker

PROGRAM = """
import signal, sys, threading
from joblog.streams.elector.elector import Elector
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters
from joblog.streams.contract.topics import TopicNames
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
bootstrap, prefix, lanes, instance = sys.argv[1:]
health = Health("elector")
Elector(
    KafkaConfig(bootstrap), TopicNames(prefix), int(lanes), instance=instance, meters=Meters(), health=health
).run(stop)
"""
WORKER = "w-1"
PARTITION = (murmur2(WORKER.encode()) & 0x7FFFFFFF) % ASSIGNMENT_PARTITIONS


class Log:
    """The events and assignments of a test's lanes, as they come; and a producer to act with."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames, lanes: int) -> None:
        self.names, self.lanes = names, lanes
        self.producer: Producer = producer(kafka, "test", linger_ms=0)
        self.reader: Consumer = reader(kafka, "test")
        topics = [(names.events, lanes), (names.assignments, ASSIGNMENT_PARTITIONS), (names.deadletters, lanes)]
        self.reader.assign([TopicPartition(topic, n, 0) for topic, count in topics for n in range(count)])
        self.events: list[dict[str, Any]] = []
        self.assignments: list[wire.AnyAssignment] = []
        self.deadletters: list[tuple[bytes | None, dict[str, bytes]]] = []
        self.seen: dict[int, list[float]] = defaultdict(list)
        self.queues: dict[int, str] = {}
        for number in range(10_000):
            self.queues.setdefault(lane_of_queue(f"q{number}", lanes), f"q{number}")
            if len(self.queues) == lanes:
                break

    def poll(self) -> "Log":
        for message in self.reader.consume(1000, 0.05):
            value = message.value()
            if message.error() is not None:
                continue
            if message.topic() == self.names.events:
                self.events.append(json.decode(value))
                self.seen[message.partition() or 0].append(time.monotonic())
            elif message.topic() == self.names.assignments:
                self.assignments.append(json.decode(value, type=wire.AnyAssignment))
            else:
                self.deadletters.append((value, dict(message.headers() or [])))
        return self

    def create(self, lane: int, **data: Any) -> str:
        job_id = new_job_id(lane, 1_700_000_000_000)
        body = {"task": "t", "queue": self.queues[lane], "job_id": job_id, **data}
        self.command("job.create", body, lane)
        return job_id

    def command(self, kind: str, data: dict[str, Any], lane: int) -> None:
        event = {"specversion": "1.0", "id": f"c{time.monotonic_ns()}", "source": "/test", "type": kind, "data": data}
        self.producer.produce(self.names.commands, json.encode(event), "k", lane)

    def announce(self, slots: int = 1000, tasks: tuple[str, ...] = ("t",)) -> None:
        for lane, queue in self.queues.items():
            word = wire.WorkerAnnounced(
                worker=WORKER,
                partition=PARTITION,
                queues=(queue,),
                all_queues=tuple(self.queues.values()),
                slots=slots,
                all_slots=slots,
                tasks=tasks,
                started_at=datetime(2026, 1, 1, tzinfo=UTC),
                home=lane == 0,
            )
            self.report(word, lane)

    def report(self, report: wire.AnyReport, lane: int) -> None:
        self.producer.produce(self.names.reports, json.encode(report), "k", lane)
        self.producer.flush()

    def succeed(self, run: wire.RunJob) -> None:
        done = wire.RunSucceeded(
            job_id=run.job_id, lease=run.lease, worker=WORKER, result=Raw(b"1"), duration_ms=1, started_ms=1
        )
        self.report(done, run.lane)

    def of(self, job_id: str) -> list[str]:
        """The types of a job's events, after making sure that their versions have no gap."""
        mine = [event for event in self.poll().events if event["subject"] == job_id]
        assert [event["data"]["version"] for event in mine] == list(range(1, len(mine) + 1))
        return [event["type"].removeprefix("job.") for event in mine]

    def runs(self) -> list[wire.RunJob]:
        return [one for one in self.poll().assignments if isinstance(one, wire.RunJob)]


@pytest.fixture
def log(kafka: KafkaConfig, topics: TopicNames, lanes: int) -> Iterator[Log]:
    made = Log(kafka, topics, lanes)
    yield made
    made.reader.close()


@pytest.fixture
def start(kafka: KafkaConfig, names: TopicNames, lanes: int) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    running = []

    def started(instance: str) -> subprocess.Popen[bytes]:
        arguments = [kafka.bootstrap_servers, names.prefix, str(lanes), instance]
        running.append(subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments]))
        return running[-1]

    yield started
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def elector(kafka: KafkaConfig, topics: TopicNames, lanes: int) -> Iterator[Elector]:
    """An elector in this process, running until the test ends."""
    health, stop = Health("elector"), threading.Event()
    made = Elector(kafka, topics, lanes, instance="in-process", meters=Meters(), health=health)
    thread = threading.Thread(target=made.run, args=(stop,), daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not health.ready and time.monotonic() < deadline:
        time.sleep(0.01)
    assert health.ready, health.reason
    yield made
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_job_goes_from_command_to_success(elector: Elector, log: Log, wait_until: Any) -> None:
    log.announce()
    job = log.create(0, args=[1], parameters={"a": 1})
    (run,) = wait_until(log.runs, 10, "an assignment")
    assert (run.job_id, run.attempt, run.lease) == (job, 1, 2)
    assert json.decode(run.spec) == {"args": [1], "parameters": {"a": 1}}
    log.succeed(run)
    wait_until(lambda: log.of(job) == ["enqueued", "processing", "succeeded"], 10, "success")


def test_records_nobody_can_read_are_parked_and_the_lane_goes_on(elector: Elector, log: Log, wait_until: Any) -> None:
    good = {"specversion": "1.0", "id": "1", "source": "/s", "type": "job.create", "data": {"task": "t"}}
    queue = log.queues[0]
    bad: dict[str, bytes | None] = {
        "broken JSON": b'{"specversion": "1.0", ',
        "no value": None,
        "not UTF-8": b'{"a": "\xff"}',
        "wrong version": json.encode({**good, "specversion": "2.0"}),
        "unknown type": json.encode({**good, "type": "job.explode"}),
        "unknown field": json.encode({**good, "data": {"task": "t", "colour": "red"}}),
        "bad queue": json.encode({**good, "data": {"task": "t", "queue": "No Such!"}}),
        "NUL": json.encode({**good, "data": {"task": "t", "args": ["a\x00b"]}}),
        "lane beyond": json.encode({**good, "data": {"task": "t", "job_id": new_job_id(4000, 1)}}),
        "oversized": json.encode({**good, "data": {"task": "t", "args": ["x" * 1_200_000]}}),
    }
    for value in bad.values():
        log.producer.produce(log.names.commands, value, "foreign key", 0)
    log.producer.produce(log.names.reports, b"\x00\x01garbage", "k", 0)
    log.announce()
    job = log.create(0, queue=queue)
    wait_until(lambda: len(log.poll().deadletters) == len(bad) + 1, 20, "all dead letters")
    assert sorted((value or b"")[:800_000] for value, _ in log.deadletters) == sorted(
        [(value or b"")[:800_000] for value in bad.values()] + [b"\x00\x01garbage"]
    )
    assert all(headers["joblog-reason"] and headers["joblog-reason-code"] for _, headers in log.deadletters)
    wait_until(lambda: log.of(job)[:2] == ["enqueued", "processing"], 10, "the lane to go on")
    rejected = [event["data"] for event in log.events if event["type"] == "command.rejected"]
    assert len(rejected) == len(bad)
    assert all(one["reason"] and one["position"].startswith("commands/0@") for one in rejected)


def test_a_record_that_fails_in_an_unforeseen_way_is_parked_and_leaves_no_trace_in_the_lane(
    elector: Elector, log: Log, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide_command, decide_report = Lane.command, Lane.report
    poison = new_job_id(0, 2)

    def command(self: Lane, received: wire.Received, *args: Any) -> None:
        decide_command(self, received, *args)
        if received.command.job_id == poison and isinstance(received.command, wire.CreateJob):
            raise RecursionError("too deep")

    def report(self: Lane, said: wire.AnyReport, *args: Any) -> None:
        decide_report(self, said, *args)
        if isinstance(said, wire.RunSucceeded):
            raise ZeroDivisionError("nobody foresaw it")

    monkeypatch.setattr(Lane, "command", command)
    monkeypatch.setattr(Lane, "report", report)
    log.announce()
    others = [log.create(lane) for lane in (0, 1)]
    log.create(0, job_id=poison)
    log.command("job.delete", {"job_id": poison}, 0)
    others += [log.create(lane) for lane in (0, 1)]
    log.producer.flush()
    wait_until(lambda: len(log.poll().deadletters) == 1, 20, "the dead letter")
    wait_until(lambda: sorted(run.job_id for run in log.runs()) == sorted(others), 20, "the other jobs")
    rejected = [event["data"] for event in log.events if event["type"] == "command.rejected"]
    assert [(one["code"], one["job_id"]) for one in rejected] == [
        ("internal_error", poison), ("unknown_job", poison)
    ]  # fmt: skip
    headers = log.deadletters[0][1]
    assert headers["joblog-reason-code"] == b"internal_error"
    assert b"RecursionError: too deep" in headers["joblog-reason"]
    log.succeed(next(run for run in log.runs() if run.job_id == others[0]))
    wait_until(lambda: log.of(others[0])[2:3] == ["failed"], 20, "the run's failure")
    assert b"ZeroDivisionError" in wait_until(lambda: log.poll().deadletters[1:], 10, "it")[0][1]["joblog-reason"]
    labels = {"role": "elector", "reason": "internal_error"}
    assert elector._meters.registry.get_sample_value("joblog_quarantined_records_total", labels) == 2
    for job in others:
        log.of(job)


def test_a_command_in_the_wrong_lane_is_forwarded(elector: Elector, log: Log, wait_until: Any) -> None:
    job_id = new_job_id(1, 1)
    log.command("job.create", {"task": "t", "queue": log.queues[1], "job_id": job_id}, 0)
    log.producer.flush()
    wait_until(lambda: log.of(job_id) == ["enqueued"], 10, "the job in its own lane")
    assert lane_of_job(job_id) == 1
    assert not log.deadletters


def test_a_plain_event_without_job_id_makes_one_job_however_often_it_is_sent(
    elector: Elector, log: Log, wait_until: Any
) -> None:
    queue = log.queues[1]
    event = {
        "specversion": "1.0", "id": "order-1", "source": "/shop", "type": "job.create",
        "data": {"task": "t", "args": ["é"], "queue": queue},
    }  # fmt: skip
    for _ in range(2):
        log.producer.produce(log.names.commands, json.encode(event), queue)  # the partitioner finds the lane
    headers = [("ce_specversion", "1.0"), ("ce_id", "order-1"), ("ce_source", "/shop"), ("ce_type", "job.create")]
    log.producer.produce(log.names.commands, json.encode(event["data"]), queue, headers=headers)
    log.announce()
    (run,) = wait_until(log.runs, 10, "an assignment")
    log.succeed(run)
    wait_until(lambda: "succeeded" in log.of(run.job_id), 10, "success")
    log.producer.produce(log.names.commands, json.encode(event), queue)
    log.producer.flush()
    codes = lambda: [e["data"]["code"] for e in log.poll().events if e["type"] == "command.rejected"]  # noqa: E731
    wait_until(lambda: codes() == ["duplicate"] * 3, 10, "three refusals")
    assert len(log.runs()) == 1


@pytest.mark.parametrize("committed", [True, False])
def test_a_doubtful_commit_neither_loses_nor_doubles(
    elector: Elector, log: Log, wait_until: Any, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    log.announce()
    commit, failures = TransactionLog.commit, []

    def doubtful(self: TransactionLog, *args: Any) -> None:
        if args[1] and len(failures) < 3:
            failures.append(1)
            if committed:
                commit(self, *args)
            raise StepBack("nobody knows")
        commit(self, *args)

    monkeypatch.setattr(TransactionLog, "commit", doubtful)
    jobs = []
    while len(failures) < 3:
        jobs.append(log.create(len(jobs) % log.lanes))
        log.producer.flush()
        wait_until(lambda: log.of(jobs[-1]) == ["enqueued", "processing"], 20, "the job")
    assert sorted(run.job_id for run in log.runs()) == sorted(jobs)


def test_transactions_become_smaller_when_one_was_too_large(
    elector: Elector, log: Log, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, failures = TransactionLog.commit, []

    def too_large(self: TransactionLog, *args: Any) -> None:
        if args[1] and len(failures) < 2:
            failures.append(1)
            raise TooLarge("no room")
        commit(self, *args)

    before = elector._batch_max
    monkeypatch.setattr(TransactionLog, "commit", too_large)
    job = log.create(0)
    log.producer.flush()
    wait_until(lambda: log.of(job) == ["enqueued"], 20, "the job")
    assert elector._batch_max == before // 4


def test_a_lane_stands_behind_the_markers_of_transactions(
    elector: Elector, kafka: KafkaConfig, names: TopicNames, log: Log, wait_until: Any
) -> None:
    """Were its position before the last one, and retention deleted that, a record would seem to be lost."""
    parent = log.create(0)
    child = log.create(1, parent={"job_id": parent})
    log.producer.flush()
    wait_until(lambda: log.of(child) == ["awaiting"], 20, "the continuation")
    end = log.reader.get_watermark_offsets(TopicPartition(names.reports, 0), timeout=10)[1]
    assert end >= 2  # the word of the other lane, and the marker of its transaction
    wait_until(lambda: lane_records(kafka, names, log.lanes)[0].reports == end, 20, "the lane's position")


def pulse(log: Log, until: Callable[[], bool], timeout_s: float) -> dict[int, float]:
    """Create jobs in every lane until a condition holds; the longest silence of each lane since then, in seconds."""
    began = time.monotonic()
    log.seen.clear()
    while not until():
        assert time.monotonic() < began + timeout_s, f"waited {timeout_s} s in vain; silent: {log.seen.keys()}"
        for lane in log.queues:
            log.create(lane)
        log.poll()
    silences = {}
    for lane in log.queues:
        times = [began, *log.seen[lane], time.monotonic()]
        silences[lane] = max(b - a for a, b in pairwise(times))
    return silences


def events_everywhere(log: Log, since: float) -> bool:
    return all(log.seen[lane] and log.seen[lane][-1] > since for lane in log.queues)


def lane_records(kafka: KafkaConfig, names: TopicNames, lanes: int) -> dict[int, LaneRecord]:
    """The last record of each lane in its `state` partition."""
    consumer, found = reader(kafka, "records"), {}
    consumer.assign([TopicPartition(names.state, lane, 0) for lane in range(lanes)])
    ends = 0
    while ends < lanes:
        for message in consumer.consume(1000, 1):
            if message.error() is not None:
                ends += 1
            elif message.key() == b"lane":
                record = read_state("lane", message.value() or b"")
                assert isinstance(record, LaneRecord)
                found[message.partition() or 0] = record
    consumer.close()
    return found


def owners(kafka: KafkaConfig, names: TopicNames, lanes: int) -> dict[int, str | None]:
    """Who owns each lane."""
    return {lane: record.owner for lane, record in lane_records(kafka, names, lanes).items()}


def both_own(kafka: KafkaConfig, names: TopicNames, lanes: int) -> Callable[[], bool]:
    return lambda: len(set(owners(kafka, names, lanes).values()) - {None}) == 2


def watched(condition: Callable[[], bool]) -> Callable[[], bool]:
    """Whether a condition has come to hold; it is asked in a thread, so that a slow answer holds nobody up."""
    held = threading.Event()

    def ask() -> None:
        while not condition():
            time.sleep(0.05)
        held.set()

    threading.Thread(target=ask, daemon=True).start()
    return held.is_set


def test_the_lanes_of_a_killed_elector_move_and_the_others_hardly_pause(
    start: Any, log: Log, kafka: KafkaConfig, names: TopicNames, lanes: int, wait_until: Any
) -> None:
    electors = {f"{names.prefix}elector-{name}": start(name) for name in ("a", "b")}
    wait_until(both_own(kafka, names, lanes), 40, "each elector to own a lane")
    pulse(log, lambda: all(len(log.seen[lane]) > 20 for lane in log.queues), 40)
    owned = owners(kafka, names, lanes)
    victim = str(owned[0])
    electors[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    silences = pulse(log, lambda: time.monotonic() > killed + 3 and events_everywhere(log, killed + 3), 30)
    # 6 s of session and the take-over for the dead one's lane; the rest is the patience of a busy machine.
    assert silences[0] < 14, silences
    assert silences[1] < 4, silences
    assert set(owners(kafka, names, lanes).values()) == {owned[1]}
    for job in {event["subject"] for event in log.events}:
        log.of(job)


def test_an_orderly_stop_and_a_restart_cost_little(
    start: Any, log: Log, kafka: KafkaConfig, names: TopicNames, lanes: int, wait_until: Any
) -> None:
    first = start("a")
    start("b")
    wait_until(both_own(kafka, names, lanes), 40, "each elector to own a lane")
    pulse(log, lambda: all(len(log.seen[lane]) > 20 for lane in log.queues), 40)
    first.terminate()
    stopped = time.monotonic()
    moved = pulse(log, lambda: events_everywhere(log, stopped + 1.5), 30)
    assert first.wait(10) == 0
    # Less than the session's 6 s: the lanes were handed over, not waited for.
    assert max(moved.values()) < 5.5, moved
    start("a")
    back = pulse(log, watched(both_own(kafka, names, lanes)), 40)
    assert max(back.values()) < 5.5, back


def test_a_killed_elector_that_restarts_under_its_name_has_its_lanes_at_once(
    start: Any, log: Log, kafka: KafkaConfig, names: TopicNames, lanes: int, wait_until: Any
) -> None:
    first = start("a")
    pulse(log, lambda: all(len(log.seen[lane]) > 20 for lane in log.queues), 40)
    first.kill()
    first.wait()
    start("a")
    killed = time.monotonic()
    silences = pulse(log, lambda: events_everywhere(log, killed + 1), 30)
    assert max(silences.values()) < 5.5, silences


def test_an_elector_that_slept_through_its_session_commits_nothing(
    start: Any, log: Log, kafka: KafkaConfig, names: TopicNames, lanes: int, wait_until: Any
) -> None:
    electors = {f"{names.prefix}elector-{name}": start(name) for name in ("a", "b")}
    wait_until(both_own(kafka, names, lanes), 40, "each elector to own a lane")
    pulse(log, lambda: all(len(log.seen[lane]) > 20 for lane in log.queues), 40)
    sleeper = electors[str(owners(kafka, names, lanes)[0])]
    os.kill(sleeper.pid, signal.SIGSTOP)
    slept = time.monotonic()
    pulse(log, lambda: events_everywhere(log, slept + 8), 40)
    os.kill(sleeper.pid, signal.SIGCONT)
    wait_until(both_own(kafka, names, lanes), 40, "the sleeper to be let in again")
    woke = time.monotonic()
    pulse(log, lambda: events_everywhere(log, woke + 1), 40)
    for job in {event["subject"] for event in log.events}:
        log.of(job)


def test_an_elector_without_a_broker_says_so_and_stops_when_told(
    names: TopicNames, lanes: int, caplog: pytest.LogCaptureFixture, wait_until: Any
) -> None:
    nobody = KafkaConfig("127.0.0.1:9", {"log_level": "0"})
    waiting = Elector(nobody, names, lanes, instance="x", meters=Meters(), health=Health("elector"))
    stop = threading.Event()
    thread = threading.Thread(target=waiting.run, args=(stop,))
    thread.start()
    wait_until(lambda: "elector.waiting_for_kafka" in caplog.messages, 30, "a word about it")
    assert caplog.records[-1].brokers == "127.0.0.1:9"  # type: ignore[attr-defined]
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_a_worker_is_lost_however_much_there_is_to_read(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, log: Log
) -> None:
    rules, health, stop = LaneRules(lease_ms=2_000), Health("elector"), threading.Event()
    busy = Elector(kafka, topics, lanes, instance="busy", meters=Meters(), health=health, rules=rules)
    thread = threading.Thread(target=busy.run, args=(stop,), daemon=True)
    thread.start()
    log.announce()
    deadline = time.monotonic() + 60
    while "worker.lost" not in (event["type"] for event in log.events):
        assert time.monotonic() < deadline, "commands came all the time, and nobody noticed"
        log.create(0)
        log.producer.flush()
        log.poll()  # waits 50 ms at most: never a pause in which nothing comes
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_second_elector_under_the_same_name_ends_the_first(
    kafka: KafkaConfig, elector: Elector, names: TopicNames, start: Any, log: Log, wait_until: Any
) -> None:
    caught: list[BaseException] = []
    first = Elector(kafka, names, log.lanes, instance="twin", meters=Meters(), health=(health := Health("elector")))

    def run() -> None:
        try:
            first.run(threading.Event())
        except Fenced as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until(lambda: health.ready, 30, "the first twin")
    start("twin")
    thread.join(30)
    assert caught
    assert "twin" in str(caught[0])


def test_live_jobs_workers_and_memory_survive_a_takeover(start: Any, log: Log, wait_until: Any, lanes: int) -> None:
    first = start("a")
    log.announce(slots=2)
    ended = log.create(0, idempotency_key="once")
    (run,) = wait_until(log.runs, 30, "an assignment")
    log.succeed(run)
    wait_until(lambda: "succeeded" in log.of(ended), 10, "success")
    jobs = [log.create(0, priority=number) for number in range(5)]
    log.producer.flush()
    wait_until(lambda: len(log.runs()) == 3, 10, "two more assignments")
    first.kill()
    first.wait()
    start("a")
    for one in log.runs()[1:]:
        log.succeed(one)
    wait_until(lambda: len(log.runs()) == 5, 20, "assignments by the new elector, without a new announcement")
    order = [one.job_id for one in log.runs()[3:]]
    assert order == sorted(set(jobs) - {one.job_id for one in log.runs()[1:3]}, key=jobs.index, reverse=True)[:2]
    log.command("job.create", {"task": "t", "queue": log.queues[0], "job_id": ended}, 0)
    log.producer.flush()
    wait_until(
        lambda: [e["data"]["code"] for e in log.poll().events if e["type"] == "command.rejected"] == ["duplicate"],
        10,
        "the ended job to be remembered",
    )
