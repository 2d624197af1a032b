import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from joblog.services.client.client import Client
from joblog.services.client.options import Call, JobDraft, JobOptions, with_options
from joblog.services.client.sending import NotAcknowledged
from joblog.services.tasks.task import task
from joblog.streams.contract.codec import read_command
from joblog.streams.contract.ids import lane_of_job, lane_of_queue, new_job_id
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.topics import COMMANDS, TOPICS, TopicNames
from joblog.streams.contract.wire import (
    Command,
    CreateJob,
    DeleteJob,
    Parent,
    RequeueJob,
    RescheduleJob,
    SetParameter,
)
from joblog.streams.errors import JoblogError, TopicsError
from joblog.streams.kafka.admin import create_topics
from joblog.streams.kafka.clients import KafkaConfig, admin, reader
from msgspec import json

Commands = Callable[[], list[tuple[int, str, Command]]]
pytestmark = pytest.mark.broker
TIMEOUT_S = 4


@pytest.fixture
def client(kafka: KafkaConfig, topics: TopicNames, lanes: int) -> Iterator[Client]:
    with Client(kafka, topics, lanes, name="test", shards={"hot": 2}) as made:
        yield made


@pytest.fixture
def commands(kafka: KafkaConfig, topics: TopicNames, lanes: int) -> Iterator[Commands]:
    """All commands so far: partition, key and what an elector reads."""
    consumer: Consumer = reader(kafka, f"{topics.prefix}test")

    def read() -> list[tuple[int, str, Command]]:
        consumer.assign([TopicPartition(topics.commands, lane, 0) for lane in range(lanes)])
        found, waiting, deadline = [], set(range(lanes)), time.monotonic() + 30
        while waiting:
            assert time.monotonic() < deadline
            for record in consumer.consume(10_000, 0.1):
                if record.error() is None:
                    command = read_command(record.value(), record.headers()).command
                    found.append((record.partition(), record.key().decode(), command))
                else:
                    assert record.error().code() == KafkaError._PARTITION_EOF
                    waiting.discard(record.partition())
        return found

    yield read
    consumer.close()


@task("images.shrink", queue="images")
def shrink(path: str, width: int = 0) -> None: ...


def only(commands: Commands) -> Command:
    ((_, _, command),) = commands()
    return command


def test_an_enqueued_job_is_in_the_log_in_its_lane_when_the_call_returns(
    client: Client, commands: Commands, lanes: int
) -> None:
    job_id = client.enqueue(shrink, "a.png", width=640)
    ((partition, key, command),) = commands()
    assert (partition, key) == (lane_of_queue("images", lanes), job_id)
    assert isinstance(command, CreateJob)
    assert (command.task, command.queue, command.job_id) == ("images.shrink", "images", job_id)
    assert (json.decode(bytes(command.args)), json.decode(bytes(command.kwargs))) == (["a.png"], {"width": 640})


def test_a_scheduled_job_has_its_instant(client: Client, commands: Commands) -> None:
    at = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    client.schedule("a.b", 1, at=at)
    command = only(commands)
    assert isinstance(command, CreateJob)
    assert command.run_at == at


def test_a_delay_counts_from_the_call(client: Client, commands: Commands) -> None:
    before = datetime.now(UTC)
    client.schedule("a.b", delay=timedelta(hours=1))
    command = only(commands)
    assert isinstance(command, CreateJob)
    assert command.run_at is not None
    assert timedelta(0) <= command.run_at - before - timedelta(hours=1) < timedelta(minutes=1)


def test_a_continuation_names_its_parent(client: Client, commands: Commands, lanes: int) -> None:
    parent = new_job_id(lanes - 1, 1)
    client.continue_with(parent, "a.b", on=ContinueOn.FINISHED)
    command = only(commands)
    assert isinstance(command, CreateJob)
    assert command.parent == Parent(parent, ContinueOn.FINISHED)


def test_arguments_may_have_the_names_of_options(client: Client, commands: Commands) -> None:
    client.create("a.b", Call(kwargs={"at": 1, "options": 2}), JobOptions(priority=3))
    command = only(commands)
    assert isinstance(command, CreateJob)
    assert (json.decode(bytes(command.kwargs)), command.priority) == ({"at": 1, "options": 2}, 3)


