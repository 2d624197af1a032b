"""Ten thousand records made wrong, on a real broker, beside jobs that run: no role minds, each is accounted for.

What becomes of a record is looked up in the log itself. Foreign records in `state` are another test's: that topic
is the electors' own.
"""

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from urllib.request import urlopen

import psycopg
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from joblog.projections.projector.event_batch import Entries, Parked
from joblog.services.client.options import JobOptions
from joblog.services.worker.assignments import partition_of
from joblog.streams.contract import wire
from joblog.streams.contract.codec import read_command, read_report
from joblog.streams.contract.ids import lane_of_job, lane_of_queue
from joblog.streams.contract.record_headers import headers_of, size_of
from joblog.streams.contract.topics import ASSIGNMENT_PARTITIONS, DELAY_TIERS
from joblog.streams.contract.unreadable import NOT_READABLE, failed_by_report
from joblog.streams.delays.partition import VALUE_BYTES_MAX, decode_timer
from joblog.streams.elector.turn import CARRIED_BYTES_MAX
from joblog.streams.errors import ContractError
from joblog.streams.kafka import clients
from msgspec import Struct, json
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from psycopg import sql

from tests.support.log_comparison import read_log
from tests.support.mutations import Written, mutated
from tests.support.real_records import history, lane_of, recorded

pytestmark = [pytest.mark.broker, pytest.mark.database]

SEED: Final = int(os.environ.get("JOBLOG_FUZZ_SEED", "1"))
SENT: Final = {"commands": 4_000, "reports": 4_000, "delay.now": 1_000, "assignments": 500, "events": 500}
PORTIONS: Final = 20
BESIDE: Final = 200
#: Of those jobs; no record is mutated into one that pauses it.
QUEUE: Final = "beside"
ROLES: Final = ["elector", "delays", "worker", "projector"]
#: What lanes tell each other of their features: it may lead to no event, or be stale.
OF_FEATURES: Final = (
    *(wire.ContinuationUnmet, wire.LimitReport, wire.LimitsForgotten, wire.LimitsRebuilt, wire.QueueLimitReport),
    *(wire.BatchAwaited, wire.BatchCounted, wire.BatchTold, wire.QueueElsewhere, wire.ParentFound),
)
#: Commands that events tell of only at the end of a turn, or that may be said twice.
SILENT: Final = wire.BatchCommand | wire.AdvanceBulk
QUIET: Final = wire.WorkerAnnounced | wire.WorkerStopping | wire.ContinuationAdded


