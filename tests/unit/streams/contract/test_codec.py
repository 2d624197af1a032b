import json
from typing import Any

import pytest
from joblog.streams.contract import wire
from joblog.streams.contract.cloudevents import DIGITS_MAX
from joblog.streams.contract.codec import VALUE_BYTES_MAX, encode, read_command, read_report
from joblog.streams.contract.retry import Curve, Retry
from joblog.streams.contract.states import ContinueOn, State
from joblog.streams.contract.timestamps import format_time, time_ms
from joblog.streams.contract.wire import Received
from joblog.streams.errors import ContractError, InvalidData, UndecodableRecord

ID = "01a31bcf-c400-8000-8000-00000000002a"
PARENT = "01a31bcf-c400-8001-8000-00000000002b"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def event(kind: str = "job.create", data: Any = None, **attributes: Any) -> bytes:
    said = {"task": "t"} if data is None else data
    whole = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": kind, "data": said, **attributes}
    return json.dumps(whole).encode()


def raw_event(data: str, kind: str = "job.create") -> bytes:
    """An event whose data is JSON text of the test's own."""
    return f'{{"specversion":"1.0","id":"e-1","source":"/shop","type":"{kind}","data":{data}}}'.encode()


def create(**fields: Any) -> wire.CreateJob:
    command = read_command(event(data={"task": "t", **fields}), None).command
    assert isinstance(command, wire.CreateJob)
    return command


# --- commands as they should be ---


def test_the_smallest_command_creates_a_job_of_the_default_queue() -> None:
    received = read_command(event(traceparent=TRACE), None)
    assert received == Received("e-1", "/shop", wire.CreateJob("t"), TRACE)
    command = received.command
    assert isinstance(command, wire.CreateJob)
    assert (command.queue, bytes(command.args), bytes(command.kwargs)) == ("default", b"[]", b"{}")


def test_a_command_with_everything_is_read_field_by_field() -> None:
    command = create(
        args=[1, {"a": None}],
        kwargs={"b": [2]},
        queue="q",
        job_id=ID,
        idempotency_key="k",
        priority=-5,
        run_at="2027-01-15T10:00:00+02:00",
        parent={"job_id": PARENT, "on": "ended"},
        retry={"attempts": 3, "curve": "fixed", "delays_s": [1, 2.5]},
        timeout_s=60,
        parameters={"p": [1]},
    )
    assert (bytes(command.args), bytes(command.kwargs)) == (b'[1, {"a": null}]', b'{"b": [2]}')
    assert (command.queue, command.job_id, command.idempotency_key, command.priority) == ("q", ID, "k", -5)
    assert command.run_at is not None
    assert format_time(time_ms(command.run_at)) == "2027-01-15T08:00:00.000Z"
    assert command.parent == wire.Parent(PARENT, ContinueOn.ENDED)
    assert command.retry == Retry(attempts=3, curve=Curve.FIXED, delays_s=(1.0, 2.5))
    assert command.timeout_s == 60.0
    assert {name: bytes(one) for name, one in command.parameters.items()} == {"p": b"[1]"}


@pytest.mark.parametrize(
    ("kind", "data", "command"),
    [
        ("job.delete", {"reason": "why"}, wire.DeleteJob(job_id=ID, reason="why")),
        ("job.delete", {"expected_version": 3}, wire.DeleteJob(job_id=ID, expected_version=3)),
        ("job.requeue", {"queue": "q"}, wire.RequeueJob(job_id=ID, queue="q")),
        ("job.requeue", {"expected_state": "Failed"}, wire.RequeueJob(job_id=ID, expected_state=State.FAILED)),
        ("job.set_parameter", {"name": "p", "value": None}, wire.SetParameter(job_id=ID, name="p", value=None)),
    ],
)
def test_changes_of_jobs_are_read(kind: str, data: dict[str, Any], command: wire.Command) -> None:
    assert read_command(event(kind, {"job_id": ID, **data}), None).command == command


def test_a_snapshot_is_read_with_what_the_job_was_created_with() -> None:
    spec = {"args": [1], "priority": 7, "retry": {"attempts": 1}, "from_a_newer_version": True}
    snapshot = {"version": 3, "state": "Succeeded", "attempt": 1, "task": "t", "queue": "q", "spec": spec}
    data = {"job_id": ID, "snapshot": {**snapshot, "created_at": "2027-01-15T08:00:00Z", "parameters": {"p": 1}}}
    command = read_command(event("job.requeue", data), None).command
    assert isinstance(command, wire.RequeueJob)
    assert command.snapshot is not None
    assert (command.snapshot.version, command.snapshot.state) == (3, State.SUCCEEDED)
    assert (bytes(command.snapshot.spec.args), command.snapshot.spec.priority) == (b"[1]", 7)
    assert command.snapshot.spec.retry == Retry(attempts=1)
    assert bytes(command.snapshot.parameters["p"]) == b"1"


