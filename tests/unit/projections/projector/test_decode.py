import json
from typing import Any

import pytest
from joblog.projections.projector.decode import JobFact, RejectedFact, WorkerFact, read_event
from joblog.streams.errors import ContractError, InvalidData, UndecodableRecord, UnknownType

from tests.support.projection_events import BEGINNING, Story, cloud_event, rejected_event, worker_event

LOG_MS = 1_764_000_000_123


def read(value: bytes | None) -> JobFact:
    fact = read_event(value, None, LOG_MS)
    assert isinstance(fact, JobFact)
    return fact


def changed(value: bytes, **data: Any) -> bytes:
    """The event with other data; None takes a field away."""
    envelope = json.loads(value)
    merged = {**envelope["data"], **data}
    envelope["data"] = {name: one for name, one in merged.items() if one is not None}
    return json.dumps(envelope).encode()


def test_a_first_event_carries_what_the_job_was_created_with() -> None:
    story = Story(spec={"args": [1.50], "kwargs": {"a": "\\u00e4"}, "priority": 7, "parameters": {"x": 1}}).enqueued()
    fact = read(story.values[0])
    assert (fact.job, fact.type, fact.at) == (story.id, "job.enqueued", "2026-11-23T15:00:01+00:00")
    assert fact.created_with is not None
    assert fact.created_with.priority == 7
    assert bytes(fact.created_with.parameters) == b'{"x":1}'


def test_a_spec_is_kept_to_the_letter() -> None:
    value = Story().enqueued().values[0].replace(b'"args":[1,2]', b'"args":[1.50, 1E3,\t"\\u00e4"]')
    assert read(value).spec == '{"args":[1.50, 1E3,\t"\\u00e4"],"kwargs":{"unit":"m"}}'


def test_details_are_what_the_type_adds_and_nothing_else() -> None:
    story = Story().enqueued().processing().succeeded({"sum": 3})
    assert [json.loads(read(value).details) for value in story.values] == [
        {"queue": "default"},
        {"worker": "host-1:4711", "lease": 2},
        {"worker": "host-1:4711", "lease": 2, "result": {"sum": 3}, "duration_ms": 12.5, "latency_ms": 3.0},
    ]


def test_times_are_brought_to_utc() -> None:
    value = changed(Story().scheduled(BEGINNING).values[0], due="2026-11-23T17:30:00+02:00")
    assert read(value).due == "2026-11-23T15:30:00+00:00"


def test_an_event_without_a_time_happened_when_it_was_logged() -> None:
    envelope = json.loads(Story().enqueued().values[0])
    del envelope["time"]
    assert read(json.dumps(envelope).encode()).at == "2025-11-24T16:00:00.123Z"


def test_a_spelling_that_only_the_model_knows_is_read_the_careful_way() -> None:
    value = changed(Story().enqueued().processing().values[1], version="2", lease=2.0)
    fact = read(value)
    assert (fact.event.version, fact.event.lease) == (2, 2)


def test_an_event_in_binary_mode_is_read() -> None:
    envelope = json.loads(Story().enqueued().values[0])
    headers: list[tuple[str, str | bytes | None]] = [
        (f"ce_{name}", str(envelope[name]).encode()) for name in ("specversion", "id", "source", "type", "subject")
    ]
    fact = read_event(json.dumps(envelope["data"]).encode(), headers, LOG_MS)
    assert isinstance(fact, JobFact)
    assert fact.event.task == "demo.add"


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("worker.started", "running"),
        ("worker.alive", "running"),
        ("worker.stopped", "stopped"),
        ("worker.lost", "lost"),
    ],
)
def test_events_of_workers_are_read(kind: str, state: str) -> None:
    fact = read_event(worker_event(kind), None, LOG_MS)
    assert isinstance(fact, WorkerFact)
    assert (fact.state, fact.event.slots, fact.event.queues) == (state, 4, ("default",))


def test_a_rejected_command_is_read() -> None:
    fact = read_event(rejected_event(), None, LOG_MS)
    assert isinstance(fact, RejectedFact)
    assert fact.event.code == "unknown_job"


