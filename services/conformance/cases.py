"""The conformance cases: records of producers, and what must become of each. Written to deploy/conformance."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from joblog.services.conformance.judge import Judge, Outcome
from joblog.services.conformance.records import RecordLine
from joblog.streams.contract.ids import lane_of_queue, new_job_id
from joblog.streams.contract.topics import COMMANDS
from msgspec import json

#: The number of lanes that the expected ids are for.
LANES: Final = 4
TAKEN: Final = (Outcome.TAKEN, None)
DUPLICATE: Final = (Outcome.DUPLICATE, "duplicate")
INVALID: Final = (Outcome.REFUSED, "invalid_data")
UNREADABLE: Final = (Outcome.REFUSED, "undecodable")
UNKNOWN_TYPE: Final = (Outcome.REFUSED, "unknown_type")
UNKNOWN_JOB: Final = (Outcome.REFUSED, "unknown_job")
WRONG_LANE: Final = (Outcome.REFUSED, "wrong_lane")


class Case(NamedTuple):
    """Records that are sent in this order, and the outcome and code of each."""

    name: str
    about: str
    records: tuple[RecordLine, ...]
    expected: tuple[tuple[Outcome, str | None], ...]


def _id_in(lane: int, number: int) -> str:
    return new_job_id(lane, 1_700_000_000_000 + number, number)


_OWN: Final = _id_in(lane_of_queue("mails", LANES), 1)
_PARENT: Final = _id_in(lane_of_queue("mails", LANES), 2)
_CHANGED: Final = _id_in(lane_of_queue("mails", LANES), 5)
_UNKNOWN: Final = _id_in(lane_of_queue("mails", LANES), 6)
_AWAY: Final = _id_in((lane_of_queue("mails", LANES) + 1) % LANES, 3)
_AWAY_KEY: Final = _id_in((lane_of_queue("mails", LANES) + 1) % LANES, 7)


def _event(name: str, data: Any, **changed: Any) -> dict[str, Any]:
    made = {"specversion": "1.0", "id": name, "source": "/conformance", "type": "job.create", "data": data} | changed
    return {key: value for key, value in made.items() if value is not None}


def _sent(value: Any, key: str | None = "mails", **headers: str) -> RecordLine:
    return RecordLine(value=value, key=key, headers=headers)


def _create(name: str, /, key: str | None = "mails", **data: Any) -> RecordLine:
    return _sent(_event(name, {"task": "mails.send", "queue": "mails"} | data), key)


def _changed(name: str, kind: str, /, **data: Any) -> RecordLine:
    return _sent(_event(name, data, type=kind), str(data.get("job_id")))


def _binary(name: str, data: Any, **changed: str) -> RecordLine:
    headers = {"ce_specversion": "1.0", "ce_id": name, "ce_source": "/conformance", "ce_type": "job.create"}
    return _sent(data, **{"content-type": "application/json"} | headers | changed)


def _raw(value: bytes) -> RecordLine:
    return RecordLine(value_base64=b64encode(value).decode(), key="mails")


def _one(name: str, about: str, record: RecordLine, expected: tuple[Outcome, str | None]) -> Case:
    return Case(name, about, (record,), (expected,))


_TAKEN: Final = (
    ("least", "A task and a queue are enough", _create("least")),
    (
        "default-queue",
        "Without a queue a job is in `default`",
        _sent(_event("default-queue", {"task": "t"}), "default"),
    ),
    (
        "all-options",
        "Every option at once",
        _create(
            "all-options",
            args=[1, "a", None, [True]],
            kwargs={"to": "a@example.com"},
            priority=10,
            timeout_s=30,
            retry={"attempts": 3, "curve": "fixed", "delays_s": [1, 2, 4]},
            parameters={"tenant": "blue"},
        ),
    ),
    ("text", "Text is UTF-8", _create("text", args=["größe", "日本語", "\U0001f600"])),
    (
        "own-id",
        "A producer may choose the id, if its lane is one of the queue",
        _create("own-id", job_id=_OWN),
    ),
    ("scheduled", "A time ahead makes a scheduled job", _create("scheduled", run_at="2999-01-01T00:00:00Z")),
    ("past", "A time that has passed means now", _create("past", run_at="2001-01-01T00:00:00+02:00")),
    ("continuation", "A job that waits for another", _create("continuation", parent={"job_id": _PARENT})),
    ("no-key", "A record without a key is forwarded to its lane", _create("no-key", key=None)),
    ("other-key", "So is one with the key of another lane", _create("other-key", key="default")),
    (
        "extensions",
        "Attributes that Joblog does not know are ignored; traceparent is kept",
        _sent(
            _event(
                "extensions",
                {"task": "mails.send", "queue": "mails"},
                comexampletenant="blue",
                traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )
        ),
    ),
    (
        "binary",
        "Binary mode: attributes in headers, data as the value",
        _binary("binary", {"task": "mails.send", "queue": "mails"}),
    ),
)

_INVALID: Final = (
    ("no-task", "A job needs a task", _sent(_event("no-task", {"queue": "mails"}))),
    ("queue-name", "A queue's name has no capitals", _create("queue-name", queue="Mails")),
    ("unknown-field", "What Joblog does not know is refused, not ignored", _create("unknown-field", prioritty=1)),
    ("args-object", "Positional arguments are an array", _create("args-object", args={"to": "a"})),
    ("priority-range", "Priorities are -1000 to 1000", _create("priority-range", priority=1001)),
    ("attempts-range", "Retries are 0 to 1000", _create("attempts-range", retry={"attempts": -1})),
    ("local-time", "A time needs a zone", _create("local-time", run_at="2030-01-01T00:00:00")),
    ("job-id", "A job's id is a UUIDv8 in small letters", _create("job-id", job_id="4711")),
    ("timeout-zero", "A time-out is more than nothing", _create("timeout-zero", timeout_s=0)),
    (
        "no-id",
        "An event needs an id",
        _sent(_event("no-id", {"task": "mails.send", "queue": "mails"}, id=None)),
    ),
    (
        "no-source",
        "An event needs a source",
        _sent(_event("no-source", {"task": "mails.send", "queue": "mails"}, source=None)),
    ),
    (
        "lane-beyond",
        "The lane in a job's id must exist",
        _create("lane-beyond", job_id=_id_in(LANES + 5, 4)),
    ),
)

_UNREADABLE: Final = (
    ("not-json", "A value that is not JSON", _raw(b"not json")),
    ("no-value", "A record without a value", RecordLine(key="mails")),
    (
        "old-version",
        "CloudEvents other than 1.0",
        _sent(_event("old-version", {"task": "mails.send", "queue": "mails"}, specversion="0.3")),
    ),
    (
        "not-a-number",
        "NaN is no JSON",
        RecordLine(value_base64="eyJzcGVjdmVyc2lvbiI6IDEuMCwgImQiOiBOYU59", key="mails"),
    ),
)

CASES: Final[tuple[Case, ...]] = (
    *(_one(*row, TAKEN) for row in _TAKEN),
    Case(
        "sent-twice",
        "The same event sent twice is one job",
        (_create("sent-twice"), _create("sent-twice", args=[2])),
        (TAKEN, DUPLICATE),
    ),
    Case(
        "sent-in-both-modes",
        "Also if it comes in structured and in binary mode",
        (
            _create("sent-in-both-modes"),
            _binary("sent-in-both-modes", {"task": "mails.send", "queue": "mails"}),
        ),
        (TAKEN, DUPLICATE),
    ),
    Case(
        "same-id-of-other-source",
        "The id alone does not make an event the same",
        (
            _create("same-id"),
            _sent(_event("same-id", {"task": "mails.send", "queue": "mails"}, source="/elsewhere")),
        ),
        (TAKEN, TAKEN),
    ),
    Case(
        "idempotency-key",
        "Two events with one idempotency key and queue are one job",
        (
            _create("key-1", idempotency_key="invoice-7"),
            _create("key-2", idempotency_key="invoice-7"),
        ),
        (TAKEN, DUPLICATE),
    ),
    Case(
        "changes",
        "A job is changed by its id; one that was deleted is not found again",
        (
            _create("changes", job_id=_CHANGED),
            _changed(
                "changes-1",
                "job.set_parameter",
                job_id=_CHANGED,
                name="tenant",
                value="blue",
            ),
            _changed("changes-2", "job.delete", job_id=_CHANGED, reason="ordered twice"),
            _changed("changes-3", "job.delete", job_id=_CHANGED),
        ),
        (TAKEN, TAKEN, TAKEN, (Outcome.REFUSED, "ended")),
    ),
    *(_one(*row, INVALID) for row in _INVALID),
    *(_one(*row, UNREADABLE) for row in _UNREADABLE),
    _one(
        "unknown-type",
        "Only Joblog's commands are commands",
        _sent(_event("unknown-type", {}, type="order.placed")),
        UNKNOWN_TYPE,
    ),
    _one(
        "unknown-job",
        "What is changed must exist",
        _changed("unknown-job", "job.delete", job_id=_UNKNOWN),
        UNKNOWN_JOB,
    ),
    _one(
        "any-lane",
        "A job's id may name any lane: the workers of its queue come to it",
        _create("any-lane", job_id=_AWAY),
        TAKEN,
    ),
    _one(
        "wrong-lane",
        "With an idempotency key, the lane in a job's id must be one of its queue, which knows the key",
        _create("wrong-lane", job_id=_AWAY_KEY, idempotency_key="order-4712"),
        WRONG_LANE,
    ),
)


def document() -> Mapping[str, Any]:
    """All cases as one JSON document, with the ids of the jobs, which every producer must get."""
    return {
        "about": "Send the records of a case in order, on an installation with these lanes, each case once.",
        "lanes": LANES,
        "topic": COMMANDS.name,
        "cases": list(_rows()),
    }


def _rows() -> Iterator[Mapping[str, Any]]:
    judge = Judge(LANES)
    for case in CASES:
        verdicts = [judge.judge(record.record()) for record in case.records]
        yield {
            "name": case.name,
            "about": case.about,
            "records": [json.decode(json.encode(record)) for record in case.records],
            "expected": [
                {"outcome": outcome.value}
                | ({} if code is None else {"code": code})
                | ({} if verdict.job_id is None or outcome is not Outcome.TAKEN else {"job_id": verdict.job_id})
                for (outcome, code), verdict in zip(case.expected, verdicts, strict=True)
            ],
        }