def test_changes_go_to_the_lane_that_the_job_id_names(client: Client, commands: Commands, lanes: int) -> None:
    ids = [new_job_id(lane, 1) for lane in range(lanes)]
    at = datetime(2027, 1, 2, tzinfo=UTC)
    for job_id in ids:
        client.delete(job_id, expected_state=State.ENQUEUED, reason="no longer wanted")
        client.requeue(job_id, queue="other", expected_version=3)
        client.reschedule(job_id, at=at)
        client.set_parameter(job_id, "progress", {"done": 1})
    found = commands()
    assert all((partition, key) == (lane_of_job(key), key) for partition, key, _ in found)
    assert [command for _, key, command in found if key == ids[0]] == [
        DeleteJob(job_id=ids[0], expected_state=State.ENQUEUED, reason="no longer wanted"),
        RequeueJob(job_id=ids[0], queue="other", expected_version=3),
        RescheduleJob(job_id=ids[0], run_at=at),
        SetParameter(job_id=ids[0], name="progress", value={"done": 1}),
    ]


def test_many_jobs_are_all_in_the_log_in_the_order_of_the_calls(client: Client, commands: Commands) -> None:
    ids = client.enqueue_many("a.b", (((n,), {"twice": 2 * n}) for n in range(20_000)), JobOptions(queue="hot"))
    found = {key: command for _, key, command in commands()}
    assert len(found) == len(ids) == 20_000
    for n in (0, 1, 9_999, 19_999):
        command = found[ids[n]]
        assert isinstance(command, CreateJob)
        assert json.decode(bytes(command.kwargs)) == {"twice": 2 * n}
    assert {lane_of_job(one) for one in ids} == {0, 1}


def test_many_threads_share_a_client(client: Client, commands: Commands) -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda n: client.enqueue("a.b", n), range(200)))
    assert {key for _, key, _ in commands()} == set(ids)
    assert len(set(ids)) == 200


def test_a_call_in_a_busy_client_does_not_wait_for_others(client: Client) -> None:
    """One thread's acknowledgement must not be consumed by another one that goes on waiting."""
    client.enqueue("a.b")
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            client.enqueue_many("a.b", [()] * 100)

    busy = threading.Thread(target=keep_busy)
    busy.start()
    try:
        began = time.monotonic()
        for _ in range(20):
            client.enqueue("a.b")
        assert time.monotonic() - began < 10
    finally:
        stop.set()
        busy.join()


def test_the_same_key_is_the_same_job(client: Client, commands: Commands) -> None:
    options = JobOptions(idempotency_key="order 17", queue="hot")
    assert client.enqueue("a.b", options=options) == client.enqueue("a.b", options=options)
    assert {partition for partition, _, _ in commands()} <= {0, 1}


class Stamping:
    def __init__(self) -> None:
        self.created: list[tuple[str, JobDraft]] = []

    def on_creating(self, draft: JobDraft) -> JobDraft | None:
        if "unwanted" in draft.args:
            return None
        return replace(draft, options=with_options(draft.options, parameters={"by": "stamp"}, queue="hot"))

    def on_created(self, job_id: str, draft: JobDraft) -> None:
        self.created.append((job_id, draft))


def test_filters_change_cancel_and_hear_of_jobs(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, commands: Commands
) -> None:
    stamping = Stamping()
    with Client(kafka, topics, lanes, filters=[stamping]) as client:
        one = client.enqueue(shrink, "a.png")
        many = client.enqueue_many(shrink, [(("b.png",), {}), (("unwanted",), {}), (("c.png",), {})])
    assert [job_id for job_id, _ in stamping.created] == [one, *many]
    found = {key: command for _, key, command in commands()}
    assert set(found) == {one, *many}
    for command in found.values():
        assert isinstance(command, CreateJob)
        assert (command.queue, bytes(command.parameters["by"])) == ("hot", b'"stamp"')


