import json
from typing import Any

import pytest
from joblog.streams.contract.codec import VALUE_BYTES_MAX, read_command, read_report
from joblog.streams.contract.relations import OUTCOME_BYTES_MAX
from joblog.streams.errors import ContractError, InvalidData, UndecodableRecord, UnknownType

ID = "01a31bcf-c400-8000-8000-00000000002a"
BINARY = [("ce_specversion", b"1.0"), ("ce_id", b"e-1"), ("ce_source", b"/shop"), ("ce_type", b"job.create")]


def event(kind: str = "job.create", data: Any = None, **attributes: Any) -> bytes:
    said = {"task": "t"} if data is None else data
    whole = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": kind, "data": said, **attributes}
    return json.dumps(whole).encode()


def raw_event(data: str, kind: str = "job.create") -> bytes:
    """An event whose data is JSON text of the test's own."""
    return f'{{"specversion":"1.0","id":"e-1","source":"/shop","type":"{kind}","data":{data}}}'.encode()


def refusal(value: bytes | None, headers: Any = None) -> ContractError:
    with pytest.raises(ContractError) as caught:
        read_command(value, headers)
    return caught.value


@pytest.mark.parametrize(
    ("headers", "value", "code", "said"),
    [
        ([("ce_specversion", b"2.0"), *BINARY[1:]], b"{}", "undecodable", "specversion must be 1.0, not '2.0'"),
        (BINARY[:1] + BINARY[2:], b'{"task":"t"}', "invalid_data", "id: Field required"),
        ([*BINARY, ("content-type", "application/avro")], b"{}", "undecodable", "content-type must be JSON"),
        ([*BINARY, ("content-type", b"\x00")], b"{}", "undecodable", "content-type must be JSON, not '\\x00'"),
        ([*BINARY, ("ce_time", b"\xff")], b"{}", "undecodable", "a header is not UTF-8"),
        ([*BINARY, ("ce_id", b"a\x00b")], b'{"task":"t"}', "invalid_data", "event.id holds a NUL character"),
        ([*BINARY, ("ce_id", b"a" * 1001)], b'{"task":"t"}', "invalid_data", "id: String should have at most 1000"),
        (BINARY, b"", "undecodable", "not JSON"),
        (BINARY, b"[]", "invalid_data", "data: Input should be a valid dictionary"),
        (BINARY, None, "undecodable", "the record has no value"),
    ],
)
def test_what_is_wrong_in_binary_mode_is_named(headers: Any, value: bytes | None, code: str, said: str) -> None:
    error = refusal(value, headers)
    assert error.code == code
    assert said in error.reason


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (None, UndecodableRecord, "the record has no value"),
        (b"", UndecodableRecord, "not JSON"),
        (b"\xef\xbb\xbf" + event(), UndecodableRecord, "not JSON"),
        (event()[:-1], UndecodableRecord, "not JSON"),
        (event().replace(b"shop", b"\xff\xfe"), UndecodableRecord, "not JSON"),
        (b"[" + event() + b"]", UndecodableRecord, "a CloudEvent is a JSON object"),
        (b"[" * 100_000, UndecodableRecord, "not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, UndecodableRecord, "not JSON"),
        (event(specversion="2.0"), UndecodableRecord, "specversion must be 1.0, not '2.0'"),
        (event(specversion=None), UndecodableRecord, "specversion must be 1.0, not None"),
        (event(id=""), InvalidData, "id: String should have at least 1 character"),
        (event(id="i" * 1001), InvalidData, "id: String should have at most 1000"),
        (event(id=5), InvalidData, "id: Input should be a valid string"),
        (event(id="a\x00"), InvalidData, "event.id holds a NUL character"),
        (event(source=None), InvalidData, "source: Input should be a valid string"),
        (event(subject=5), InvalidData, "subject: Input should be a valid string"),
        (event(traceparent="0" * 1001), InvalidData, "traceparent: String should have at most 1000"),
        (event(traceparent="\x00"), InvalidData, "event.traceparent holds a NUL character"),
        (event(data_base64="e"), UndecodableRecord, "data_base64 is not base64"),
        (event(data_base64="é"), UndecodableRecord, "data_base64 is not base64"),
        (event(data_base64=5), UndecodableRecord, "data_base64 is not base64"),
        (event(data_base64="e30"), UndecodableRecord, "data_base64 is not base64"),
        (event("job.explode"), UnknownType, "no command has the type job.explode; known are job.create,"),
        (event("job.created"), UnknownType, "no command has the type job.created"),
        (event(data=[]), InvalidData, "data: Input should be a valid dictionary"),
        (event(data={}), InvalidData, "task: Field required"),
        (event(data={"task": "t", "type": "job.create"}), InvalidData, "data.type: not a field"),
        (event(data={"task": "t", "que": "q"}), InvalidData, "que: Extra inputs are not permitted"),
        (event(data={"task": "t\n"}), InvalidData, "task: String should match pattern"),
        (event(data={"task": "t", "queue": "default\n"}), InvalidData, "queue: String should match pattern"),
        (event(data={"task": "t", "queue": "../q"}), InvalidData, "queue: String should match pattern"),
        (event(data={"task": "t", "queue": "Q"}), InvalidData, "queue: String should match pattern"),
        (event(data={"task": "t", "queue": "q" * 101}), InvalidData, "queue: String should match pattern"),
        (event(data={"task": "t", "job_id": ID + "\n"}), InvalidData, "job_id: String should match pattern"),
        (event(data={"task": "t", "job_id": ID.upper()}), InvalidData, "job_id: String should match pattern"),
        (event(data={"task": "t", "parent": {"job_id": "x"}}), InvalidData, "parent.job_id: String should match"),
        (event(data={"task": "t", "parent": {"job_id": ID, "on": "x"}}), InvalidData, "parent.on: Input should be"),
        (event(data={"task": "t", "args": {}}), InvalidData, "args: Input should be a valid tuple"),
        (event(data={"task": "t", "args": None}), InvalidData, "args: Input should be a valid tuple"),
        (event(data={"task": "t", "kwargs": []}), InvalidData, "kwargs: Input should be a valid dictionary"),
        (event(data={"task": "t", "args": ["a\x00"]}), InvalidData, "data.args[0] holds a NUL character"),
        (event(data={"task": "t", "kwargs": {"\x00": 1}}), InvalidData, "data.kwargs key holds a NUL character"),
        (event(data={"task": "t", "priority": 1001}), InvalidData, "priority: Input should be less than"),
        (event(data={"task": "t", "priority": 10**9}), InvalidData, "priority: Input should be less than"),
        (event(data={"task": "t", "priority": 1.5}), InvalidData, "priority: Input should be a valid integer"),
        (event(data={"task": "t", "timeout_s": 0}), InvalidData, "timeout_s: Input should be greater than 0"),
        (event(data={"task": "t", "timeout_s": 4e9}), InvalidData, "timeout_s: Input should be less than"),
        (event(data={"task": "t", "retry": {"attempts": -1}}), InvalidData, "retry.attempts: Input should be"),
        (event(data={"task": "t", "retry": {"delays_s": []}}), InvalidData, "retry.delays_s: Tuple should have"),
        (
            event(data={"task": "t", "run_at": "2027-01-15T08:00:00"}),
            InvalidData,
            "run_at: Value error, a time needs",
        ),
        (event(data={"task": "t", "run_at": "2027-02-30T08:00:00Z"}), InvalidData, "run_at: Input should be"),
        (
            event(data={"task": "t", "run_at": "9999-12-31T23:59:59-01:00"}),
            InvalidData,
            "run_at: Value error, a time lies between the years 1 and 9999 in UTC",
        ),
        (event(data={"task": "t", "idempotency_key": ""}), InvalidData, "idempotency_key: String should have"),
        (event(data={"task": "t", "parameters": {"": 1}}), InvalidData, "parameters"),
        (event("job.delete", {}), InvalidData, "job_id: Field required"),
        (event("job.delete", {"job_id": ID, "expected_version": 0}), InvalidData, "expected_version: Input should"),
        (event("job.delete", {"job_id": ID, "expected_version": 2**53}), InvalidData, "expected_version: Input"),
        (event("job.delete", {"job_id": ID, "reason": "r" * 10_001}), InvalidData, "reason: String should have"),
        (event("job.requeue", {"job_id": ID, "queue": "q\n"}), InvalidData, "queue: String should match pattern"),
        (event("job.reschedule", {"job_id": ID}), InvalidData, "run_at: Field required"),
        (event("job.set_parameter", {"job_id": ID, "name": "n"}), InvalidData, "value: Field required"),
        (raw_event('{"task":"t","args":[NaN]}'), UndecodableRecord, "not JSON"),
        (raw_event('{"task":"t","args":[-Infinity]}'), UndecodableRecord, "not JSON"),
        (raw_event('{"task":"t","args":[1e400]}'), InvalidData, "data.args[0] is not a finite number"),
        (raw_event('{"task":"t","parameters":{"p":1e400}}'), InvalidData, "data.parameters.p is not a finite"),
        (raw_event('{"task":"t","args":[%s]}' % ("1" * 5000)), UndecodableRecord, "not JSON"),
        (raw_event('{"task":"t","args":["\\ud800"]}'), UndecodableRecord, "not JSON"),
        (raw_event('{"task":"t","args":[%s]}' % ("[" * 101 + "]" * 101)), InvalidData, "nested deeper than 100"),
        (raw_event('{"task":"t","args":["\t"]}'), UndecodableRecord, "not JSON"),
        (raw_event('{"task":"t"} trailing'), UndecodableRecord, "not JSON"),
    ],
)
def test_what_is_wrong_with_a_command_is_named(value: bytes | None, error: type[ContractError], said: str) -> None:
    refused = refusal(value)
    assert type(refused) is error
    assert said in refused.reason


