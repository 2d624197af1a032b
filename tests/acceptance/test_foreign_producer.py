"""A producer that knows nothing of Joblog but its contract: a CloudEvent, keyed by the queue."""

from typing import Any

import pytest
from confluent_kafka import Producer
from msgspec import json

pytestmark = [pytest.mark.broker, pytest.mark.database]


def test_a_plain_cloudevent_becomes_one_job_that_runs_once(installation: Any, wait_until: Any) -> None:
    for role in ("elector", "worker-1"):
        installation.start(role)
    event = {
        "specversion": "1.0",
        "id": "order-4711",
        "source": "https://shop.example/orders",
        "type": "job.create",
        "datacontenttype": "application/json",
        "data": {"task": "ok", "args": ["größe"], "queue": "default"},
    }
    # Kafka's default partitioner, which librdkafka calls murmur2_random, finds the lane of the queue.
    producer = Producer({"bootstrap.servers": installation.kafka.bootstrap_servers, "partitioner": "murmur2_random"})
    for _ in range(2):
        producer.produce(installation.names.commands, json.encode(event), key="default")
    producer.flush()
    (events,) = wait_until(
        lambda: [one for one in installation.events().values() if one[-1]["type"] == "job.succeeded"], 60, "the job"
    )
    assert [one["type"] for one in events] == ["job.enqueued", "job.processing", "job.succeeded"]
    assert events[-1]["data"]["result"] == "größe"
    producer.produce(installation.names.commands, json.encode(event), key="default")
    producer.flush()
    with installation.client() as client:
        other = client.enqueue("ok", 2)
    wait_until(lambda: installation.events().get(other, [{"type": ""}])[-1]["type"] == "job.succeeded", 60, "another")
    assert len(installation.events()) == 2
    assert set(installation.runs().values()) == {1}
