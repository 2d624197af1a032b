"""The generated documents in deploy/: current, valid, and true of what Joblog itself writes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from joblog.services.client.changes import change_record
from joblog.services.client.options import Call, JobOptions
from joblog.services.client.templates import CreateTemplate, Rules
from joblog.services.schemas import documents as schemas
from joblog.streams.contract import commands, deadletters, wire
from joblog.streams.contract.controls import BulkAction
from joblog.streams.contract.relations import LimitKind
from joblog.streams.contract.states import ContinueOn
from joblog.streams.contract.topics import ASSIGNMENT_PARTITIONS, TOPICS, TopicNames
from joblog.streams.elector.writer import Writer
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
from msgspec import Raw

from tests.support.messages import COMMAND, EVENT, Data, enveloped
from tests.support.scene import NEVER, STARTED_AT, Scene, Tick, create, id_of, run_failed, succeeded, worker

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCUMENTS = dict(schemas.documents())
ASYNCAPI = DOCUMENTS["asyncapi.json"]
SCHEMAS = {str(path).removeprefix("schemas/").removesuffix(".json"): one for path, one in DOCUMENTS.items()}
VALIDATORS = {
    kind: Draft202012Validator(one, format_checker=FormatChecker()) for kind, one in SCHEMAS.items() if kind[0] != "a"
}
NAMES = TopicNames()
A = id_of("a")


def check(message: Any) -> None:
    VALIDATORS[message["type"]].validate(message)


# --- the files ---


def test_the_documents_are_what_the_models_say() -> None:
    assert schemas.FILES.drifted(DEPLOY, schemas.generated()) == []


def test_generating_twice_gives_the_same() -> None:
    code = "from joblog.services.schemas import documents as d; print(d.generated())"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert runs[0]


def test_a_check_names_what_drifted_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schemas.main(check=False, directory=tmp_path)
    schemas.main(check=True, directory=tmp_path)
    (tmp_path / "schemas/job.create.json").write_text("{}")
    (tmp_path / "schemas/job.delete.json").unlink()
    (tmp_path / "schemas/job.explode.json").write_text("{}")
    (tmp_path / "asyncapi.json").unlink()
    with pytest.raises(schemas.typer.Exit) as caught:
        schemas.main(check=True, directory=tmp_path)
    assert caught.value.exit_code == 1
    assert capsys.readouterr().out.splitlines()[:-1] == [
        "asyncapi.json: missing",
        "schemas/job.create.json: differs from the models",
        "schemas/job.delete.json: missing",
        "schemas/job.explode.json: left over",
    ]
    schemas.main(check=False, directory=tmp_path)
    assert not (tmp_path / "schemas/job.explode.json").exists()


# --- the schemas ---


@pytest.mark.parametrize("kind", VALIDATORS)
def test_a_schema_is_a_schema(kind: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[kind])
    assert SCHEMAS[kind]["description"]


@given(COMMAND)
def test_a_valid_command_fits_its_schema(said: Data) -> None:
    check(enveloped(said))


@given(EVENT)
def test_a_valid_event_fits_its_schema(said: Data) -> None:
    check(enveloped(said))


@pytest.mark.parametrize(
    "change",
    [
        {"specversion": "2.0"},
        {"id": ""},
        {"type": "job.delete"},
        {"data": None},
        {"data": {"job_id": A}},
        {"data": {"task": "t", "que": "q"}},
        {"data": {"task": "t", "type": "job.create"}},
        {"data": {"task": "t", "queue": "Q"}},
        {"data": {"task": "t", "priority": 1001}},
        {"data": {"task": "t", "retry": {"attempts": -1}}},
    ],
)
def test_a_wrong_command_does_not_fit(change: Data) -> None:
    right = {"specversion": "1.0", "id": "e", "source": "/s", "type": "job.create", "data": {"task": "t"}}
    check(right)
    assert not VALIDATORS["job.create"].is_valid({**right, **change})


def test_an_event_of_a_newer_version_fits_the_schema_of_this_one() -> None:
    data = {"version": 1, "attempt": 0, "queue": "q", "task": "t", "newer": True}
    check({"specversion": "1.0", "id": "e", "source": "/s", "type": "job.enqueued", "data": data, "extension": 1})


# --- what Joblog writes ---


class Records:
    """A producer that keeps what it is given."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, Any]] = []

    def produce(self, topic: str, value: bytes, *_: Any, **__: Any) -> None:
        if not topic.endswith("state"):
            self.kept.append((topic.removeprefix(NAMES.prefix), json.loads(value)))


