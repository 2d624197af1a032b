"""Records that cannot be read, on a real broker: one dead letter each, and everything else goes on."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.services.client.client import Client
from joblog.streams.contract.recurring import Definition
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig, reader
from joblog.streams.kafka.last_records import last_records
from joblog.streams.metrics import Meters
from joblog.streams.recurring.jobs import Installation, partition_of
from joblog.streams.recurring.process import Recurring
from joblog.streams.recurring.rows import encode_aspect
from joblog.streams.recurring.sender import Record, Sender

from tests.support.odd_headers import NotUtf8, send_with_header

pytestmark = pytest.mark.broker

OTHERS = Definition(id="b", schedule="@every_second", task="t", starts_at=datetime(2000, 1, 1, tzinfo=UTC))
BROKEN = (
    (b"a|progress", b"{"),
    (b"\xff", b"\x00"),
    (b"a|pause", b'{"paused": "perhaps"}'),
    (b"a", encode_aspect(OTHERS)),
)


@contextmanager
def running(kafka: KafkaConfig, topics: TopicNames, lanes: int) -> Iterator[Meters]:
    """A recurring process; the metrics tell how many records it parked."""
    stop, meters = threading.Event(), Meters()
    process = Recurring(kafka, topics, Installation(lanes, {}, {}), meters=meters, health=Health("recurring"))
    thread = threading.Thread(target=process.run, args=(stop,))
    thread.start()
    try:
        yield meters
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def letters(kafka: KafkaConfig, topics: TopicNames) -> list[tuple[bytes | None, bytes | None, dict[str, str]]]:
    """Key, value and headers of all dead letters."""
    consumer = reader(kafka, f"{topics.prefix}look")
    try:
        records = list(last_records(consumer, topics.deadletters, 1_000, 20))
    finally:
        consumer.close()
    return [(one.key(), one.value(), {name: text.decode() for name, text in one.headers()}) for one in records]


def test_what_cannot_be_read_is_a_dead_letter_once_and_jobs_go_on(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, wait_until: Callable[..., Any]
) -> None:
    number = partition_of("a", lanes)
    sender = Sender(kafka, f"{topics.prefix}broken")
    with Client(kafka, topics, lanes) as client:
        client.recurring.add_or_update("a", "t", timedelta(seconds=1))
        sender.send([Record(topics.recurring, number, key, value, [("own", b"1")]) for key, value in BROKEN])
        with running(kafka, topics, lanes):
            wait_until(lambda: len(letters(kafka, topics)) == len(BROKEN), 30, "the dead letters")
            made = wait_until(lambda: made_by(client), 20, "a job")
        found = letters(kafka, topics)
        assert {(key, value) for key, value, _ in found} == set(BROKEN)
        where = {(said["joblog-topic"], said["joblog-partition"], said["joblog-role"]) for _, _, said in found}
        assert where == {(topics.recurring, str(number), "recurring")}
        assert sorted(int(said["joblog-offset"]) for _, _, said in found) == [1, 2, 3, 4]
        assert {said["joblog-reason-code"] for _, _, said in found} == {"invalid_data"}
        assert {said["own"] for _, _, said in found} == {"1"}

        # Another process reads the same records again, and one more that is new.
        with running(kafka, topics, lanes) as meters:
            wait_until(lambda: made_by(client) > made, 30, "a job of the next process")
            sender.send([Record(topics.recurring, number, b"a|skip", b"?")])
            wait_until(lambda: len(letters(kafka, topics)) > len(BROKEN), 20, "the new dead letter")
            wait_until(lambda: parked(meters) == 1, 10, "its count")
    sender.close()
    assert [key for key, _, _ in letters(kafka, topics)].count(b"a|skip") == 1
    assert len(letters(kafka, topics)) == len(BROKEN) + 1


def test_the_name_of_a_header_that_is_not_utf8_stops_no_partition(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, wait_until: Callable[..., Any]
) -> None:
    number = partition_of("a", lanes)
    with Client(kafka, topics, lanes) as client, running(kafka, topics, lanes) as meters:
        records = ((b"a|skip", b"?"), (b"other", b"?"))
        asyncio.run(send_with_header(kafka.bootstrap_servers, topics.recurring, number, NotUtf8("?"), *records))
        client.recurring.add_or_update("a", "t", timedelta(seconds=1))
        wait_until(lambda: made_by(client), 30, "a job")
        wait_until(lambda: len(letters(kafka, topics)) == len(records), 20, "the dead letters")
        assert [said["own"] for _, _, said in letters(kafka, topics)] == ["kept"] * len(records)
        assert meters.registry.get_sample_value("joblog_internal_errors_total", {"role": "recurring"}) in {0, None}


def made_by(client: Client) -> Any:
    progress = client.recurring.get("a").progress
    return progress and progress.last_occurrence


def parked(meters: Meters) -> float | None:
    labels = {"role": "recurring", "reason": "invalid_data"}
    return meters.registry.get_sample_value("joblog_quarantined_records_total", labels)
