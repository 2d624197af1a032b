"""Electors as processes of a test, which may be stopped, woken and killed; and the log as the rest of Joblog sees it.

The test plays the clients and the workers.
"""

import json as standard_json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from confluent_kafka import Consumer, ConsumerGroupState, Producer, TopicPartition
from joblog.streams.contract import wire
from joblog.streams.contract.ids import lane_of_queue, murmur2, new_job_id
from joblog.streams.contract.states import State
from joblog.streams.contract.topics import ASSIGNMENT_PARTITIONS, TopicNames
from joblog.streams.elector.lane_records import LaneRecord, read_state, write_state
from joblog.streams.kafka.clients import KafkaConfig, admin, producer, reader
from msgspec import Raw, json

from tests.support.jobs import in_state
from tests.support.pausing import pause, resume

#: An elector that logs to stderr and, told to stop, leaves its metrics in a file. SIGUSR1 sets its clock on an hour.
#: `first_fetch_s` is how long the first answer of a distant broker takes after lanes were assigned; an elector with
#: `go` waits, when all is made, for this file.
PROGRAM = """
import json, logging, signal, sys, threading, time
from pathlib import Path
from confluent_kafka import Consumer
from prometheus_client import generate_latest
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.elector import Elector
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.lane.rules import LaneRules
from joblog.streams.metrics import Meters
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
logging.getLogger("joblog.librdkafka").setLevel(logging.ERROR)
stop, hours, time_of_day = threading.Event(), [], time.time_ns
time.time_ns = lambda: time_of_day() + 3_600_000_000_000 * len(hours)
signal.signal(signal.SIGTERM, lambda *_: stop.set())
signal.signal(signal.SIGUSR1, lambda *_: hours.append(1))
bootstrap, prefix, lanes, instance, metrics, options = sys.argv[1:]
options = json.loads(options)
if "rules" in options:
    options["rules"] = LaneRules(**options["rules"])
first_fetch_s = options.pop("first_fetch_s", 0)

class Distant(Consumer):
    # Until the first answer there are no records, and the client knows the ends of before: librdkafka keeps them.

    assigned_at, ends = 0.0, {}

    def unassign(self):
        for place in self.assignment():
            self.ends[place.topic, place.partition] = super().get_watermark_offsets(place, cached=True)
        super().unassign()

    def assign(self, partitions):
        self.assigned_at = time.monotonic()
        super().assign(partitions)

    def is_waiting(self):
        return time.monotonic() < self.assigned_at + first_fetch_s

    def consume(self, count, wait_s):
        if self.is_waiting():
            time.sleep(wait_s)
            return []
        return super().consume(count, wait_s)

    def get_watermark_offsets(self, place, **options):
        known = self.ends.get((place.topic, place.partition)) if self.is_waiting() else None
        return known or super().get_watermark_offsets(place, **options)

clients.Consumer = lambda config: (Distant if "group.instance.id" in config else Consumer)(config)
meters = Meters()
go = options.pop("go", None)
elector = Elector(
    KafkaConfig(bootstrap), TopicNames(prefix), int(lanes), instance=instance, meters=meters,
    health=Health("elector"), **options
)
if go is not None:
    print("at the start", file=sys.stderr, flush=True)
    while not Path(go).exists():
        time.sleep(0.01)
try:
    elector.run(stop)
finally:
    Path(metrics).write_bytes(generate_latest(meters.registry))
"""
WORKER = "w-1"
PARTITION = (murmur2(WORKER.encode()) & 0x7FFFFFFF) % ASSIGNMENT_PARTITIONS

#: Records of live jobs that take seconds to load; and how much of that an elector may have done when it is stopped.
SLOW_RECORDS = 300_000
LOADING_S = 0.2


class OtherSituation(Exception):
    """The processes were faster or slower than the test needs: nothing is tested."""


