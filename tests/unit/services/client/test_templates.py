import re
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.services.client.changes import change_record
from joblog.services.client.options import Call, JobOptions
from joblog.services.client.templates import CommandRecord, CreateTemplate, Rules
from joblog.streams.contract import commands
from joblog.streams.contract.codec import VALUE_BYTES_MAX, read_command
from joblog.streams.contract.ids import hashed_job_id, lane_of_job, lane_of_queue, lane_of_shard, new_job_id
from joblog.streams.contract.retry import Curve, RetryPolicy
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.wire import CreateJob, Parent
from joblog.streams.errors import InvalidData
from msgspec import json

RULES = Rules(lanes=8, shards={"hot": 3}, source="/joblog/clients/test", args_bytes_max=1_000)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


keys = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), min_size=1, max_size=50)


def make(task: str = "a.b", call: Call | None = None, rules: Rules = RULES, **options: Any) -> CommandRecord:
    return CreateTemplate(task, JobOptions(**options), rules).fill(call or Call())


def create_in(record: CommandRecord) -> CreateJob:
    command = read_command(record.value, None).command
    assert isinstance(command, CreateJob)
    return command


def test_a_command_is_a_cloudevent_with_all_that_was_asked() -> None:
    at = datetime(2027, 1, 31, 15, tzinfo=timezone(timedelta(hours=2)))
    parent = new_job_id(5, 1)
    record = make(
        "images.shrink",
        Call(["a.png"], {"width": 640}),
        queue="hot",
        priority=7,
        retry=RetryPolicy(attempts=3, curve=Curve.FIXED, delays_s=(1, 5)),
        timeout=timedelta(minutes=2),
        parameters={"tenant": {"id": 3}},
        run_at=at,
        parent=parent,
        on=ContinueOn.ENDED,
        traceparent=TRACE,
    )
    event = json.decode(record.value)
    assert {name: event[name] for name in event if name not in {"data", "time"}} == {
        "specversion": "1.0",
        "id": record.job_id,
        "source": "/joblog/clients/test",
        "type": "job.create",
        "subject": record.job_id,
        "datacontenttype": "application/json",
        "traceparent": TRACE,
    }
    assert datetime.now(UTC) - datetime.fromisoformat(event["time"]) < timedelta(minutes=1)
    received = read_command(record.value, None)
    create = create_in(record)
    assert received.traceparent == TRACE
    assert (create.task, bytes(create.args), bytes(create.kwargs)) == (
        "images.shrink",
        b'["a.png"]',
        b'{"width":640}',
    )
    assert (create.queue, create.priority, create.timeout_s, create.run_at) == ("hot", 7, 120, at)
    assert create.parent == Parent(parent, ContinueOn.ENDED)
    assert create.retry is not None
    assert (create.retry.attempts, create.retry.delays_s) == (3, (1, 5))
    assert bytes(create.parameters["tenant"]) == b'{"id":3}'


@given(
    st.text("abcXYZ019_.:-", min_size=1, max_size=20),
    st.lists(st.integers() | st.text("aé€😀", max_size=5), max_size=3),
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.booleans(), max_size=3),
    st.integers(-1000, 1000),
    st.none()
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), min_size=1, max_size=50),
)
def test_every_command_fits_the_contract(
    task: str, args: list[Any], kwargs: dict[str, Any], priority: int, key: str | None
) -> None:
    record = make(task, Call(args, kwargs, idempotency_key=key), priority=priority)
    model = commands.CreateJob.model_validate_json(json.encode(json.decode(record.value)["data"]))
    assert (model.task, list(model.args), model.kwargs) == (task, args, kwargs)
    assert (model.priority, model.idempotency_key, model.job_id) == (priority, key, record.job_id)


def test_a_job_id_names_the_lane_of_its_queue() -> None:
    for queue in ("default", "a", "images"):
        assert lane_of_job(make(queue=queue).job_id) == lane_of_queue(queue, 8)