class Failing:
    def on_creating(self, draft: JobDraft) -> JobDraft | None:
        return draft

    def on_created(self, job_id: str, draft: JobDraft) -> None:
        raise ConnectionError(f"nobody to tell of {job_id} and {draft}")


def test_a_filter_that_fails_afterwards_does_not_hide_the_job(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, commands: Commands, caplog: pytest.LogCaptureFixture
) -> None:
    stamping = Stamping()
    with Client(kafka, topics, lanes, filters=[stamping, Failing()]) as client:
        ids = [client.enqueue("a.b"), *client.enqueue_many("a.b", [(), ()])]
    assert {key for _, key, _ in commands()} == set(ids)
    assert [job_id for job_id, _ in stamping.created] == ids
    told = [vars(record) for record in caplog.records if record.message == "client.filter_failed"]
    assert [(one["filter"], one["job_id"]) for one in told] == [("Failing", job_id) for job_id in ids]
    assert all(one["exc_info"] for one in told)


def test_other_lanes_than_the_topic_has_are_noticed_before_anything_is_sent(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, commands: Commands
) -> None:
    with Client(kafka, topics, lanes + 1) as client, pytest.raises(TopicsError, match=f"{lanes} partitions"):
        client.enqueue("a.b")
    assert commands() == []


def test_missing_topics_are_told_with_the_command_that_helps(kafka: KafkaConfig, names: TopicNames) -> None:
    with Client(kafka, names, 2) as client, pytest.raises(TopicsError, match="joblog topics create"):
        client.enqueue("a.b")


def test_a_repeated_call_with_the_same_id_is_the_same_job(client: Client, commands: Commands, lanes: int) -> None:
    job_id = new_job_id(lane_of_queue("default", lanes), 1)
    for _ in range(2):
        assert client.enqueue("a.b", options=JobOptions(job_id=job_id)) == job_id
    assert [key for _, key, _ in commands()] == [job_id, job_id]


def test_jobs_whose_topic_went_away_are_named_as_unknown(
    kafka: KafkaConfig,
    names: TopicNames,
    lanes: int,
    delete_topics: Callable[[list[str]], None],
    wait_until: Callable[..., Any],
) -> None:
    create_topics(kafka, names, lanes)
    job_id, operator = new_job_id(lane_of_queue("default", lanes), 2), admin(kafka)
    with Client(kafka, names, lanes, timeout_s=5) as client:
        client.enqueue("a.b")
        for deletion in operator.delete_topics([names.commands], operation_timeout=30).values():
            deletion.result(30)
        # A deletion is agreed on before every broker has heard of it.
        wait_until(lambda: names.commands not in operator.list_topics(timeout=10).topics, 30, "the topic to be gone")
        with pytest.raises(NotAcknowledged, match="1 of 1") as told:
            client.enqueue("a.b", options=JobOptions(job_id=job_id))
    assert told.value.unacknowledged == (job_id,)
    delete_topics([names.of(topic) for topic in TOPICS if topic is not COMMANDS])


def test_a_client_can_be_left_in_a_fork_and_not_used(client: Client) -> None:
    """The fork has all connections that its parent has used, and none of the threads that they would wait for."""
    client.enqueue("a.b")
    with client.batch() as batch:
        batch.enqueue("a.b")
    client.queues.configure("hot", shards=1)
    client.recurring.add_or_update("r", "a.b", "@daily")
    client._queue_settings._looked_at = 0.0  # as after a second
    client.enqueue("a.b")
    assert client._queue_settings._consumer is not None

    def in_fork() -> None:
        for use in (
            batch.commit,
            lambda: client.queues.configure("hot", shards=2),
            lambda: client.recurring.pause("r"),
            lambda: client.enqueue("a.b"),
        ):
            with pytest.raises(JoblogError, match="fork"):
                use()
        client.close()
        os._exit(7)

    child = multiprocessing.get_context("fork").Process(target=in_fork)
    child.start()
    child.join(TIMEOUT_S)
    child.kill()
    child.join(TIMEOUT_S)
    assert child.exitcode == 7
    client.enqueue("a.b")