def life() -> Iterator[Scene]:
    """Turns that lead to every event, report and assignment that an elector writes."""
    scene = Scene()
    yield scene.when(create("a", run_at=STARTED_AT.replace(hour=9)), create("b", on="a"))
    yield scene.when(*(report for _, _, report in scene.out.reports))
    yield scene.when(create("c", parameters={"p": Raw(b"1")}, args=Raw(b"[1]")), worker(home=True))
    yield scene.when(create("c"), wire.SetParameter(job_id=A, name="p", value=[1]))
    yield scene.when(wire.DeleteJob(job_id=id_of("c")))
    yield scene.when(wire.RequeueJob(job_id=A))
    yield scene.when(succeeded("a", 4))
    yield scene.when(create("d", retry=NEVER))
    yield scene.when(run_failed("d", 2))
    yield scene.when(Tick(15_001))
    for _ in range(7):
        yield scene.when(worker(home=True))
        yield scene.when(Tick(10_000))
    mutex = wire.Limit(LimitKind.MUTEX, "m")
    yield scene.when(wire.SetLimit(kind=mutex.kind, key="m", capacity=1))
    yield scene.when(worker(slots=3, home=True), create("x", limits=(mutex,)), create("y", limits=(mutex,)))
    yield scene.when(wire.QuietWorker(worker="w", by="ann"), wire.ResumeWorker(worker="w", by="bob"))
    yield scene.when(wire.StopWorker(worker="w"), wire.QueueElsewhere(queue="q0", lane=0))
    yield scene.when(wire.WorkerStopping(worker="w"))
    yield scene.when(create("e"), wire.SetPriority(job_id=id_of("e"), priority=7))
    yield scene.when(wire.MoveJob(job_id=id_of("e"), queue="q0"), wire.DrainQueue(queue="q0", by="ann"))
    yield scene.when(wire.ResumeQueue(queue="q0"))
    bulk = {"operation": id_of("o")}
    yield scene.when(wire.StartBulk(**bulk, action=BulkAction.DELETE, fence=(5,), matched=2, rate=1.0))
    yield scene.when(wire.AdvanceBulk(**bulk, before=0, sent=1, cursor=A), wire.CancelBulk(**bulk))
    yield scene.when(worker(slots=9), create("h"), create("i"))
    yield scene.when(create("j", parents=wire.Parents((id_of("h"), id_of("i")))))
    yield scene.when(*(report for _, _, report in scene.out.reports))
    yield scene.when(succeeded("h", 2))
    yield scene.when(*(report for _, _, report in scene.out.reports))
    yield scene.when(wire.ContinuationAdded(job_id=id_of("k"), child=id_of("j"), on=ContinueOn.ENDED))
    yield scene.when(Tick(1_000))
    yield from life_of_batches(scene)


def life_of_batches(scene: Scene) -> Iterator[Scene]:
    """An empty one that ends, is added to and cancelled; one that waits for a job, and one of which a job fails."""
    one, two, three = id_of("1"), id_of("2"), id_of("3")
    yield scene.when(wire.CreateBatch(batch_id=one, description="import"), Tick(0))
    yield scene.when(wire.AttachToBatch(batch_id=one, addition=id_of("4"), jobs=1), Tick(0))
    yield scene.when(wire.CancelBatch(batch_id=one), Tick(0))
    yield scene.when(wire.CreateBatch(batch_id=two, parent=wire.Parent(id_of("h"))))
    yield scene.when(*(report for _, _, report in scene.out.reports))
    yield scene.when(*(report for _, _, report in scene.out.reports))
    mark = wire.MarkBatch(batch_id=three, mark_id=id_of("5"))
    job = create("z", batch=three, retry=NEVER)
    yield scene.when(wire.CreateBatch(batch_id=three, lanes=(0,), jobs=1), job, mark)
    yield scene.when(*(report for _, _, report in scene.out.reports), run_failed("z", 2))
    yield scene.when(*(report for _, _, report in scene.out.reports), Tick(0))


