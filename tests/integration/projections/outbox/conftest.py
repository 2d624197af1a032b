import pytest
from joblog.services.embedded.stack import StackAddresses
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import KafkaConfig

from tests.support.outbox_world import OutboxWorld


@pytest.fixture
def table(stack: StackAddresses, kafka: KafkaConfig, names: TopicNames, lanes: int, schema: str) -> OutboxWorld:
    """An outbox without topics: nothing is relayed."""
    world = OutboxWorld(kafka, stack.dsn, names, lanes, schema)
    world.create()
    return world


@pytest.fixture
def world(table: OutboxWorld, topics: TopicNames) -> OutboxWorld:
    return table
