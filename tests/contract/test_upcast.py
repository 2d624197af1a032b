"""Whatever was ever written stays readable.

The files in golden/ are messages as they were written, and are never changed: a message that gets another shape
gets another file. One that the current models do not fit any more needs a step in upcast.py.
"""

import json
from base64 import b64decode
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from joblog.projections.projector.decode import JobFact, read_event
from joblog.streams.contract import codec, commands, events, upcast, wire
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.elector.lane_records import LaneRecord, read_state, write_state
from joblog.streams.lane.job import Job
from msgspec import DecodeError, msgpack, structs
from msgspec import json as fast_json
from pydantic import TypeAdapter

from tests.support.messages import COMMANDS, EVENTS, REPORTS, enveloped, meaning, tag_of, written

GOLDEN = {path.stem: path.read_bytes() for path in sorted((Path(__file__).parent / "golden").glob("*.json"))}
PRIVATE = {
    "job.run": wire.AnyAssignment,
    "job.cancel": wire.AnyAssignment,
    "worker.order": wire.AnyAssignment,
    "worker.serve": wire.AnyAssignment,
    "timer": wire.Timer,
}
NOW = 1_800_000_000_000
ID = "01a3185c-5000-8002-8000-000000000061"

_command = TypeAdapter[commands.Command](commands.Command)
_event = TypeAdapter[events.Event](events.Event)


def names_of(messages: tuple[type[Any], ...]) -> list[str]:
    """The golden files of these messages: `job.create`, and `job.create.2` if it ever gets another shape."""
    tags = {tag_of(one) for one in messages}
    return [name for name in GOLDEN if name.rstrip("0123456789").rstrip(".") in tags]


def in_time(value: Any) -> Any:
    """JSON with its instants read, for they can be written in many ways."""
    match value:
        case dict():
            return {name: in_time(one) for name, one in value.items()}
        case list():
            return [in_time(one) for one in value]
        case str() if value.endswith("Z") and value[4:5] == "-":
            return datetime.fromisoformat(value)
        case _:
            return value


def test_every_message_has_a_golden_file() -> None:
    tags = {tag_of(model) for model in (*COMMANDS, *EVENTS, *REPORTS)}
    assert tags | PRIVATE.keys() | {"state"} <= GOLDEN.keys()
    assert GOLDEN.keys() - PRIVATE.keys() - {"state"} == {*names_of((*COMMANDS, *EVENTS, *REPORTS))}


@pytest.mark.parametrize("name", names_of(COMMANDS))
def test_a_golden_command_is_read_either_way_with_all_that_it_says(name: str) -> None:
    said = json.loads(GOLDEN[name])
    fast, careful = codec.read_command(GOLDEN[name], None), codec._read_command_carefully(GOLDEN[name], None)
    model = _command.validate_python({**said["data"], "type": said["type"]})
    assert in_time(model.model_dump(mode="json", exclude={"type"}, exclude_unset=True)) == in_time(said["data"])
    assert meaning(fast) == meaning(careful)
    assert meaning(fast.command) == meaning(model)
    assert (fast.id, fast.source, fast.traceparent) == (said["id"], said["source"], said["traceparent"])


@pytest.mark.parametrize("name", names_of(REPORTS))
def test_a_golden_report_is_read_with_all_that_it_says(name: str) -> None:
    found, said = meaning(codec.read_report(GOLDEN[name])), in_time(json.loads(GOLDEN[name]))
    assert {field: found[field] for field in said.keys() - {"type"}} == {
        field: one for field, one in said.items() if field != "type"
    }


@pytest.mark.parametrize("name", names_of(EVENTS))
def test_a_golden_event_is_read_with_all_that_it_says(name: str) -> None:
    said = json.loads(GOLDEN[name])
    model = _event.validate_python({**said["data"], "type": said["type"]}, extra="forbid")
    assert in_time(model.model_dump(mode="json", exclude={"type"}, exclude_unset=True)) == in_time(said["data"])
    fact = read_event(GOLDEN[name], None, NOW)
    assert datetime.fromisoformat(fact.at) == datetime.fromisoformat(said["time"])
    if isinstance(fact, JobFact):
        assert (fact.job, fact.type, fact.event.version) == (said["subject"], said["type"], said["data"]["version"])


@pytest.mark.parametrize("name", PRIVATE)
def test_a_golden_assignment_or_timer_is_read(name: str) -> None:
    read = fast_json.decode(GOLDEN[name], type=PRIVATE[name])
    assert json.loads(fast_json.encode(read)) == json.loads(GOLDEN[name])


# --- the state of lanes ---