def test_jobs_of_a_sharded_queue_spread_over_its_lanes() -> None:
    lanes = {lane_of_job(make(queue="hot").job_id) for _ in range(200)}
    assert lanes == {lane_of_shard("hot", 8, shard) for shard in range(3)}


def test_a_key_always_gives_the_same_id_in_one_of_the_shards() -> None:
    ids = [make(queue="hot", idempotency_key=f"key {n}").job_id for n in range(50)]
    assert ids == [make(queue="hot", idempotency_key=f"key {n}").job_id for n in range(50)]
    assert {lane_of_job(one) for one in ids} == {lane_of_shard("hot", 8, shard) for shard in range(3)}


def test_after_a_queue_shrank_new_jobs_go_to_the_lanes_that_are_left_and_former_ids_are_accepted() -> None:
    shrunk = RULES._replace(shards={"hot": 2}, shards_before={"hot": 3})
    left = {lane_of_shard("hot", 8, shard) for shard in range(2)}
    keyed = [make(rules=shrunk, queue="hot", idempotency_key=f"key {n}").job_id for n in range(50)]
    assert {lane_of_job(make(rules=shrunk, queue="hot").job_id) for _ in range(100)} == left
    assert {lane_of_job(one) for one in keyed} == left
    former = [make(queue="hot", idempotency_key=f"key {n}").job_id for n in range(50)]
    stay = [(one, now) for one, now in zip(former, keyed, strict=True) if lane_of_job(one) in left]
    assert len(stay) > 20
    assert all(one == now for one, now in stay)
    given_up = new_job_id(lane_of_shard("hot", 8, 2), 1)
    assert make(rules=shrunk, queue="hot", job_id=given_up).job_id == given_up


def test_after_a_queue_grew_keys_give_the_same_ids_while_the_former_number_is_named() -> None:
    grown = RULES._replace(shards={"hot": 6}, shards_before={"hot": 3})
    former = [make(queue="hot", idempotency_key=f"key {n}").job_id for n in range(50)]
    assert [make(rules=grown, queue="hot", idempotency_key=f"key {n}").job_id for n in range(50)] == former
    lanes = {lane_of_job(make(rules=grown, queue="hot").job_id) for _ in range(300)}
    assert lanes == {lane_of_shard("hot", 8, shard) for shard in range(6)}


def test_a_key_gives_the_id_that_an_elector_derives() -> None:
    record = make(queue="images", idempotency_key="order 17")
    assert record.job_id == hashed_job_id(lane_of_queue("images", 8), "images", "order 17")


def test_ids_given_by_the_caller_are_kept() -> None:
    job_id = new_job_id(lane_of_queue("images", 8), 1)
    assert make(queue="images", job_id=job_id).job_id == job_id
    assert make(call=Call(job_id=new_job_id(lane_of_queue("default", 8), 2))).job_id != job_id


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"queue": ""}, "queue"),
        ({"queue": "No Capitals"}, "queue"),
        ({"queue": "trailing\n"}, "queue"),
        ({"priority": 1001}, "priority"),
        ({"timeout": 0}, "timeout_s"),
        ({"timeout": float("nan")}, "timeout_s"),
        ({"run_at": datetime(2027, 1, 1)}, "zone"),  # noqa: DTZ001 - the mistake that is tested
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"idempotency_key": "x" * 201}, "idempotency_key"),
        ({"idempotency_key": "a\x00b"}, "NUL"),
        ({"parameters": {"": 1}}, "parameters"),
        ({"parameters": {"a": object()}}, "parameter a"),
        ({"parent": "nonsense"}, "parent"),
        ({"parent": new_job_id(8, 1, 0)}, "lane 8"),
        ({"job_id": "nonsense"}, "job_id"),
        ({"job_id": new_job_id(9, 1, 0)}, "lane 9"),
        (
            {"job_id": new_job_id((lane_of_queue("default", 8) + 1) % 8, 1, 0), "idempotency_key": "k"},
            "has no idempotency keys",
        ),
    ],
)
def test_options_beyond_the_contract_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidData, match=complaint):
        make(**options)