class Running:
    """Four roles as processes, their metrics, and what stands in the topics."""

    def __init__(self, installation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = installation
        self._ports: dict[str, int] = {}
        plain = installation.environment
        for role in ROLES:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = self._ports[role] = free.getsockname()[1]
            monkeypatch.setattr(installation, "environment", lambda p=port: {**plain(), "JOBLOG_HTTP__PORT": str(p)})
            installation.start(role, *(["--queues", QUEUE] if role == "worker" else []))

    def samples(self, role: str, name: str) -> list[Sample]:
        """All series of a metric, as one answer of the role tells them."""
        with urlopen(f"http://127.0.0.1:{self._ports[role]}/metrics") as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        return [one for family in families for one in family.samples if one.name == name]

    def metric(self, role: str, name: str, **labels: str) -> float:
        samples = self.samples(role, name)
        return sum(one.value for one in samples if labels.items() <= one.labels.items())

    def end(self, role: str) -> None:
        """Stop a role in order; AssertionError if it ended before."""
        process = self.at.roles[role]
        log = self.at.home / f"{role}.log"
        assert process.poll() is None, log.read_text()[-3_000:]
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0, log.read_text()[-3_000:]

    def committed(self, group: str, topics: list[str]) -> dict[tuple[str, int], int]:
        """The next offset of the group in each partition; below 0 where it committed none."""
        consumer = Consumer({"bootstrap.servers": self.at.kafka.bootstrap_servers, "group.id": group})
        places = [TopicPartition(topic, lane) for topic in topics for lane in range(self.at.lanes)]
        found = {(one.topic, one.partition): one.offset for one in consumer.committed(places, timeout=10)}
        consumer.close()
        return found

    def electors_lag(self) -> int:
        """How many offsets of commands and reports the electors have not committed."""
        names = self.at.names
        found = self.committed(f"{names.prefix}electors", [names.commands, names.reports])
        reader = clients.reader(self.at.kafka, "test-reader")
        ends = {place: reader.get_watermark_offsets(TopicPartition(*place), timeout=10) for place in found}
        reader.close()
        return sum(high - max(found[place], low) for place, (low, high) in ends.items())

    def read(self, topic: str, partitions: int) -> list[Message]:
        """All records of a topic that can be read now."""
        consumer = clients.reader(self.at.kafka, "test-reader")
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        found, ended = [], 0
        deadline = time.monotonic() + 30
        while ended < partitions:
            assert time.monotonic() < deadline, topic
            for message in consumer.consume(10_000, 0.2):
                ended += message.error() is not None
                found += [message] if message.error() is None else []
        consumer.close()
        return found


def sent(topic: str, random: Random, now_ms: int) -> list[Written]:
    """Mutated records of a topic, among them a tenth of those that they were made from.

    Foreign events are of other jobs than commands, and one of each: what becomes of several would depend on their
    order, in which only an elector keeps to the rules. So none is of a job whose id follows from an idempotency key:
    commands have the same keys. No orders to the worker: it would obey, and take no more jobs.
    """
    real = [one for one in recorded(topic, history(SEED + (topic == "events"), now_ms)) if not _is_order(one)]
    if topic == "events":
        real = list({one.key: one for one in real if not _is_derived(one.key or b"", now_ms)}.values())
        assert len(real) >= SENT[topic]
    made = [real[n % len(real)] for n in range(SENT[topic])]
    return [mutated(random, one) if random.random() < 0.9 else one for one in made]


def _is_derived(key: bytes, now_ms: int) -> bool:
    """Whether it is the id of a job that does not begin with the time of its creation, but with a hash."""
    return len(key) == 36 and abs(int(key[:8] + key[9:13], 16) - now_ms) > 86_400_000 * 30


def _is_order(one: Written) -> bool:
    return one.topic == "assignments" and b'"worker.order"' in (one.value or b"")


def partition(one: Written, random: Random, worker: str) -> int:
    """Where a record is written: sometimes astray, but for events, whose lane counts."""
    if one.topic == "assignments":
        return partition_of(worker)
    return lane_of(one, Random(0)) if one.topic == "events" else lane_of(one, random)


def headers(one: Written) -> Any:
    """Headers that this client can write: their names are text."""
    return one.headers if isinstance(one.headers, list) and one.headers else None


def for_worker(one: Written) -> Written:
    """A run that the real worker knows the task and the queue of, if it was one."""
    return Written(one.topic, one.key, (one.value or b"").replace(b'"t"', b'"ok"'), one.headers, one.mutation)


def test_no_role_minds_mutated_records_and_each_is_accounted_for(
    installation: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"JOBLOG_FUZZ_SEED={SEED}")
    random = Random(SEED)
    running = Running(installation, monkeypatch)
    names = installation.names
    worker = wait_until(lambda: announced(running), 60, "the worker")
    now_ms = time.time_ns() // 1_000_000 - 600_000
    records = [one for topic in SENT for one in sent(topic, random, now_ms)]
    records = [for_worker(one) if one.topic == "assignments" else one for one in records]
    random.shuffle(records)
    written = Counter(one.topic for one in records)
    assert written.total() == sum(SENT.values())
    producer = Producer({"bootstrap.servers": installation.kafka.bootstrap_servers, "message.max.bytes": 2_000_000})
    beside: list[str] = []
    calls = [((number,), {}) for number in range(BESIDE // PORTIONS)]
    with installation.client() as client:
        for portion in range(PORTIONS):
            for one in records[portion::PORTIONS]:
                is_assignment = one.topic == "assignments"
                lane = partition(one, random, worker)
                key = worker.encode() if is_assignment and one.mutation != "key" else one.key
                producer.produce(names.prefix + one.topic, one.value, key, lane, headers=headers(one))
            producer.flush(30)
            beside += client.enqueue_many("ok", calls, JobOptions(queue=QUEUE))

    def ended() -> bool:
        log = installation_events(running)
        return all(log.get(job, [""])[-1] == "job.succeeded" for job in beside)

    wait_until(ended, 60, "the jobs beside them")
    wait_until(lambda: not running.electors_lag(), 60, "the electors to have read all")
    settled_ms = wait_until(lambda: only_waiting(running), 60, "the timers that are due")
    undecodable = running.metric("worker", "joblog_quarantined_records_total")
    running.end("worker")
    running.end("delays")
    # It answers which parents are known: from now on nobody reports anything.
    running.end("projector")
    wait_until(lambda: not running.electors_lag(), 60, "the electors to have read the rest")
    stale = of_jobs(running.samples("elector", "joblog_stale_reports_total"))
    forwarded = running.metric("elector", "joblog_commands_forwarded_total")
    assert running.metric("elector", "joblog_producer_rebuilds_total") == 1
    assert running.metric("elector", "joblog_transactions_total", result="failed") == 0
    assert running.metric("elector", "joblog_quarantined_records_total", reason="internal_error") == 0
    running.end("elector")
    installation.start("projector")
    wait_until(lambda: not installation.differences(), 60, "Postgres to equal the log")

    account = Account.of(running, foreign={one.value for one in records if one.topic == "events"})
    check_commands(running, account, written["commands"] + BESIDE, forwarded)
    check_reports(running, account, written["reports"], stale)
    check_timers(running, account, written["delay.now"], settled_ms)
    check_assignments(running, account, worker, undecodable)
    check_events(running)
    assert not account.dead, "dead letters of records that could be read"
    runs = installation.runs()
    assert max(times for (job, _), times in runs.items() if job in set(beside)) == 1
    for job, kinds in installation_events(running).items():
        if job in set(beside):
            assert kinds == ["job.enqueued", "job.processing", "job.succeeded"]


def announced(running: Running) -> str | None:
    """The worker's id, once it has told its lanes of itself."""
    for message in running.read(running.at.names.reports, running.at.lanes):
        report = read_report(message.value())
        if isinstance(report, wire.WorkerAnnounced):
            return report.worker
    return None


def installation_events(running: Running) -> dict[str, list[str]]:
    """The types of each job's events, by what can be read of the log."""
    found: dict[str, list[str]] = {}
    for message in running.read(running.at.names.events, running.at.lanes):
        try:
            event = json.decode(message.value() or b"", type=dict[str, Any])
            found.setdefault(event["subject"], []).append(event["type"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # it was sent by this test
    return found


# --- timers that wait ---


def only_waiting(running: Running) -> int:
    """When (unix milliseconds) nothing held back what the delays process commits but timers not due yet; else 0."""
    names, now_ms = running.at.names, time.time_ns() // 1_000_000
    consumer = Consumer(
        {"bootstrap.servers": running.at.kafka.bootstrap_servers, "group.id": f"{names.prefix}delays"}
    )
    places = [TopicPartition(names.delay(tier), lane) for tier in DELAY_TIERS for lane in range(running.at.lanes)]
    committed = {(one.topic, one.partition): one.offset for one in consumer.committed(places, timeout=10)}
    consumer.close()
    for tier in DELAY_TIERS:
        for message in running.read(names.delay(tier), running.at.lanes):
            offset = committed[message.topic() or "", message.partition() or 0]
            if (message.offset() or 0) == max(offset, 0):  # the first that is not done
                timer = timer_of(message)
                if timer is None or timer.due_ms <= now_ms:
                    return 0
    return now_ms


def timer_of(message: Message) -> wire.Timer | None:
    try:
        timer = decode_timer(message.value() or b"")
    except NOT_READABLE:
        return None
    return timer if len(message.value() or b"") <= VALUE_BYTES_MAX else None


# --- what became of each record ---


class Caused(Struct):
    """An event as far as it says what led to it."""

    type: str
    data: dict[str, Any]
    causationid: str | None = None


@dataclass
class Account:
    """What the log says became of records: by their places in it, or by the ids of commands."""

    rejected: set[str] = field(default_factory=set)
    causes: set[str] = field(default_factory=set)
    dead: Counter[tuple[str, int, int]] = field(default_factory=Counter)

    @classmethod
    def of(cls, running: Running, foreign: set[bytes | None]) -> "Account":
        """By the events that electors wrote, not those of this test."""
        made, names = cls(), running.at.names
        for message in running.read(names.events, running.at.lanes):
            if message.value() in foreign:
                continue
            event = json.decode(message.value() or b"", type=Caused)
            if event.type == "command.rejected":
                made.rejected.add(str(event.data.get("position")))
            else:
                made.causes.add(str(event.causationid))
        for message in running.read(names.prefix + "deadletters", running.at.lanes):
            said = dict(headers_of(message) or [])
            text = {name: bytes(one or b"").decode() for name, one in said.items() if name.startswith("joblog-")}
            assert text["joblog-reason-code"] != "internal_error", text
            made.dead[text["joblog-topic"], int(text["joblog-partition"]), int(text["joblog-offset"])] += 1
        return made

    def is_dead(self, message: Message) -> bool:
        """Whether the record was parked, once."""
        return self.dead.pop((message.topic() or "", message.partition() or 0, message.offset() or 0), 0) == 1


def check_commands(running: Running, account: Account, written: int, forwarded: float) -> None:
    lanes, outcomes = running.at.lanes, Counter[str]()
    for message in running.read(running.at.names.commands, lanes):
        lane = message.partition() or 0
        position = f"commands/{lane}@{message.offset()}"
        carried = headers_of(message)
        try:
            received = read_command(message.value(), carried)
            written += is_of_a_runner(received)
        except ContractError:
            assert account.is_dead(message), position
            assert position in account.rejected
            outcomes["parked"] += 1
            continue
        target = lane_of_command(received.command, lane, lanes)
        if target >= lanes or (target != lane and len(message.key() or b"") + size_of(carried) > CARRIED_BYTES_MAX):
            assert account.is_dead(message), position
            assert position in account.rejected
            outcomes["parked"] += 1
        elif target != lane:
            outcomes["forwarded"] += 1
        elif position in account.rejected:
            outcomes["rejected"] += 1
        else:
            assert received.id in account.causes or isinstance(received.command, SILENT), position
            outcomes["decided"] += 1
    assert outcomes["forwarded"] == forwarded
    assert outcomes.total() == written + forwarded
    assert outcomes.keys() == {"parked", "rejected", "decided", "forwarded"}


def is_of_a_runner(received: wire.Received) -> bool:
    """Whether it is of the projector's runner, which works through the bulk operations that were asked for."""
    return received.source.startswith("/joblog/clients/") and not isinstance(received.command, wire.CreateJob)


def lane_of_command(command: wire.Command, lane: int, lanes: int) -> int:
    if command.job_id is not None:
        return lane_of_job(command.job_id)
    return lane_of_queue(command.queue, lanes) if isinstance(command, wire.CreateJob) else lane


def of_jobs(counted: Iterable[Sample]) -> float:
    """How many of the reports are not of features."""
    of_features = set(tags_of(OF_FEATURES))
    return sum(one.value for one in counted if one.labels["type"] not in of_features)


def tags_of(kinds: Iterable[type]) -> Iterator[str]:
    """The types of reports, as the metric names them."""
    for kind in kinds:
        below = kind.__subclasses__()
        yield from tags_of(below) if below else [str(kind.__struct_config__.tag)]  # type: ignore[attr-defined]


def check_reports(running: Running, account: Account, written: int, stale: float) -> None:
    """Each was decided, was stale, or was parked; what lanes tell each other of features may change no job."""
    outcomes: Counter[str] = Counter()
    for message in running.read(running.at.names.reports, running.at.lanes):
        position = f"reports/{message.partition()}@{message.offset()}"
        try:
            report: Any = read_report(message.value())
            unplaced = isinstance(report, wire.WorkerAnnounced) and report.partition >= ASSIGNMENT_PARTITIONS
            unplaced |= isinstance(report, wire.ContinuationAdded) and lane_of_job(report.child) >= running.at.lanes
        except ContractError as error:
            report, unplaced = failed_by_report(message.value(), error.reason), True
        if isinstance(report, OF_FEATURES):
            outcomes["parked" if account.is_dead(message) else "decided"] += 1
            continue
        if unplaced:
            assert account.is_dead(message), position
            outcomes["parked"] += 1
            report = report if isinstance(report, wire.RunFailed) else None
        if report is None or isinstance(report, QUIET):
            outcomes["decided"] += not unplaced
        else:
            outcomes["decided" if position in account.causes else "stale"] += 1
    assert outcomes["stale"] == stale
    assert outcomes["parked"] > written / 4


def check_timers(running: Running, account: Account, written: int, settled_ms: int) -> None:
    """Each was parked, or was fired, or waited in one of the tiers when all had settled; repeats are allowed."""
    names, lanes = running.at.names, running.at.lanes
    fired = set()
    for message in running.read(names.reports, lanes):
        try:
            report = read_report(message.value())
        except ContractError:
            continue
        if isinstance(report, wire.JobDue):
            fired.add((report.job_id, report.version))
    outcomes: Counter[str] = Counter()
    for tier in DELAY_TIERS:
        for message in running.read(names.delay(tier), lanes):
            if account.is_dead(message):
                outcomes["parked"] += 1
                continue
            timer = timer_of(message)
            assert timer is not None, message.value()
            outcomes["fired" if (timer.job_id, timer.version) in fired else "waits"] += 1
            assert timer.due_ms > settled_ms or (timer.job_id, timer.version) in fired, timer
    assert outcomes.total() >= written
    assert outcomes["parked"] > written / 4
    assert outcomes["fired"] > 0


def check_assignments(running: Running, account: Account, worker: str, undecodable: float) -> None:
    """Each was parked, or reported on, cancels a run, or names a lane to serve."""
    reported, unreadable = set(), 0
    for message in running.read(running.at.names.reports, running.at.lanes):
        try:
            report: Any = read_report(message.value())
        except ContractError as error:  # a result may be too deep to be kept: then the report is parked
            report = failed_by_report(message.value(), error.reason)
        if isinstance(report, wire.RunReport) and report.worker == worker:
            reported.add((report.job_id, report.lease))
    runs, cancelled = set(), set()
    for message in running.read(running.at.names.assignments, ASSIGNMENT_PARTITIONS):
        if message.key() != worker.encode():
            continue
        try:
            said = json.decode(message.value() or b"", type=wire.AnyAssignment)
            if isinstance(said, wire.RunJob) and said.lane >= running.at.lanes:
                raise ValueError("lane")
        except NOT_READABLE:
            assert account.is_dead(message)
            unreadable += 1
        else:
            if isinstance(said, wire.RunJob | wire.CancelJob):
                (runs if isinstance(said, wire.RunJob) else cancelled).add((said.job_id, said.lease))
    assert unreadable == undecodable > 0
    assert runs - cancelled <= reported


def check_events(running: Running) -> None:
    """What cannot be read is parked in Postgres, and nothing for a reason that nobody foresaw."""
    at = running.at
    with psycopg.connect(at.dsn) as connection:
        query = sql.SQL("SELECT lane, log_offset, code FROM {}.parked").format(sql.Identifier(at.schema))
        parked = {(lane, offset): code for lane, offset, code in connection.execute(query)}
    assert "internal_error" not in parked.values()
    entries = Entries(read_log(at.kafka, at.names, at.lanes))
    unread = {(record.lane, record.offset) for record, fact in entries if isinstance(fact, Parked)}
    assert unread
    assert unread <= parked.keys()