def test_a_value_that_is_too_long_is_refused_unread() -> None:
    assert "the value has" in refusal(b" " * (VALUE_BYTES_MAX + 1)).reason
    assert "the value has" in refusal(b" " * (VALUE_BYTES_MAX + 1), []).reason


def test_a_value_that_would_become_too_long_when_written_is_refused() -> None:
    args = ",".join(["1e15"] * 100_000)
    assert "the value has" in refusal(raw_event(f'{{"task":"t","args":["\\u00e9",{args}]}}')).reason


def test_a_reason_names_the_first_two_mistakes_in_one_line() -> None:
    said = refusal(event(data={"queue": "Q", "priority": 5000, "que": 1})).reason
    assert said.startswith("4 error(s); ")
    assert said.count("; ") == 2
    assert "\n" not in said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"job_id": "x"}, "'x' is not a job id"),
        ({"question": ""}, "`str` of length >= 1"),
        ({"question": "x" * 201}, "`str` of length <= 200"),
        ({"state": "Lost"}, "Invalid enum value 'Lost'"),
        ({"result": "x" * OUTCOME_BYTES_MAX}, f"the result has more than {OUTCOME_BYTES_MAX} bytes"),
        ({"result": [1e300] * 3 + [json.loads("[" * 300 + "]" * 300)]}, "nested deeper"),
        ({"exception": {"type": "x" * 10_001}}, "`str` of length <= 10000"),
        ({"omitted": "\x00"}, "holds a NUL character"),
    ],
)
def test_an_answer_about_a_parent_is_read_with_bounds(wrong: dict[str, Any], said: str) -> None:
    right = {"type": "parent.found", "job_id": ID, "question": "reports/0@1", "state": "Succeeded", "result": [1]}
    read_report(json.dumps(right).encode())
    with pytest.raises(InvalidData) as caught:
        read_report(json.dumps({**right, **wrong}).encode())
    assert said in caught.value.reason