@pytest.mark.parametrize("task", ["", "a b", "x" * 201, "ä", "a\n"])
def test_a_task_must_have_a_proper_name(task: str) -> None:
    with pytest.raises(InvalidData, match="task"):
        make(task)


@pytest.mark.parametrize("key", ["", "x" * 201, "\x00", "\ud800"])
def test_a_call_brings_a_proper_key(key: str) -> None:
    with pytest.raises(InvalidData, match="key"):
        make(call=Call(idempotency_key=key))


@pytest.mark.parametrize("args", ["a.png", b"ab", bytearray(b"ab"), memoryview(b"ab"), {"width": 3}])
def test_a_lone_argument_is_not_taken_apart(args: Any) -> None:
    with pytest.raises(InvalidData, match=rf"args is a {type(args).__name__}.*list or tuple"):
        make(call=Call(args))


def test_any_other_sequence_is_a_list_of_arguments() -> None:
    assert json.decode(bytes(create_in(make(call=Call(range(3)))).args)) == [0, 1, 2]


def test_large_arguments_are_refused_with_the_name_of_the_limit() -> None:
    fits = "x" * (1_000 - len('[""]{}'))
    assert json.decode(bytes(create_in(make(call=Call([fits]))).args)) == [fits]
    with pytest.raises(InvalidData, match=r"client\.args_bytes_max"):
        make(call=Call([fits + "x"]))


def test_a_command_that_no_elector_would_read_is_refused() -> None:
    with pytest.raises(InvalidData, match=str(VALUE_BYTES_MAX)):
        make(parameters={"large": "x" * VALUE_BYTES_MAX})


JOB = new_job_id(2, 1, 0)
SNAPSHOT = commands.Snapshot(
    version=3,
    state=State.SUCCEEDED,
    attempt=1,
    task="a.b",
    queue="default",
    created_at=datetime(2026, 1, 2, tzinfo=UTC),
    spec={"args": [1], "parent": None},
)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (commands.DeleteJob, {"snapshot": SNAPSHOT}),
        (commands.DeleteJob, {"reason": "no longer wanted", "expected_state": State.ENQUEUED, "expected_version": 4}),
        (commands.RequeueJob, {"queue": "other"}),
        (commands.RequeueJob, {"snapshot": SNAPSHOT}),
        (commands.RescheduleJob, {"run_at": datetime(2027, 1, 2, tzinfo=UTC)}),
        (commands.SetParameter, {"name": "progress", "value": {"done": [1, None]}}),
        (commands.SetParameter, {"name": "progress", "value": None}),
    ],
)
def test_changes_come_back_as_they_were_meant(kind: type[commands.Change], fields: dict[str, Any]) -> None:
    record = change_record(kind, JOB, fields, RULES)
    event = json.decode(record.value)
    assert (record.job_id, event["subject"], event["type"]) == (JOB, JOB, kind.model_fields["type"].default)
    read_command(record.value, None)
    expected = kind.model_validate({**fields, "job_id": JOB})
    assert kind.model_validate_json(json.encode(event["data"])) == expected


def test_two_changes_have_different_ids() -> None:
    records = [change_record(commands.DeleteJob, JOB, {}, RULES) for _ in range(2)]
    assert len({json.decode(record.value)["id"] for record in records}) == 2


