"""The one profile of all clients, on a real broker: no option of a user makes it less safe."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig

pytestmark = pytest.mark.broker

#: What a user might set, believing it to be faster.
CARELESS = {
    "acks": "0",
    "auto.offset.reset": "latest",
    "enable.auto.commit": "true",
    "enable.idempotence": "false",
    "isolation.level": "read_uncommitted",
}


def read(consumer: Consumer, topic: str) -> tuple[list[bytes | None], KafkaError]:
    """What a consumer is given of partition 0, up to the first error or the end."""
    values = []
    while True:
        message = consumer.poll(10)
        assert message is not None
        if (error := message.error()) is not None:
            return values, error
        values.append(message.value())


@pytest.fixture
def careless(kafka: KafkaConfig) -> KafkaConfig:
    return KafkaConfig(kafka.bootstrap_servers, CARELESS)


@pytest.mark.parametrize("kind", ["reader", "member of a group"])
def test_nothing_is_read_that_was_not_committed(
    careless: KafkaConfig, topics: TopicNames, prefix: str, kind: str
) -> None:
    producer = clients.transactional_producer(careless, f"{prefix}test")
    producer.init_transactions(10)
    for value, is_committed in ((b"kept", True), (b"thrown away", False), (b"kept, too", True)):
        producer.begin_transaction()
        producer.produce(topics.events, value, partition=0)
        producer.commit_transaction(10) if is_committed else producer.abort_transaction(10)
    producer.begin_transaction()
    producer.produce(topics.events, b"not yet", partition=0)
    producer.flush(10)
    if kind == "reader":
        consumer = clients.reader(careless, "test")
    else:
        consumer = clients.group_consumer(careless, f"{prefix}test", "test", **{"enable.partition.eof": True})
    consumer.assign([TopicPartition(topics.events, 0, 0)])
    values, error = read(consumer, topics.events)
    consumer.close()
    assert (values, error.code()) == ([b"kept", b"kept, too"], KafkaError._PARTITION_EOF)


def test_a_position_that_the_log_no_longer_holds_is_an_error(careless: KafkaConfig, topics: TopicNames) -> None:
    producer = clients.producer(careless, "test")
    for _ in range(3):
        producer.produce(topics.commands, b"x", partition=0)
    producer.flush(10)
    admin: AdminClient = clients.admin(careless)
    for done in admin.delete_records([TopicPartition(topics.commands, 0, 2)]).values():
        done.result(10)
    consumer = clients.reader(careless, "test")
    consumer.assign([TopicPartition(topics.commands, 0, 0)])
    values, error = read(consumer, topics.commands)
    consumer.close()
    assert (values, error.code()) == ([], KafkaError._AUTO_OFFSET_RESET)


def test_a_consumer_commits_nothing_by_itself(careless: KafkaConfig, topics: TopicNames, prefix: str) -> None:
    producer = clients.producer(careless, "test")
    producer.produce(topics.commands, b"x", partition=0)
    producer.flush(10)
    for _ in range(2):
        consumer = clients.group_consumer(careless, f"{prefix}test", "test", **{"enable.partition.eof": True})
        place = TopicPartition(topics.commands, 0)
        assert consumer.committed([place], timeout=10)[0].offset < 0
        consumer.assign([TopicPartition(topics.commands, 0, 0)])
        assert read(consumer, topics.commands)[0] == [b"x"]
        consumer.close()  # which commits what is stored, if it is told to


def test_a_producer_numbers_its_records_so_that_a_repetition_is_no_second_one(
    kafka: KafkaConfig, topics: TopicNames, wait_until: Callable[..., Any]
) -> None:
    told: list[dict[str, Any]] = []
    options: dict[str, Any] = {
        **CARELESS,
        "statistics.interval.ms": "100",
        "stats_cb": lambda text: told.append(json.loads(text)),
    }
    producer: Producer = clients.producer(KafkaConfig(kafka.bootstrap_servers, options), "test")
    producer.produce(topics.commands, b"x", partition=0)
    assert producer.flush(10) == 0
    # Kafka gives an idempotent producer an id, and takes its records from all replicas that are in sync (KIP-98). The
    # first statistics may be older than that.
    wait_until(
        lambda: producer.poll(0.1) or (told and told[-1].get("eos", {}).get("idemp_state") == "Assigned"),
        10,
        "an id of the producer",
    )