ENQUEUED, PROCESSING, SUCCEEDED = Story().enqueued().processing().succeeded().values
FAILED = Story().failed().values[0]
SCHEDULED = Story().scheduled(BEGINNING).values[0]
AWAITING = Story().awaiting(Story().id).values[0]
PARAMETER_SET = Story(state="Enqueued").parameter_set("x", 1).values[0]


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (None, UndecodableRecord, "no value"),
        (b"\xff\xfe", UndecodableRecord, "not JSON"),
        (b"[1]", UndecodableRecord, "JSON object"),
        (ENQUEUED.replace(b'"1.0"', b'"0.3"'), UndecodableRecord, "specversion"),
        (ENQUEUED.replace(b"job.enqueued", b"job.vanished"), UnknownType, "job.vanished"),
        (ENQUEUED.replace(b"job.enqueued", b"job.deleted"), InvalidData, "state"),
        (cloud_event("job.enqueued", "job-1", BEGINNING, json.loads(ENQUEUED)["data"]), InvalidData, "subject"),
        (cloud_event("job.enqueued", None, BEGINNING, json.loads(ENQUEUED)["data"]), InvalidData, "subject"),
        (ENQUEUED.replace(b"2026-11-23T15:00:01.000Z", b"2026-11-23T15:00:01.000"), InvalidData, "zone"),
        (ENQUEUED.replace(b"2026-11-23T15:00:01.000Z", b"infinity"), InvalidData, "isoformat"),
        (ENQUEUED.replace(b"2026-11-23T15:00:01.000Z", b"0001-01-01T00:00:00+02:00"), InvalidData, "calendar"),
        (changed(SCHEDULED, due="9999-12-31T23:59:59-05:00"), InvalidData, "due|calendar"),
        (changed(ENQUEUED, version=0), InvalidData, "version"),
        (changed(ENQUEUED, spec=[1]), InvalidData, "spec"),
        (changed(ENQUEUED, spec={"args": 5}), InvalidData, "spec.args"),
        (changed(ENQUEUED, spec={"args": {"a": 1}}), InvalidData, "spec.args"),
        (changed(ENQUEUED, spec={"kwargs": [1]}), InvalidData, "spec.kwargs"),
        (ENQUEUED.replace(b'"args":[1,2]', b'"parameters":null'), InvalidData, "spec.parameters"),
        (ENQUEUED.replace(b"[1,2]", b"[" + b"9" * 5_000 + b"]"), UndecodableRecord, "number out of range"),
        (ENQUEUED.replace(b"[1,2]", b"[1E400]"), InvalidData, "spec.args.*finite"),
        (changed(SUCCEEDED, result=0).replace(b'"result": 0', b'"result": 1E400'), InvalidData, "result.*finite"),
        (changed(AWAITING, parent="x"), InvalidData, "parent"),
        (changed(ENQUEUED, spec={"n": 0}).replace(b'"n": 0', b'"n": 1E400'), InvalidData, "spec.n.*finite"),
        (worker_event("worker.started", started_at="0001-01-01T00:00:00+14:00"), InvalidData, "started_at"),
        (changed(PROCESSING, worker=None), InvalidData, "worker"),
        (changed(PROCESSING, lease=None), InvalidData, "lease"),
        (changed(SUCCEEDED, duration_ms=None), InvalidData, "duration_ms"),
        (changed(SUCCEEDED, duration_ms=-1), InvalidData, "duration_ms"),
        (changed(FAILED, exception=None), InvalidData, "exception"),
        (changed(SCHEDULED, due=None), InvalidData, "due"),
        (changed(SCHEDULED, due="tomorrow"), InvalidData, "due"),
        (changed(AWAITING, parent=None), InvalidData, "parent"),
        (changed(AWAITING, on="whenever"), InvalidData, "on"),
        (changed(PARAMETER_SET, name=None), InvalidData, "name"),
        (b'{"a":' * 100_000, UndecodableRecord, "not JSON"),
    ],
)
def test_what_is_no_event_is_refused_with_the_reason(
    value: bytes | None, error: type[ContractError], words: str
) -> None:
    with pytest.raises(error, match=words):
        read_event(value, None, LOG_MS)