class ElectorProcess:
    """One elector in a process of its own."""

    def __init__(self, arguments: Sequence[str], instance: str, owner: str, directory: Path) -> None:
        self.owner = owner
        self._metrics = directory / f"{instance}-{time.monotonic_ns()}.metrics"
        self.log = self._metrics.with_suffix(".log")
        *where, options = arguments
        command = [sys.executable, "-c", PROGRAM, *where, instance, str(self._metrics), options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log)

    def pause(self) -> None:
        """Return when every thread of it has stopped."""
        pause(self.process)

    def resume(self) -> None:
        resume(self.process)

    def set_clock_on(self) -> None:
        """Set its clock on by an hour."""
        self.process.send_signal(signal.SIGUSR1)

    def pause_while_loading(self) -> None:
        """Pause it when it has computed for a while: nothing but the loading of many jobs takes so long."""
        began, deadline = self._cpu_s(), time.monotonic() + 30
        while self._cpu_s() < began + LOADING_S:
            assert time.monotonic() < deadline, "it does not load anything"
            time.sleep(0.005)
        self.pause()

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in order."""
        self.process.terminate()
        assert self.process.wait(30) == 0, self.log.read_text()

    def metric(self, name: str) -> float:
        """What a metric said at the end, over all of its labels."""
        lines = [
            line for line in self._metrics.read_text().splitlines() if line.startswith((f"{name} ", f"{name}{{"))
        ]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


class Electors:
    """Starts electors of one installation."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames, lanes: int, directory: Path) -> None:
        self._arguments = [kafka.bootstrap_servers, names.prefix, str(lanes)]
        self._prefix, self._directory = names.prefix, directory
        self._started: list[ElectorProcess] = []

    def each_with_a_lane(self, log: "Log") -> tuple[ElectorProcess, ElectorProcess]:
        """Two electors: the first has lane 0, the second lane 1."""
        pair = {one.owner: one for one in (self("a"), self("b"))}
        deadline = time.monotonic() + 60
        while not log.both_own():
            assert time.monotonic() < deadline, "the electors do not share the lanes"
        log.warm_up()
        owners = log.owners()
        return pair[str(owners[0])], pair[str(owners[1])]

    def __call__(self, instance: str, **options: Any) -> ElectorProcess:
        arguments = [*self._arguments, standard_json.dumps(options)]
        made = ElectorProcess(arguments, instance, f"{self._prefix}elector-{instance}", self._directory)
        self._started.append(made)
        return made

    @contextmanager
    def at_the_start(self, instance: str) -> Iterator[ElectorProcess]:
        """An elector that is ready to join the group, and does so at the end of the block."""
        go = self._directory / f"go-{instance}"
        made = self(instance, go=str(go))
        deadline = time.monotonic() + 60
        while "at the start" not in made.log.read_text():
            assert time.monotonic() < deadline, "the process does not start"
            time.sleep(0.01)
        yield made
        go.touch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill all; what they had to say is shown when the test fails."""
        for one in self._started:
            ended = one.process.poll()
            one.kill()
            print(f"--- {one.owner}, exit code {ended}:", *one.log.read_text().splitlines()[-100:], sep="\n")


class Log:
    """The events and assignments of a test's lanes, as they come; and a producer to act with."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames, lanes: int) -> None:
        self.kafka, self.names, self.lanes = kafka, names, lanes
        self.producer: Producer = producer(kafka, "test", linger_ms=0)
        self.reader: Consumer = reader(kafka, "test")
        topics = [(names.events, lanes), (names.assignments, ASSIGNMENT_PARTITIONS), (names.deadletters, lanes)]
        self.reader.assign([TopicPartition(topic, n, 0) for topic, count in topics for n in range(count)])
        self._uncommitted: Consumer = reader(kafka, "test", **{"isolation.level": "read_uncommitted"})
        self._admin = admin(kafka)
        self.created: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.assignments: list[wire.AnyAssignment] = []
        self.deadletters: list[tuple[bytes | None, dict[str, bytes]]] = []
        self.seen: dict[int, list[float]] = defaultdict(list)
        self.queues: dict[int, str] = {}
        for number in range(10_000):
            self.queues.setdefault(lane_of_queue(f"q{number}", lanes), f"q{number}")
            if len(self.queues) == lanes:
                break

    # --- what is read ---

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

    def of(self, job_id: str) -> list[str]:
        """The types of a job's events, after making sure that their versions have no gap."""
        mine = [event for event in self.poll().events if event["subject"] == job_id]
        assert [event["data"]["version"] for event in mine] == list(range(1, len(mine) + 1))
        return [event["type"].removeprefix("job.") for event in mine]

    def histories(self) -> dict[str, list[str]]:
        """The types of every job's events; versions without gaps."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for event in self.poll().events:
            if event["type"].startswith("job."):
                found[event["subject"]].append(event)
        for job_id, events in found.items():
            versions = [event["data"]["version"] for event in events]
            assert versions == list(range(1, len(events) + 1)), f"{job_id}: {versions}"
        return {job: [one["type"].removeprefix("job.") for one in events] for job, events in found.items()}

    def rejections(self) -> list[str]:
        """The codes of the commands that were rejected."""
        return [one["data"]["code"] for one in self.poll().events if one["type"] == "command.rejected"]

    def lost(self) -> list[str]:
        """The workers that were called lost."""
        return [one["subject"] for one in self.poll().events if one["type"] == "worker.lost"]

    def runs(self) -> list[wire.RunJob]:
        return [one for one in self.poll().assignments if isinstance(one, wire.RunJob)]

    def close(self) -> None:
        self.reader.close()
        self._uncommitted.close()

    # --- what is written ---

    def create(self, lane: int, **data: Any) -> str:
        job_id = new_job_id(lane, 1_700_000_000_000)
        body = {"task": "t", "queue": self.queues[lane], "job_id": job_id, **data}
        self.command("job.create", body, lane)
        self.created.append(job_id)
        return job_id

    def command(self, kind: str, data: dict[str, Any], lane: int) -> None:
        event = {"specversion": "1.0", "id": f"c{time.monotonic_ns()}", "source": "/test", "type": kind, "data": data}
        self.producer.produce(self.names.commands, json.encode(event), "k", lane)

    def announce(self, slots: int = 1000, tasks: tuple[str, ...] = ("t",)) -> None:
        for lane in self.queues:
            self.renew(WORKER, lane, slots, tasks, home=lane == 0)

    def renew(
        self,
        worker: str,
        lane: int,
        slots: int = 1000,
        tasks: tuple[str, ...] = ("t",),
        *,
        home: bool = True,
        **record: Any,
    ) -> None:
        """The word of a worker for one lane; with `home` that lane writes the worker's events."""
        word = wire.WorkerAnnounced(
            worker=worker,
            partition=PARTITION,
            queues=(self.queues[lane],),
            all_queues=tuple(self.queues.values()),
            slots=slots,
            all_slots=slots,
            tasks=tasks,
            started_at=datetime(2026, 1, 1, tzinfo=UTC),
            home=home,
        )
        self.report(word, lane, **record)

    def report(self, report: wire.AnyReport, lane: int, **record: Any) -> None:
        self.producer.produce(self.names.reports, json.encode(report), "k", lane, **record)
        self.producer.flush()

    def succeed(self, run: wire.RunJob) -> None:
        done = wire.RunSucceeded(
            job_id=run.job_id, lease=run.lease, worker=WORKER, result=Raw(b"1"), duration_ms=1, started_ms=1
        )
        self.report(done, run.lane)

    # --- who has the lanes ---

    def lane_records(self) -> dict[int, LaneRecord]:
        """The last record of each lane in its `state` partition."""
        consumer, found = reader(self.kafka, "records"), {}
        consumer.assign([TopicPartition(self.names.state, lane, 0) for lane in range(self.lanes)])
        ends = 0
        while ends < self.lanes:
            for message in consumer.consume(1000, 1):
                if message.error() is not None:
                    ends += 1
                elif message.key() == b"lane":
                    record = read_state("lane", message.value() or b"")
                    assert isinstance(record, LaneRecord)
                    found[message.partition() or 0] = record
        consumer.close()
        return found

    def owners(self) -> dict[int, str | None]:
        """Who owns each lane."""
        return {lane: record.owner for lane, record in self.lane_records().items()}

    def both_own(self) -> bool:
        """Whether two electors have lanes."""
        return len(set(self.owners().values()) - {None}) == 2

    def each_owned_by(self, *electors: ElectorProcess) -> bool:
        """Whether these have the lanes, in the order of the lanes."""
        return self.owners() == {lane: elector.owner for lane, elector in enumerate(electors)}

    def is_given(self, elector: ElectorProcess, lanes: set[int]) -> bool:
        """Whether the group has settled, and gives these lanes to an elector, which may not have taken them yet."""
        name = f"{self.names.prefix}electors"
        group = self._admin.describe_consumer_groups([name])[name].result(10)
        if group.state is not ConsumerGroupState.STABLE:
            return False
        mine = [one for one in group.members if one.group_instance_id == elector.owner]
        return {place.partition for one in mine for place in one.assignment.topic_partitions} == lanes

    # --- transactions ---

    def has_open_transaction(self, lane: int) -> bool:
        """Whether events lie in the lane's partition that no transaction has committed or aborted yet."""
        place = TopicPartition(self.names.events, lane)
        committed = self.reader.get_watermark_offsets(place, timeout=10)[1]
        return self._uncommitted.get_watermark_offsets(place, timeout=10)[1] > committed

    def make_slow_to_load(self, lane: int) -> None:
        """Write so much to the lane's state that whoever loads it needs seconds."""
        job = in_state(State.AWAITING, queue=self.queues[lane])
        for number in range(SLOW_RECORDS):
            job.id = new_job_id(lane, 1_600_000_000_000, number)
            self.producer.produce(self.names.state, write_state(job), job.id, lane)
            if number % 10_000 == 0:
                self.producer.flush()
        assert self.producer.flush(30) == 0

    def leave_open(self, transactional_id: str, lane: int) -> Producer:
        """A transaction of somebody who writes to a lane and ends without a word; it may live for ten minutes."""
        dead = Producer(
            {
                **self.kafka.common(transactional_id),
                "transactional.id": transactional_id,
                "transaction.timeout.ms": 600_000,
            }
        )
        dead.init_transactions(10)
        dead.begin_transaction()
        for topic in (self.names.events, self.names.state):
            dead.produce(topic, b"never committed", "k", lane)
        assert dead.flush(10) == 0
        return dead

    # --- load ---

    def pulse(self, until: Callable[[], bool], timeout_s: float) -> dict[int, float]:
        """Create jobs in every lane until a condition holds; each lane's longest silence meanwhile, in seconds."""
        began = time.monotonic()
        self.seen.clear()
        while not until():
            assert time.monotonic() < began + timeout_s, f"waited {timeout_s} s in vain; silent: {self.seen.keys()}"
            for lane in self.queues:
                self.create(lane)
            self.poll()
        silences = {}
        for lane in self.queues:
            times = [began, *self.seen[lane], time.monotonic()]
            silences[lane] = max(b - a for a, b in pairwise(times))
        return silences

    def warm_up(self) -> None:
        """Create jobs until every lane has decided some."""
        self.pulse(lambda: all(len(self.seen[lane]) > 20 for lane in self.queues), 40)

    def everywhere(self, since: float) -> bool:
        """Whether each lane has written an event since then."""
        return all(self.seen[lane] and self.seen[lane][-1] > since for lane in self.queues)


def watched(condition: Callable[[], bool]) -> Callable[[], bool]:
    """Whether a condition has come to hold; it is asked in a thread, so that a slow answer holds nobody up."""
    held = threading.Event()

    def ask() -> None:
        while not condition():
            time.sleep(0.05)
        held.set()

    threading.Thread(target=ask, daemon=True).start()
    return held.is_set


@contextmanager
def all_along(act: Callable[[], None], every_s: float) -> Iterator[None]:
    """Do something again and again in a thread, until the end of the block."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(every_s):
            act()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