def test_golden_state_records_are_read_as_they_were_meant() -> None:
    records = {key: b64decode(value) for key, value in json.loads(GOLDEN["state"]).items()}
    found = {key: read_state(key, value) for key, value in records.items()}
    parent = "01a3185c-5000-8001-8000-000000000062"
    job = found[ID]
    assert isinstance(job, Job)
    assert (job.id, job.state, job.version, job.attempt, job.priority) == (ID, State.PROCESSING, 4, 2, 7)
    assert (job.created_ms, job.ready_ms, job.due_ms) == (NOW, NOW + 100, NOW + 90)
    assert (job.worker, job.lease, job.retries, job.lost) == ("w@host:7:ab12", 4, 1, 2)
    assert (job.parent, job.on, job.continuations) == (parent, ContinueOn.ENDED, ((parent, ContinueOn.SUCCEEDED),))
    assert json.loads(job.spec)["idempotency_key"] == "order-7"
    assert found["lane"] == LaneRecord("joblog.elector-1", 12, 34)
    assert found[f"pending:{parent}"] == ((ID, "succeeded", NOW + 120, ""),)
    assert found["worker:w@host:7:ab12"] == codec.read_report(GOLDEN["worker.announced"])


def test_the_record_of_a_job_may_end_after_the_fields_it_always_had() -> None:
    known = read_state(ID, b64decode(json.loads(GOLDEN["state"])[ID]))
    whole = msgpack.decode(write_state(known) or b"")
    job = read_state(ID, msgpack.encode(whole[:9]))
    assert isinstance(job, Job)
    assert (job.version, job.retries, job.parameters, job.continuations) == (4, 0, b"{}", ())


def test_the_record_of_a_job_may_have_fields_of_a_newer_version() -> None:
    known = read_state(ID, b64decode(json.loads(GOLDEN["state"])[ID]))
    whole = msgpack.decode(write_state(known) or b"")
    assert read_state(ID, msgpack.encode([*whole, "newer"])) == read_state(ID, msgpack.encode(whole))


def test_fields_of_a_record_keep_their_places() -> None:
    places = ["id", "queue", "task", "state", "version", "attempt", "priority", "created_ms", "spec", "ready_ms"]
    places += ["due_ms", "retries", "worker", "lease", "parent", "on", "parameters", "continuations", "traceparent"]
    assert [field.name for field in structs.fields(Job)][:21] == [*places, "lost", "extras"]


def test_a_tombstone_has_no_value() -> None:
    assert write_state(None) is None


# --- retired shapes ---


def renamed(**names: str) -> upcast.Upcast:
    """A step that gives fields their new names."""

    def step(kind: str, data: upcast.Data) -> tuple[str, upcast.Data]:
        return kind, {names.get(name, name): one for name, one in data.items()}

    return step


def test_what_is_current_comes_back_as_it_is() -> None:
    data = {"task": "t"}
    assert upcast.upcast_command("job.create", data) == ("job.create", data)
    assert upcast.upcast_event("job.enqueued", data) == ("job.enqueued", data)


def test_steps_are_taken_oldest_first() -> None:
    steps = (renamed(a="b"), renamed(b="c"), lambda _, data: ("new", data))
    assert upcast.upcast({"old": steps}, "old", {"a": 1}) == ("new", {"c": 1})
    assert upcast.upcast({"old": steps}, "other", {"a": 1}) == ("other", {"a": 1})


def test_a_command_of_a_retired_type_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    old = enveloped({"type": "job.push", "function": "t"})
    with pytest.raises(codec.UnknownType):
        codec.read_command(written(old), None)
    steps = (renamed(function="task"), lambda _, data: ("job.create", data))
    monkeypatch.setattr(upcast, "COMMANDS", {"job.push": steps})
    assert codec.read_command(written(old), None).command == wire.CreateJob("t")


def test_a_command_of_a_retired_shape_is_read_beside_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upcast, "COMMANDS", {"job.create": (renamed(function="task"),)})
    for field in ("function", "task"):
        received = codec.read_command(written(enveloped({"type": "job.create", field: "t"})), None)
        assert received.command == wire.CreateJob("t")
    escaped = codec.read_command(GOLDEN["job.create"].replace("é".encode(), b"\\u00e9"), None)
    assert meaning(escaped) == meaning(codec.read_command(GOLDEN["job.create"], None))


def test_an_event_of_a_retired_type_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.loads(GOLDEN["job.deleted"])
    old = written({**said, "type": "job.dropped", "data": {**said["data"], "version": None, "number": 5}})
    monkeypatch.setattr(
        upcast,
        "EVENTS",
        {"job.dropped": (lambda _, data: ("job.deleted", {**data, "version": data["number"]}),)},
    )
    fact = read_event(old, None, NOW)
    assert isinstance(fact, JobFact)
    assert (fact.type, fact.event.version, fact.event.state) == ("job.deleted", 5, State.DELETED)


def test_a_struct_does_not_take_an_event_without_its_version() -> None:
    with pytest.raises(DecodeError):
        fast_json.decode(b'{"state":"Deleted","attempt":1,"queue":"q","task":"t"}', type=wire.JobEvent)