def test_spellings_that_only_the_careful_way_knows_mean_the_same() -> None:
    assert create(priority="5") == create(priority=5)
    assert create(timeout_s="1.5") == create(timeout_s=1.5)
    assert create(run_at=1_800_000_000) == create(run_at="2027-01-15T08:00:00Z")
    assert create(idempotency_key="\u00e9\U0001f600") == create(idempotency_key="é😀")


def test_large_integers_keep_every_digit() -> None:
    assert bytes(create(args=[10**30]).args) == b"[%d]" % 10**30
    assert json.loads(bytes(create(args=[10**30, "\u00e9"]).args)) == [10**30, "é"]


def test_a_long_value_of_many_parts_is_read_the_careful_way() -> None:
    command = create(args=[[]] * 1000)
    assert json.loads(bytes(command.args)) == [[]] * 1000


def test_what_is_said_twice_is_said_last() -> None:
    assert read_command(raw_event('{"task":"a","task":"b"}'), None).command == wire.CreateJob("b")
    assert read_command(raw_event('{"task":"\\u0061","task":"b"}'), None).command == wire.CreateJob("b")


def test_an_attribute_that_is_null_is_not_there() -> None:
    attributes = {"subject": None, "time": None, "traceparent": None, "data_base64": None, "extension": None}
    assert read_command(event(**attributes), None) == read_command(event(), None)
    assert read_command(event(**attributes), [("content-type", "application/cloudevents+json")]) == read_command(
        event(), None
    )


def test_the_data_may_be_base64() -> None:
    whole = json.loads(event(data_base64="eyJ0YXNrIjoidSJ9"))
    del whole["data"]
    assert read_command(json.dumps(whole).encode(), None).command == wire.CreateJob("u")


# --- binary mode ---

BINARY = [("ce_specversion", b"1.0"), ("ce_id", b"e-1"), ("ce_source", b"/shop"), ("ce_type", b"job.create")]


def test_an_event_in_binary_mode_is_read_from_its_headers() -> None:
    headers = [*BINARY, ("ce_traceparent", TRACE.encode()), ("content-type", b"application/json; charset=utf-8")]
    assert read_command(b'{"task":"t"}', headers) == read_command(event(traceparent=TRACE), None)


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON", "application/vnd.shop+json", None])
def test_binary_data_may_be_of_any_type_that_is_json(kind: str | None) -> None:
    assert read_command(b'{"task":"t"}', [*BINARY, ("content-type", kind)]).command == wire.CreateJob("t")


def test_headers_are_known_whatever_their_case_and_in_either_form() -> None:
    expected = read_command(event(), None)
    assert read_command(b'{"task":"t"}', [(name.upper(), value) for name, value in BINARY]) == expected
    assert read_command(b'{"task":"t"}', {name: value.decode() for name, value in BINARY}) == expected


def test_headers_that_are_no_events_leave_the_structured_mode() -> None:
    assert read_command(event(), [("trace", b"\xff" * 0), ("empty", None)]) == read_command(event(), None)


# --- reports ---


RUN = {"type": "run.succeeded", "job_id": ID, "lease": 2, "worker": "w", "duration_ms": 1.0, "started_ms": 9}
WORKER = {
    "type": "worker.announced",
    "worker": "w",
    "partition": 0,
    "queues": ["q"],
    "all_queues": ["q"],
    "slots": 1,
    "all_slots": 1,
    "tasks": ["t"],
    "started_at": "2027-01-15T08:00:00Z",
}
LINK = {"type": "continuation.added", "job_id": ID, "child": ID, "on": "succeeded"}


