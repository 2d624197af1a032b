"""A delays process in a thread of the test, and the topics around it as the elector sees them."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import TopicPartition
from joblog.streams.contract.ids import lane_of_job, new_job_id
from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import JobDue, Timer
from joblog.streams.delays.process import Delays
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

LANES = 2
DEADLINE_S = 30


def now_ms() -> int:
    return int(time.time() * 1000)


class Fired(NamedTuple):
    """A report as the log has it."""

    report: JobDue
    key: bytes | None
    lane: int
    at_ms: int


class Process:
    """A delays process in a thread of the test."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames, **options: Any) -> None:
        self.meters = Meters()
        self.health = Health("delays")
        self.stop = threading.Event()
        self.delays = Delays(kafka, names, LANES, meters=self.meters, health=self.health, **options)
        self.ended: Future[None] = Future()

    def count(self, metric: str, **labels: str) -> float:
        if self.ended.done():
            self.ended.result()  # it failed: say so, rather than wait for what will not come
        return self.meters.registry.get_sample_value(metric, labels) or 0


@contextmanager
def running(
    kafka: KafkaConfig, names: TopicNames, *, process: Process | None = None, **options: Any
) -> Iterator[Process]:
    """A process that runs until the end of the block, and that fails the test if it fails."""
    process = process or Process(kafka, names, **options)
    with ThreadPoolExecutor(1) as executor:
        process.ended = executor.submit(process.delays.run, process.stop)
        try:
            yield process
        finally:
            process.stop.set()
        process.ended.result(DEADLINE_S)


class Log:
    """The topics around the delays process, as the elector sees them."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames) -> None:
        self.names = names
        self.kafka = kafka
        self.producer = clients.producer(kafka, "test", linger_ms=1)

    def put(self, timer: Timer, tier: str) -> None:
        self.put_raw(tier, lane_of_job(timer.job_id), msgspec.json.encode(timer), timer.job_id.encode())

    def put_raw(self, tier: str, lane: int, value: bytes | None, key: bytes | None = None, **rest: Any) -> None:
        self.producer.produce(self.names.delay(tier), value=value, key=key, partition=lane, **rest)
        self.producer.poll(0)

    def put_all(self, timers: list[Timer], tier: str = "now") -> None:
        for timer in timers:
            self.put(timer, tier)
        self.flush()

    def flush(self) -> None:
        assert self.producer.flush(DEADLINE_S) == 0

    def read(self, topic: str, partitions: int = LANES) -> list[Any]:
        """All records of a topic, from the first to the last there is now."""
        reader = clients.reader(self.kafka, "test-reader")
        places = [TopicPartition(topic, number, 0) for number in range(partitions)]
        left = {place.partition for place in places if reader.get_watermark_offsets(place, DEADLINE_S)[1] > 0}
        reader.assign(places)
        records = []
        while left:
            for message in reader.consume(500, 0.1):
                if message.error():
                    left.discard(message.partition())
                else:
                    records.append(message)
        reader.close()
        return records

    def fired(self) -> list[Fired]:
        return [
            Fired(msgspec.json.decode(each.value(), type=JobDue), each.key(), each.partition(), each.timestamp()[1])
            for each in self.read(self.names.reports)
        ]


def timers(count: int, first_ms: float, step_ms: float = 0) -> list[Timer]:
    """Timers due from `first_ms` ahead, in turns in each lane."""
    start = now_ms() + first_ms
    dues = [round(start + number * step_ms) for number in range(count)]
    return [
        Timer(job_id=new_job_id(number % LANES, due_ms), version=number + 1, due_ms=due_ms)
        for number, due_ms in enumerate(dues)
    ]


def repeats(fired: list[Fired]) -> set[str]:
    counted = Counter(each.report.job_id for each in fired)
    return {job_id for job_id, times in counted.items() if times > 1}
