"""What an outage of several intervals leaves behind: a process ends, and another begins ten minutes later."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.services.client.client import Client
from joblog.streams.contract.recurring import Definition, Misfire, Pause, record_key
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.recurring.jobs import partition_of
from joblog.streams.recurring.rows import encode_aspect

from tests.support.recurring_process import Clock, Scheduler, occurrences, write, write_definition

pytestmark = pytest.mark.broker

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MODES: dict[str, dict[str, Any]] = {
    "relaxed": {"misfire": Misfire.RELAXED},
    "strict": {"misfire": Misfire.STRICT, "misfire_cap": 4},
    "strict-all": {"misfire": Misfire.STRICT, "misfire_cap": 100},
    "ignorable": {"misfire": Misfire.IGNORABLE, "misfire_tolerance_s": 100},
    "ignorable-none": {"misfire": Misfire.IGNORABLE, "misfire_tolerance_s": 20},
    "paused": {"misfire": Misfire.STRICT, "misfire_cap": 100},
}


def at(*minutes: int) -> list[datetime]:
    return [START + timedelta(minutes=minute) for minute in minutes]


def test_an_outage_of_ten_minutes_is_made_up_for_as_each_definition_says(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, wait_until: Callable[..., Any]
) -> None:
    for name, fields in MODES.items():
        made = Definition(id=name, schedule="* * * * *", task="t", starts_at=START, **fields)
        write_definition(kafka, topics, lanes, made)
    with Client(kafka, topics, lanes) as client:

        def all_are_through(instant: datetime) -> bool:
            rows = [row for row in client.recurring.list() if row.id != "paused"]
            return all(row.progress is not None and row.progress.through == instant for row in rows)

        with Scheduler(kafka, topics, lanes, Clock(START + timedelta(seconds=60))):
            wait_until(lambda: all_are_through(START + timedelta(minutes=1)), 30, "the first occurrence")
            wait_until(lambda: occurrences(kafka, topics)["paused"], 20, "the first occurrence")
        # Paused from before the outage until in its midst: strict as it is, only what came later is made up for.
        pause = Pause(paused=True, at=START + timedelta(seconds=90), until=START + timedelta(minutes=7, seconds=30))
        key = record_key("paused", Pause)
        write(kafka, topics, [(partition_of("paused", lanes), key, encode_aspect(pause))])
        with Scheduler(kafka, topics, lanes, Clock(START + timedelta(minutes=11, seconds=30))):
            wait_until(lambda: all_are_through(START + timedelta(minutes=11)), 30, "the last occurrence")
            wait_until(lambda: len(occurrences(kafka, topics)["paused"]) > 1, 20, "what came after the pause")

    assert occurrences(kafka, topics) == {
        "relaxed": at(1, 11),
        "strict": at(1, 8, 9, 10, 11),
        "strict-all": at(*range(1, 12)),
        "ignorable": at(1, 10, 11),
        "ignorable-none": at(1),
        "paused": at(1, 8, 9, 10, 11),
    }
