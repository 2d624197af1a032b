"""Recurring jobs under attack: clocks that step, schedulers that begin together, edits, foreign records."""

import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from joblog.services.client.client import Client
from joblog.streams.contract.recurring import Definition, Misfire, Overlap, Pause, Progress, Skip, record_key
from joblog.streams.contract.topics import TopicNames
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.recurring.jobs import partition_of
from joblog.streams.recurring.rows import encode_aspect
from joblog.streams.recurring.schedule import between, cron

from tests.support.mutations import Written, mutated
from tests.support.recurring_process import (
    Clock,
    Scheduler,
    commands,
    occurrences,
    write,
    write_definition,
)

pytestmark = pytest.mark.broker

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
GARBAGE = 400


def test_a_clock_that_steps_forwards_and_backwards_creates_each_occurrence_once(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, wait_until: Callable[..., Any]
) -> None:
    made = Definition(id="a", schedule="* * * * *", task="t", starts_at=START, misfire=Misfire.STRICT)
    write_definition(kafka, topics, lanes, made)
    clock = Clock(START + MINUTE)
    with Client(kafka, topics, lanes) as client:

        def through(minute: int) -> Callable[[], bool]:
            def reached() -> bool:
                progress = client.recurring.get("a").progress
                return progress is not None and progress.through >= START + minute * MINUTE

            return reached

        with Scheduler(kafka, topics, lanes, clock):
            wait_until(through(1), 30, "the first occurrence")
            clock.at = START + 11 * MINUTE
            wait_until(through(11), 20, "what the step forwards left out")
        clock.at = START + 3.5 * MINUTE  # backwards, and once more while a process runs
        write_definition(kafka, topics, lanes, made.model_copy(update={"id": "b"}))
        with Scheduler(kafka, topics, lanes, clock):
            wait_until(lambda: len(occurrences(kafka, topics)["b"]) == 3, 30, "what is due for another")
            clock.at = START + 2.5 * MINUTE
            clock.at = START + 12 * MINUTE
            wait_until(through(12), 20, "the next occurrence")
    assert occurrences(kafka, topics)["a"] == [START + minute * MINUTE for minute in range(1, 13)]


def test_two_that_begin_at_the_same_instant_share_the_work_and_create_each_occurrence_once(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, wait_until: Callable[..., Any]
) -> None:
    start, ids = datetime.now(UTC), [f"a{number}" for number in range(10)]
    for recurring_id in ids:
        made = Definition(id=recurring_id, schedule="* * * * * *", task="t", starts_at=start, misfire=Misfire.STRICT)
        write_definition(kafka, topics, lanes, made)
    together = threading.Barrier(2)
    with Client(kafka, topics, lanes) as client, ExitStack() as both:
        running = [
            both.enter_context(Scheduler(kafka, topics, lanes, begin=lambda: together.wait(10) and None))
            for _ in range(2)
        ]
        wait_until(
            lambda: [one.count("joblog_recurring_partitions") for one in running] == [lanes / 2] * 2,
            30,
            "each to have its share",
        )
        end = datetime.now(UTC) + timedelta(seconds=1)

        def all_are_past() -> bool:
            return all(row.progress and row.progress.through >= end for row in client.recurring.list())

        wait_until(all_are_past, 20, "the end")
    jobs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in commands(kafka, topics):
        parameters = one["data"]["parameters"]
        jobs[parameters["RecurringJobId"], parameters["Time"]].add(one["data"]["job_id"])
    assert all(len(ids) == 1 for ids in jobs.values()), "commands of an occurrence may be repeated, with its one id"
    due = list(between(cron("* * * * * *"), start, end))
    for recurring_id in ids:
        found = {datetime.fromisoformat(time) for one, time in jobs if one == recurring_id}
        assert found >= set(due)