def elected() -> list[tuple[str, Any]]:
    records = Records()
    tiers = {tier: NAMES.delay(tier) for tier in ("now", "1m", "10m", "1h", "6h", "1d", "7d")}
    writer = Writer(records, 1, NAMES, tiers, {})  # type: ignore[arg-type]
    for scene in life():
        writer.output(0, scene.out, scene.now_ms)
    return records.kept


def test_events_that_electors_write_fit_their_schemas() -> None:
    events = [value for topic, value in elected() if topic == "events"]
    for event in events:
        check(event)
    unwritten = {"job.progressed"}
    assert {event["type"] for event in events} | unwritten == ASYNCAPI["channels"]["events"]["messages"].keys()


def test_private_messages_that_electors_write_fit_the_asyncapi_document() -> None:
    seen = set()
    for topic, value in elected():
        if topic != "events":
            name = value.get("type", f"timer.{topic}")
            payload_validator(name).validate(value)
            seen.add(name)
    assert {"job.run", "job.cancel", "continuation.added", "parent.ended", "timer.delay.1h"} <= seen


def test_commands_that_clients_write_fit_their_schemas() -> None:
    rules = Rules(4, {}, "/joblog/clients/test", 1000)
    options = JobOptions(queue="q", priority=3, idempotency_key="k", timeout=60, parameters={"p": [1]})
    check(json.loads(CreateTemplate("t", options, rules).fill(Call((1,), {"a": None})).value))
    at = datetime(2027, 1, 15, tzinfo=UTC)
    changes = {
        commands.DeleteJob: {"reason": "r"},
        commands.RequeueJob: {"queue": "q"},
        commands.RescheduleJob: {"run_at": at},
        commands.SetParameter: {"name": "p", "value": 1},
    }
    for kind, fields in changes.items():
        check(json.loads(change_record(kind, A, fields, rules).value))


# --- the AsyncAPI document ---


def payload_validator(name: str) -> Draft7Validator:
    """AsyncAPI's own schemas are a superset of draft 7."""
    payload = ASYNCAPI["components"]["messages"][name]["payload"]
    return Draft7Validator({**payload, "components": ASYNCAPI["components"]})


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (one for name, one in value.items() if name == "$ref" and isinstance(one, str))
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        yield from references(one)


def test_every_reference_leads_somewhere() -> None:
    for reference in set(references(ASYNCAPI)):
        place = ASYNCAPI
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place


def test_every_topic_is_a_channel_with_its_settings() -> None:
    channels = ASYNCAPI["channels"]
    assert channels.keys() == {topic.name for topic in TOPICS}
    for topic in TOPICS:
        kafka = channels[topic.name]["bindings"]["kafka"]
        assert kafka["topic"] == NAMES.of(topic)
        settings = {
            name: one[0] if isinstance(one, list) else str(one) for name, one in kafka["topicConfiguration"].items()
        }
        assert settings == topic.configuration()
        assert channels[topic.name]["messages"]
    assert channels["assignments"]["bindings"]["kafka"]["partitions"] == ASSIGNMENT_PARTITIONS


def test_every_message_has_a_key_and_is_sent_and_received() -> None:
    messages = ASYNCAPI["components"]["messages"]
    assert all(one["bindings"]["kafka"]["key"]["type"] == "string" for one in messages.values())
    for action in ("send", "receive"):
        operations = [one for one in ASYNCAPI["operations"].values() if one["action"] == action]
        channels = {one["channel"]["$ref"].removeprefix("#/channels/") for one in operations}
        assert channels == ASYNCAPI["channels"].keys()
        handled = {ref["$ref"].rpartition("/")[2] for one in operations for ref in one["messages"]}
        assert handled == messages.keys()


def test_operations_use_messages_of_their_own_channel() -> None:
    for operation in ASYNCAPI["operations"].values():
        channel = operation["channel"]["$ref"] + "/messages/"
        assert all(ref["$ref"].startswith(channel) for ref in operation["messages"])


@pytest.mark.parametrize("name", ASYNCAPI["components"]["messages"])
def test_a_payload_is_a_schema(name: str) -> None:
    validator = payload_validator(name)
    Draft7Validator.check_schema(validator.schema)


def test_the_headers_of_dead_letters_are_those_that_are_written() -> None:
    headers = ASYNCAPI["components"]["messages"]["deadletter"]["headers"]
    written = {name: str(value) for name, value in deadletters.headers("c", "r", "elector", "t", 0, 1)}
    Draft7Validator(headers).validate(written)
    assert written.keys() == headers["properties"].keys()
