"""What the client makes of unique keys: the lane of the key, the key of a task's arguments, and what it refuses."""

from datetime import timedelta
from typing import Any

import pytest
from joblog.services.client.client import Client
from joblog.services.client.definitions import definition_of
from joblog.services.client.options import Call, JobOptions, drafted
from joblog.services.client.templates import CreateTemplate, Rules
from joblog.services.tasks.context import JobContext
from joblog.services.tasks.task import task
from joblog.streams.contract.codec import read_command
from joblog.streams.contract.commands import Unique
from joblog.streams.contract.ids import lane_of_job, lane_of_shard, new_job_id
from joblog.streams.contract.relations import UniquePolicy, UniqueUntil
from joblog.streams.contract.shards import shards_of
from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import CreateJob
from joblog.streams.errors import InvalidData, SettingsError
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.lane.rules import LaneRules
from pydantic import ValidationError

RULES = Rules(lanes=8, shards={"hot": 3}, source="/test", args_bytes_max=1_000)


@task("orders.bill", queue="hot", unique=Unique(key="bill {order_id:06d} {kind}", policy=UniquePolicy.EXISTING))
def bill(order_id: int, *, kind: str = "first", context: JobContext | None = None) -> None: ...


def lane_of_key(key: str) -> int:
    return lane_of_shard("hot", 8, shards_of("hot", RULES.shards, {}).of_key(key))


@pytest.mark.parametrize("key", ["a", "b", "c", "d"])
def test_a_job_is_made_in_the_lane_that_decides_about_its_key(key: str) -> None:
    template = CreateTemplate("t", JobOptions(queue="hot", unique=Unique(key=key)), RULES)
    records = [template.fill(Call()), *template.fill_all([Call()] * 3), template.fill(Call(idempotency_key="x"))]
    assert {lane_of_job(record.job_id) for record in records} == {lane_of_key(key)}
    assert {LaneRules(shards=RULES.shards).lane_of_key("hot", key, 8)} == {lane_of_key(key)}
    command = read_command(records[0].value, None).command
    assert isinstance(command, CreateJob)
    assert command.unique is not None
    assert command.unique.key == key


def test_an_id_of_another_lane_is_refused() -> None:
    template = CreateTemplate("t", JobOptions(queue="hot", unique=Unique(key="a")), RULES)
    home = lane_of_key("a")
    other = next(lane for lane in (lane_of_shard("hot", 8, shard) for shard in range(3)) if lane != home)
    made = new_job_id(home, 1)
    assert template.fill(Call(job_id=made)).job_id == made
    with pytest.raises(InvalidData, match=f"lane {home} decides about unique key 'a': leave the job id out"):
        template.fill(Call(job_id=new_job_id(other, 1)))


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (Call([17]), "bill 000017 first"),
        (Call([], {"order_id": 17, "kind": "last"}), "bill 000017 last"),
    ],
)
def test_a_task_makes_the_key_of_its_arguments(call: Call, key: str) -> None:
    draft = drafted(bill, call, JobOptions())
    assert draft.options.unique == Unique(key=key, policy=UniquePolicy.EXISTING)
    own = Unique(key="mine")
    assert drafted(bill, call, JobOptions(unique=own)).options.unique == own
    assert drafted("orders.bill", call, JobOptions()).options.unique is None


@pytest.mark.parametrize("call", [Call(), Call([1.5]), Call([["x"]]), Call(["x"])])
def test_arguments_that_make_no_key_are_refused(call: Call) -> None:
    with pytest.raises(InvalidData, match=r"\{order_id.*\} in the unique key of task orders\.bill"):
        drafted(bill, call, JobOptions())


def test_a_key_that_becomes_too_long_is_refused() -> None:
    with pytest.raises(InvalidData, match=r"unique key of task orders\.bill"):
        drafted(bill, Call([1], {"kind": "x" * 300}), JobOptions())


@pytest.mark.parametrize(
    ("unique", "says"),
    [
        (Unique(key="{oder_id}"), "{oder_id} in unique key '{oder_id}' is no parameter: it has order_id"),
        (Unique(key="{order_id!r}"), "{order_id!r} in unique key"),
        (Unique(key="{order_id"), "unique key '{order_id'"),
        ("{order_id}", 'is no unique key: write Unique(key="{order_id}")'),
    ],
)
def test_a_task_with_a_key_that_cannot_be_made_is_refused(unique: Any, says: str) -> None:
    with pytest.raises(SettingsError) as refused:

        @task("t", unique=unique)
        def one(order_id: int) -> None: ...

    assert says in str(refused.value)


def test_many_jobs_do_not_share_a_key() -> None:
    client = Client(KafkaConfig("127.0.0.1:1", {"log_level": "0"}), TopicNames(), 8, timeout_s=0.1)
    with client, pytest.raises(InvalidData, match="many jobs cannot share one unique key: write @task"):
        client.enqueue_many("t", [Call()], JobOptions(unique=Unique(key="a")))


def test_a_recurring_job_has_no_unique_key() -> None:
    with pytest.raises(InvalidData, match=r"options\.unique has no effect"):
        definition_of("r", "t", "@daily", None, JobOptions(unique=Unique(key="a")), {})
    with pytest.raises(InvalidData, match="use overlap= instead"):
        definition_of("r", bill, "@daily", None, JobOptions(), {})


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(InvalidData, match="write unique=Unique"):
        JobOptions(unique="a")  # type: ignore[arg-type]
    with pytest.raises(InvalidData, match="NUL"):
        CreateTemplate("t", JobOptions(unique=Unique(key="\x00")), RULES)


def test_keys_have_short_forms() -> None:
    minute = timedelta(minutes=1)
    assert Unique.debounced("k", minute) == Unique(key="k", policy=UniquePolicy.DEBOUNCE, wait_s=60)
    assert Unique.once_in(minute, "k") == Unique(key="k", until=UniqueUntil.PERIOD, period_s=60)
    with pytest.raises(ValidationError, match="wait_s belongs to policy=debounce"):
        Unique(key="k", policy=UniquePolicy.DEBOUNCE)
