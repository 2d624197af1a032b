"""Faust throws away what it fetched while partitions were given out, and goes back: everything has to come again."""

import asyncio
from typing import Any

import pytest
from confluent_kafka import Producer
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.recurring.membership import member
from joblog.streams.triggers.faust_app import App

pytestmark = pytest.mark.broker

WAIT_S = 30.0
RECORDS = 3


async def assert_read_twice(app: Any, read: "asyncio.Queue[int]") -> None:
    """Let the app read, go back as at a rebalance, and read again; `read` has the offsets that it was given."""

    async def whole() -> list[int]:
        return [await asyncio.wait_for(read.get(), WAIT_S) for _ in range(RECORDS)]

    await app.start()
    try:
        assert await whole() == list(range(RECORDS))
        app.consumer.stop_flow()
        await app.consumer.perform_seek()
        app.consumer.resume_flow()
        assert await whole() == list(range(RECORDS))
    finally:
        await app.stop()


def test_a_trigger_reads_again_what_was_never_committed(kafka: KafkaConfig, topics: TopicNames) -> None:
    send(kafka, topics.recurring)

    async def run() -> None:
        app: Any = App(kafka, f"{topics.prefix}group", topics.prefix, {topics.recurring: ""})
        read = asyncio.Queue[int]()

        async def take(stream: Any) -> None:
            async for event in stream.noack().events():
                read.put_nowait(event.message.offset)

        app.agent(app.topic(topics.recurring, value_type=bytes, value_serializer="raw"), name="take")(take)
        app.finalize()
        await assert_read_twice(app, read)

    asyncio.run(run())


def test_a_recurring_process_reads_everything_again(kafka: KafkaConfig, topics: TopicNames) -> None:
    send(kafka, topics.recurring)

    async def run() -> None:
        read = asyncio.Queue[int]()
        app = member(
            kafka,
            topics,
            on_assigned=lambda _: None,
            on_revoked=lambda: None,
            on_record=lambda record: read.put_nowait(record.offset),
        )
        await assert_read_twice(app, read)

    asyncio.run(run())


def send(kafka: KafkaConfig, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(RECORDS):
        producer.produce(topic, b"{}", key=str(number), partition=0)
    assert producer.flush(WAIT_S) == 0
