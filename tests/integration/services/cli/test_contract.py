"""`joblog contract check --topic`: keys, headers and partitions as a producer's client really chose them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.admin import NewTopic
from joblog.services.cli.app import app
from joblog.streams.errors import TopicsError
from joblog.streams.kafka import clients
from joblog.streams.kafka.clients import KafkaConfig
from typer.testing import CliRunner

pytestmark = pytest.mark.broker

DATA = {"task": "mails.send", "queue": "mails"}


@pytest.fixture
def test_topic(kafka: KafkaConfig, prefix: str, delete_topics: Callable[[list[str]], None]) -> Any:
    name = f"{prefix}producer-test"
    admin = clients.admin(kafka)
    admin.create_topics([NewTopic(name, 4, 1)])[name].result(30)
    yield name
    delete_topics([name])


def check(kafka: KafkaConfig, topic: str) -> tuple[int, list[dict[str, Any]], str]:
    environment = {"JOBLOG_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "JOBLOG_LANES": "4"}
    result = CliRunner().invoke(
        app, ["contract", "check", "--topic", topic, "--output", "json"], env=environment, catch_exceptions=False
    )
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()], result.stderr


def test_the_records_of_a_topic_are_judged_as_they_are(kafka: KafkaConfig, test_topic: str) -> None:
    producer = clients.producer(kafka, "producer-test")
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "job.create", "data": DATA}
    binary = [("ce_specversion", b"1.0"), ("ce_id", b"2"), ("ce_source", b"/shop"), ("ce_type", b"job.create")]
    producer.produce(test_topic, json.dumps(event), key="mails")
    producer.produce(test_topic, json.dumps(DATA), key="mails", headers=binary)
    producer.flush(30)
    code, rows, said = check(kafka, test_topic)
    assert [(row["outcome"], row["id"], row["forwarded"]) for row in rows] == [
        ("taken", "1", False),
        ("taken", "2", False),
    ]
    assert rows[0]["place"].startswith(f"{test_topic}/{rows[0]['lane']}@")
    assert (code, "forwarded" in said) == (0, False)
    home = rows[0]["lane"]
    producer.produce(test_topic, json.dumps(event | {"id": "3"}), key="mails", partition=(home + 1) % 4)
    producer.produce(test_topic, b"nonsense", partition=(home + 2) % 4)
    producer.flush(30)
    code, rows, said = check(kafka, test_topic)
    found = {row["id"]: row for row in rows}
    assert (found["3"]["lane"], found["3"]["forwarded"]) == (home, True)
    assert found[None]["code"] == "undecodable"
    assert code == 1
    assert "1 would be forwarded from another lane" in said


def test_a_topic_that_is_not_there_is_named(kafka: KafkaConfig, prefix: str) -> None:
    with pytest.raises(TopicsError, match=f"topic {prefix}nowhere cannot be read"):
        check(kafka, f"{prefix}nowhere")