@pytest.mark.parametrize(
    ("kind", "job_id", "fields", "complaint"),
    [
        (commands.DeleteJob, "nonsense", {}, "not a job id"),
        (commands.DeleteJob, new_job_id(8, 1, 0), {}, "lane 8"),
        (commands.DeleteJob, JOB, {"expected_version": 0}, "expected_version"),
        (commands.DeleteJob, JOB, {"reason": "x\x00"}, "NUL"),
        (commands.RequeueJob, JOB, {"queue": "No"}, "queue"),
        (commands.RequeueJob, JOB, {"snapshot": {"version": 1}}, "snapshot"),
        (commands.RescheduleJob, JOB, {}, "run_at"),
        (commands.SetParameter, JOB, {"name": "", "value": 1}, "name"),
        (commands.SetParameter, JOB, {"name": "n", "value": float("nan")}, "finite"),
        (commands.SetParameter, JOB, {"name": "n", "value": "x" * VALUE_BYTES_MAX}, "bytes"),
    ],
)
def test_changes_beyond_the_contract_are_refused(
    kind: type[commands.Change], job_id: str, fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidData, match=complaint):
        change_record(kind, job_id, fields, RULES)


def test_a_template_serves_many_calls() -> None:
    fill = CreateTemplate("a.b", replace(JobOptions(), queue="images"), RULES).fill
    records = [fill(Call([n])) for n in range(100)]
    assert len({record.job_id for record in records}) == 100
    assert [json.decode(bytes(create_in(record).args)) for record in records] == [[n] for n in range(100)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"queue": "hot", "priority": -3, "traceparent": TRACE, "timeout": 3, "parameters": {'"mark"': ["\\", "é€"]}},
        {"retry": RetryPolicy.fixed(1, 2), "parent": new_job_id(5, 1), "on": ContinueOn.ENDED},
        {"run_at": datetime(2027, 1, 31, tzinfo=UTC), "idempotency_key": "k"},
    ],
)
def test_many_commands_are_what_each_would_be_alone(options: dict[str, Any]) -> None:
    template = CreateTemplate("a.b", JobOptions(**options), RULES)
    calls = [Call(["a.png", n, None], {"é": '"'} if n % 2 else {}) for n in range(10)]
    calls += [Call([0], {}, "key of its own"), Call([0], {}, None, new_job_id(lane_of_queue("default", 8), 1))]
    if "queue" in options:
        calls.pop()
    records = template.fill_all(calls)
    for record, call in zip(records, calls, strict=True):
        has_id = call.idempotency_key or call.job_id or "idempotency_key" in options
        alone = template.fill(call if has_id else call._replace(job_id=record.job_id))
        assert alone.job_id == record.job_id
        assert without_time(alone) == without_time(record)


def without_time(record: CommandRecord) -> bytes:
    return re.sub(rb'"time":"[^"]+"', b"", record.value, count=1)


def test_ids_of_many_jobs_differ_and_spread_over_the_shards() -> None:
    records = CreateTemplate("a.b", JobOptions(queue="hot"), RULES).fill_all([Call()] * 2_000)
    assert len({record.job_id for record in records}) == 2_000
    assert len({record.job_id[-12:] for record in records}) == 2_000
    assert {lane_of_job(record.job_id) for record in records} == {lane_of_shard("hot", 8, n) for n in range(3)}


def test_one_call_of_many_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(InvalidData, match="args_bytes_max"):
        CreateTemplate("a.b", JobOptions(), RULES).fill_all([Call(), Call(["x" * 1_001])])


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_an_elector_reads_what_a_client_may_send_however_deep(brackets: str) -> None:
    sent = []
    for depth in range(96, 104):
        opened = brackets[0] if brackets == "[]" else '{"a":'
        value = json.decode(opened * depth + "1" + brackets[1] * depth)
        for call, parameters in (
            (Call((value,), {}), {}),
            (Call((), {"a": value}), {}),
            (Call((), {}), {"a": value}),
        ):
            with suppress(InvalidData):
                record = CreateTemplate("t", JobOptions(parameters=parameters), RULES).fill(call)
                sent.append(record)
    assert 6 < len(sent) < 24
    for record in sent:
        read_command(record.value, None)