def test_a_definition_that_is_edited_all_the_time_loses_and_repeats_nothing(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, wait_until: Callable[..., Any]
) -> None:
    with Client(kafka, topics, lanes) as client, Scheduler(kafka, topics, lanes):
        made = client.recurring.add_or_update("a", "t", "* * * * * *", misfire="strict", args=(0,))
        edits, end = 0, datetime.now(UTC) + timedelta(seconds=4)
        while datetime.now(UTC) < end:
            edits += 1
            client.recurring.edit("a", args=(edits,))
            # Another schedule of the same instants: occurrences count from the edit on.
            client.recurring.add_or_update("b", "t", ("* * * * * *", "*/1 * * * * *")[edits % 2], misfire="strict")
        wait_until(lambda: client.recurring.get("a").progress.through >= end, 20, "the end")  # type: ignore[union-attr]
    assert edits > 5
    found = occurrences(kafka, topics)["a"]
    assert found[: len(due := list(between(cron("* * * * * *"), made.starts_at, end)))] == due
    assert len(set(found)) == len(found)
    found = occurrences(kafka, topics)["b"]
    assert len(set(found)) == len(found)
    versions = [one["data"]["args"][0] for one in commands(kafka, topics) if one["data"]["args"]]
    assert sorted(versions) == versions, "no job has arguments older than those of the one before"


def garbage(random: Random) -> tuple[bytes, bytes | None]:
    """A record of a definition that anybody may have written, with something wrong about it."""
    recurring_id = f"g{random.randrange(20)}"
    now = datetime.now(UTC)
    aspect = random.choice(
        [
            Definition(
                id=recurring_id,
                schedule=random.choice(["* * * * * *", "0 2 * * *", "@daily"]),
                zone=random.choice(["UTC", "America/New_York"]),
                task="t",
                misfire_cap=3,
                overlap=random.choice(list(Overlap)),
                starts_at=random.choice([now, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]),
            ),
            Pause(paused=True, at=now, until=datetime.max.replace(tzinfo=UTC)),
            Skip(after=random.choice([datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])),
            Progress(
                through=random.choice([now, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]),
                last_job_id=random.choice([None, "01a31bcf-c400-8fff-8000-00000000002a"]),
                last_created_at=random.choice([None, now, datetime.min.replace(tzinfo=UTC)]),
                waiting=random.choice([None, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]),
            ),
        ]
    )
    key = record_key(recurring_id, type(aspect)).encode()
    value = aspect.model_dump_json().encode()
    if random.random() < 0.3:
        return key, value
    wrong = mutated(random, Written("recurring", key, value))
    return wrong.key or b"?", wrong.value  # the broker refuses records without keys


def test_what_others_write_into_the_topic_costs_them_alone(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, wait_until: Callable[..., Any]
) -> None:
    random = Random(1)
    with Client(kafka, topics, lanes) as client:
        good = client.recurring.add_or_update("good", "t", "* * * * * *", misfire="strict")

        def good_goes_on() -> None:
            instant = datetime.now(UTC)
            wait_until(lambda: occurrences(kafka, topics)["good"][-1:] > [instant], 30, "the good one to go on")

        with Scheduler(kafka, topics, lanes) as running:
            good_goes_on()
            for _ in range(4):
                records = [(random.randrange(lanes), *garbage(random)) for _ in range(GARBAGE // 4)]
                write(kafka, topics, records)
                good_goes_on()
            assert running.count("joblog_internal_errors_total", role="recurring") == 0
            assert running.count("joblog_rebalances_total", role="recurring") == 1
            assert running.count("joblog_quarantined_records_total", role="recurring", reason="invalid_data") > 50
        with Scheduler(kafka, topics, lanes) as running:  # which reads all of it from the beginning
            good_goes_on()
            assert running.count("joblog_internal_errors_total", role="recurring") == 0
        assert "good" in {row.id for row in client.recurring.list()}
        assert client.recurring.remove("good")
    found = occurrences(kafka, topics)["good"]
    assert found == list(between(cron("* * * * * *"), good.starts_at, found[-1]))


def test_a_definition_under_the_key_of_another_is_refused(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, wait_until: Callable[..., Any]
) -> None:
    start = datetime.now(UTC)
    made = Definition(id="a", schedule="* * * * * *", task="t", starts_at=start)
    other = made.model_copy(update={"id": "b"})
    write_definition(kafka, topics, lanes, other)
    write(kafka, topics, [(partition_of("a", lanes), "a", encode_aspect(other))])
    with Client(kafka, topics, lanes) as client:
        assert [row.id for row in client.recurring.list()] == ["b"]
