"""An elector on a real broker: what it decides, what it parks, and what it does when a transaction fails."""

import threading
import time
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_job, new_job_id
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.elector import Elector
from joblog.streams.elector.registration import Registration
from joblog.streams.elector.transaction import TransactionLog
from joblog.streams.errors import StepBack, TooLarge
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.lane.lane import Lane
from joblog.streams.lane.rules import LaneRules
from joblog.streams.metrics import Meters
from msgspec import json

from tests.support.electors import Log

pytestmark = pytest.mark.broker


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
    sizes: list[int] = []

    def too_large(self: TransactionLog, *args: Any) -> None:
        if args[1] and len(failures) < 2:
            failures.append(1)
            raise TooLarge("no room")
        sizes.append(elector._turn_size.now)
        commit(self, *args)

    before = elector._turn_size.now
    monkeypatch.setattr(TransactionLog, "commit", too_large)
    job = log.create(0)
    log.producer.flush()
    wait_until(lambda: log.of(job) == ["enqueued"], 20, "the job")
    sizes.append(elector._turn_size.now)
    assert min(sizes) == before // 4

    def goes_on() -> bool:
        sizes.append(elector._turn_size.now)
        log.create(0)
        log.producer.flush()
        return sizes[-1] == before

    wait_until(goes_on, 60, "turns of the old size")


def test_a_lane_stands_behind_the_markers_of_transactions(
    elector: Elector, names: TopicNames, log: Log, wait_until: Any
) -> None:
    """Were its position before the last one, and retention deleted that, a record would seem to be lost."""
    parent = log.create(0)
    child = log.create(1, parent={"job_id": parent})
    log.producer.flush()
    wait_until(lambda: log.of(child) == ["awaiting"], 20, "the continuation")
    end = log.reader.get_watermark_offsets(TopicPartition(names.reports, 0), timeout=10)[1]
    assert end >= 2  # the word of the other lane, and the marker of its transaction
    wait_until(lambda: log.lane_records()[0].reports == end, 20, "the lane's position")


def test_an_elector_without_a_broker_says_so_and_stops_when_told(
    names: TopicNames, lanes: int, caplog: pytest.LogCaptureFixture, wait_until: Any
) -> None:
    nobody = KafkaConfig("127.0.0.1:9")
    waiting = Elector(nobody, names, lanes, instance="x", meters=Meters(), health=Health("elector"))
    stop = threading.Event()
    thread = threading.Thread(target=waiting.run, args=(stop,), daemon=True)
    thread.start()
    try:
        wait_until(lambda: "elector.waiting_for_kafka" in caplog.messages, 30, "a word about it")
        told = [vars(record) for record in caplog.records if record.message == "elector.waiting_for_kafka"]
        assert told[0]["brokers"] == "127.0.0.1:9"
        member = f"FAIL [{names.prefix}elector-x#consumer"
        wait_until(lambda: member in caplog.text, 30, "what the group's client logs, which piles up in it otherwise")
    finally:
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


def test_an_elector_outlives_another_of_its_id_that_was_started_and_ended_at_once(
    elector: Elector,
    kafka: KafkaConfig,
    names: TopicNames,
    log: Log,
    wait_until: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = log.create(0)
    log.producer.flush()
    wait_until(lambda: log.of(job) == ["enqueued"], 20, "the job")
    Registration(kafka, names, f"{names.prefix}elector-in-process").register()
    commit, failures = TransactionLog.commit, []

    def failing(self: TransactionLog, *args: Any) -> None:
        if not failures:
            failures.append(1)
            raise StepBack("an outcome that nobody knows")
        commit(self, *args)

    monkeypatch.setattr(TransactionLog, "commit", failing)
    later = log.create(0)
    log.producer.flush()
    wait_until(lambda: log.of(later) == ["enqueued"], 30, "the next job")
    assert elector._registration.is_latest()
