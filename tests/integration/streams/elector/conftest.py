"""An elector in the test's process, electors in processes of their own, and their log."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from joblog.streams.contract.topics import TopicNames
from joblog.streams.elector.elector import Elector
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

from tests.support.electors import Electors, Log


@pytest.fixture
def log(kafka: KafkaConfig, topics: TopicNames, lanes: int) -> Iterator[Log]:
    made = Log(kafka, topics, lanes)
    yield made
    made.close()


@pytest.fixture
def start(kafka: KafkaConfig, topics: TopicNames, lanes: int, tmp_path: Path) -> Iterator[Electors]:
    """Starts electors in processes; those that run at the end are killed."""
    with Electors(kafka, topics, lanes, tmp_path) as made:
        yield made


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
