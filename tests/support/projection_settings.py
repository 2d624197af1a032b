"""What tests of the projection share: its fixtures, and who writes to the log or applies it."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.projector.event_batch import Entries, Parked, Record
from joblog.projections.projector.projector import Projector
from joblog.projections.projector.tables import Tables
from joblog.projections.schema import migrate
from joblog.services.embedded.stack import StackAddresses
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

from tests.support.log_comparison import differences, read_log
from tests.support.projection_events import BEGINNING, Story, placed

LANES = 3
WaitUntil = Callable[[Callable[[], Any], float, str], Any]


def write(writer: Producer, topics: TopicNames, values: list[tuple[int, bytes]]) -> None:
    for lane, value in values:
        writer.produce(topics.events, value, partition=lane)
    assert writer.flush(30) == 0


def interleaved(stories: list[Story], seed: int = 0) -> list[tuple[int, bytes]]:
    """The stories' events as they would come: those of one job in order, jobs mixed."""
    chance = random.Random(seed)
    order = [story for story in stories for _ in story.values]
    chance.shuffle(order)
    following = {story.id: iter(story.values) for story in stories}
    return [(story.lane, next(following[story.id])) for story in order]


def jobs(count: int, lanes: int, first: int = 1) -> list[Story]:
    made = []
    for n in range(first, first + count):
        story = Story(lane=n % lanes, random=n, queue=f"q{n % 5}").enqueued().processing()
        made.append(story.failed() if n % 7 == 0 else story.succeeded({"n": n}))
    return made


@contextmanager
def running(projector: Projector) -> Iterator[threading.Event]:
    stop = threading.Event()
    errors: list[BaseException] = []

    def target() -> None:
        try:
            projector.run(stop)
        except BaseException as error:  # noqa: BLE001 - handed to the test below
            errors.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
        if errors:
            raise errors[0]


def sample(meters: Meters, name: str, **labels: str) -> float | None:
    return meters.registry.get_sample_value(name, labels)


class Setting:
    """One projector's place: log, tables, meters, health."""

    def __init__(self, kafka: KafkaConfig, names: TopicNames, lanes: int, dsn: str, schema: str) -> None:
        self.kafka, self.names, self.lanes, self.dsn, self.schema = kafka, names, lanes, dsn, schema
        self.meters, self.health = Meters(), Health("projector")

    def projector(self, **options: Any) -> Projector:
        return Projector(
            self.kafka,
            self.names,
            self.lanes,
            self.dsn,
            self.schema,
            meters=self.meters,
            health=self.health,
            **options,
        )

    def applied(self) -> int:
        with psycopg.connect(self.dsn, options=f"-c search_path={self.schema}") as connection:
            found = connection.execute("SELECT sum(next_offset)::int FROM offsets").fetchone()
        return found[0] or 0 if found else 0

    def differences(self) -> list[str]:
        return differences(self.dsn, self.schema, read_log(self.kafka, self.names, self.lanes))


@pytest.fixture
def dsn(stack: StackAddresses, schema: str) -> str:
    migrate.upgrade(stack.dsn, schema)
    return stack.dsn


@pytest.fixture
def writer(kafka: KafkaConfig) -> Producer:
    return clients.producer(kafka, "test-events")


@pytest.fixture
def setting(kafka: KafkaConfig, topics: TopicNames, lanes: int, dsn: str, schema: str) -> Setting:
    return Setting(kafka, topics, lanes, dsn, schema)


def nothing() -> None:
    """What is done meanwhile."""


@pytest.fixture
def tables(stack: StackAddresses, schema: str) -> Iterator[Tables]:
    migrate.upgrade(stack.dsn, schema)
    made = Tables(stack.dsn, schema, range(LANES))
    yield made
    made.close()


def apply(tables: Tables, batch: Sequence[Record]) -> list[Parked]:
    return tables.apply(Entries(batch), nothing)


class Projection:
    """Applies values in the order given, each lane's offsets going on."""

    def __init__(self, dsn: str, schema: str) -> None:
        self._tables = Tables(dsn, schema, range(4))
        self.monitor = Monitor(dsn, schema)

    def apply(self, *stories: Story) -> None:
        self.values(*(value for story in stories for value in story.values))

    def values(self, *values: bytes) -> None:
        batch = placed([(0, value) for value in values], first_offset=self._tables.positions[0])
        assert self._tables.apply(Entries(batch), lambda: None) == []

    def in_lanes(self, *values: tuple[int, bytes]) -> None:
        """Values with their lanes."""
        batch = []
        following = dict(self._tables.positions)
        for lane, value in values:
            batch += placed([(lane, value)], first_offset=following[lane])
            following[lane] += 1
        assert self._tables.apply(Entries(sorted(batch, key=lambda one: one.lane)), lambda: None) == []

    def raw(self, value: bytes) -> None:
        self._tables.apply(Entries(placed([(0, value)], first_offset=self._tables.positions[0])), lambda: None)

    def close(self) -> None:
        self._tables.close()
        self.monitor.close()


@pytest.fixture
def projection(stack: StackAddresses, schema: str) -> Iterator[Projection]:
    migrate.upgrade(stack.dsn, schema)
    made = Projection(stack.dsn, schema)
    yield made
    made.close()


@pytest.fixture
def monitor(projection: Projection) -> Monitor:
    return projection.monitor


@pytest.fixture
def crowd(projection: Projection) -> list[Story]:
    """Forty jobs, a second apart, over two queues, three tasks and five states."""
    made = []
    for n in range(1, 41):
        story = Story(
            random=n, queue=f"q{n % 2}", task=f"t{n % 3}", at=BEGINNING + timedelta(minutes=n), id=new_job_id(0, n, n)
        ).enqueued()
        match n % 5:
            case 1:
                story.processing(f"w{n % 2}")
            case 2:
                story.processing().succeeded()
            case 3:
                story.processing().failed(exception={"type": f"demo.Error{n}", "message": "50% of A_b"})
            case 4:
                story.deleted()
        made.append(story)
    projection.apply(*made)
    return made