def carrying(result: bytes) -> bytes:
    """A report whose result is JSON text of the test's own."""
    return encode(RUN)[:-1] + b',"result":' + result + b"}"


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (None, UndecodableRecord, "no value"),
        (b"", UndecodableRecord, "truncated"),
        (b"\xff", UndecodableRecord, "malformed"),
        (b"{}", InvalidData, "missing required field `type`"),
        (b'{"type":"job.explode"}', InvalidData, "job.explode"),
        (b'{"type":"job.due","job_id":"x","version":0}', InvalidData, "`int` >= 1 - at `$.version`"),
        (b'{"type":"job.due","version":1}', InvalidData, "`job_id`"),
        (b"[" * 100_000, InvalidData, "Expected `object`, got `array`"),
        (b'{"type":"run.succeeded","new":' + b"[" * 100_000, UndecodableRecord, "recursion"),
        (b" " * (VALUE_BYTES_MAX + 1), InvalidData, "more than"),
        (carrying(b'"\\u0000"'), InvalidData, "NUL"),
        (carrying(b'{"\\u0000":1}'), InvalidData, "NUL"),
        (carrying(b'"\\ud800"'), UndecodableRecord, "not JSON"),
        (carrying(b'"\xc3("'), InvalidData, "result: 'utf-8'"),
        (carrying(b"1e400"), InvalidData, "Number out of range"),
        (carrying(b"[%s.5]" % (b"1" * 400)), InvalidData, "Number out of range"),
        (carrying(b"NaN"), UndecodableRecord, "invalid character"),
        (carrying(b"[" * 101 + b"]" * 101), InvalidData, "nested deeper"),
        (encode({**RUN, "job_id": "?"}).replace(b"?", b"\xc3("), UndecodableRecord, "utf-8"),
        (encode({**RUN, "worker": "a\x00b"}), InvalidData, "NUL"),
        (encode({**RUN, "duration_ms": 10**400}), InvalidData, "Number out of range"),
        (encode({**WORKER, "worker": ""}), InvalidData, "'' is not the id of a worker"),
        (encode({**WORKER, "worker": "w" * 201}), InvalidData, "is not the id of a worker"),
        (encode({**WORKER, "queues": ["Q"]}), InvalidData, "'Q' is not the name of a queue"),
        (encode({**WORKER, "all_queues": ["q", "q\n"]}), InvalidData, "is not the name of a queue"),
        (encode({**WORKER, "tasks": ["t", "ä"]}), InvalidData, "is not the name of a task"),
        (encode({**WORKER, "policies": {"": {}}}), InvalidData, "is not the name of a task"),
        (encode({**WORKER, "slots": 2**31}), InvalidData, "`int` <= 2147483647 - at `$."),
        (encode({**WORKER, "all_slots": 2**31}), InvalidData, "`int` <= 2147483647 - at `$."),
        (encode({**WORKER, "started_at": "0001-01-01T00:00:00+10:00"}), InvalidData, "beyond the calendar"),
        (encode({**LINK, "child": "x"}), InvalidData, "'x' is not a job id"),
        (encode({**LINK, "job_id": ID.upper()}), InvalidData, "is not a job id"),
    ],
)
def test_a_broken_report_is_refused(value: bytes | None, error: type[ContractError], said: str) -> None:
    with pytest.raises(error) as caught:
        read_report(value)
    assert type(caught.value) is error
    assert said in caught.value.reason


@pytest.mark.parametrize("said", [WORKER, LINK, RUN])
def test_what_is_refused_is_refused_for_what_was_changed(said: dict[str, Any]) -> None:
    assert read_report(encode(said)) == read_report(encode({**said, "newer": "\x1f"}))


def test_text_that_only_looks_like_an_escaped_nul_is_read() -> None:
    report = read_report(encode({**RUN, "result": "\\u0000"}))
    assert isinstance(report, wire.RunSucceeded)
    assert json.loads(bytes(report.result)) == "\\u0000"


def test_a_report_comes_back_as_it_was_written() -> None:
    report = wire.RunSucceeded(job_id=ID, lease=2, worker="w", result=wire.NO_RAW, duration_ms=1.5, started_ms=9)
    assert read_report(encode(report)) == report


def test_a_report_with_escapes_means_what_one_without_means() -> None:
    escaped = read_report(json.dumps({**RUN, "result": ["é"], "newer": 1}).encode())
    plain = read_report(json.dumps({**RUN, "result": ["é"]}, ensure_ascii=False).encode())
    assert isinstance(escaped, wire.RunSucceeded)
    assert isinstance(plain, wire.RunSucceeded)
    assert json.loads(bytes(escaped.result)) == json.loads(bytes(plain.result)) == ["é"]


@pytest.mark.parametrize("digits", [DIGITS_MAX, DIGITS_MAX + 1, 3 * DIGITS_MAX])
@pytest.mark.parametrize("before", [0, 1, DIGITS_MAX, 2 * DIGITS_MAX + 5])
def test_endless_numbers_are_seen_wherever_they_stand(digits: int, before: int) -> None:
    value = encode({**RUN, "padding": "x" * before})[:-1] + b',"result":' + b"7" * digits + b"}"
    if digits > DIGITS_MAX:
        with pytest.raises(InvalidData):
            read_report(value)
    else:
        report = read_report(value)
        assert isinstance(report, wire.RunSucceeded)
        assert len(bytes(report.result)) == digits
    text = read_report(encode({**RUN, "result": "7" * digits}))
    assert isinstance(text, wire.RunSucceeded)
    assert len(bytes(text.result)) == digits + 2
