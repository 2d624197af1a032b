from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joblog.services.client.options import Call, with_options
from joblog.services.client.templates import CreateTemplate, Rules
from joblog.services.detection import tasks
from joblog.services.detection.manager import HIGH, RUN_DELAY, JobManager, ManagedRun, _handle, retry_policy
from joblog.services.detection.names import CLEANUP_TASK, RUN_TASK
from joblog.services.detection.requests import RunRequested, RunWithdrawn, read_request, write_request
from joblog.streams.contract.retry import Retry, delay_s, is_retried
from joblog.streams.contract.states import ContinueOn
from joblog.streams.errors import InvalidData, UndecodableRecord

LANES = 4
MINUTE = timedelta(minutes=1)
REQUEST = RunRequested(run_id="run-1", photograph="/uploads/run-1.png")


@dataclass
class RecordingClient:
    """A client that remembers what it was asked for."""

    calls: list[tuple[str, Any, dict[str, Any]]] = field(default_factory=list)

    def schedule(self, task: str, **options: Any) -> str:
        self.calls.append(("schedule", task, options))
        return "detection job"

    def continue_with(self, parent_id: str, task: str, **options: Any) -> str:
        self.calls.append(("continue_with", (parent_id, task), options))
        return "cleanup job"

    def delete(self, job_id: str, **options: Any) -> None:
        self.calls.append(("delete", job_id, options))


@pytest.fixture
def client() -> RecordingClient:
    return RecordingClient()


@pytest.fixture
def started() -> list[ManagedRun]:
    return []


@pytest.fixture
def manager(client: RecordingClient, started: list[ManagedRun]) -> JobManager:
    return JobManager(client, LANES, Path("/detection"), MINUTE, started.append)


def test_a_failed_run_is_tried_again_after_one_two_and_four_minutes() -> None:
    policy = retry_policy(MINUTE)
    retry = msgspec.convert(policy.model_dump(mode="json"), Retry)
    assert policy.attempts == 3
    assert [delay_s(retry, attempt, 0.5) for attempt in (1, 2, 3)] == [60, 120, 240]
    assert is_retried(retry, ("builtins.OSError", "OSError", "Exception"))


def test_minutes_may_be_shorter() -> None:
    retry = msgspec.convert(retry_policy(timedelta(seconds=2)).model_dump(mode="json"), Retry)
    assert [delay_s(retry, attempt, 0.5) for attempt in (1, 2, 3)] == [2, 4, 8]


def test_a_request_becomes_a_delayed_job_and_its_clean_up(
    manager: JobManager, client: RecordingClient, started: list[ManagedRun]
) -> None:
    manager.handle(REQUEST)
    (kind, task, detection), (next_kind, cleanup_of, cleanup) = client.calls
    assert (kind, task) == ("schedule", RUN_TASK)
    assert detection["delay"] == RUN_DELAY == timedelta(seconds=10)
    assert detection["photograph"] == "/uploads/run-1.png"
    assert (next_kind, cleanup_of) == ("continue_with", ("detection job", CLEANUP_TASK))
    assert cleanup["on"] is ContinueOn.ENDED
    assert detection["workspace"] == cleanup["workspace"] == "/detection"
    assert started == [ManagedRun("run-1", "detection job", "cleanup job")]


def test_both_jobs_of_a_run_are_marked_with_it_and_go_first(manager: JobManager, client: RecordingClient) -> None:
    manager.handle(REQUEST)
    detection, cleanup = (options["options"] for _, _, options in client.calls)
    for options in (detection, cleanup):
        assert options.parameters == {"detectionRunId": "run-1", "priority": "high"}
        assert options.priority == HIGH > 0
        assert options.retry == retry_policy(MINUTE)
    assert (detection.queue, cleanup.queue) == ("detection", "default")


def test_a_withdrawn_run_is_deleted_by_the_id_that_the_client_gave_its_job(
    manager: JobManager, client: RecordingClient
) -> None:
    options = manager.options("run-1", "detection")
    template = CreateTemplate(RUN_TASK, with_options(options), Rules(LANES, {}, "/tests", 10_000))
    manager.handle(RunWithdrawn(run_id="run-1"))
    assert client.calls == [
        ("delete", template.fill(Call()).job_id, {"reason": "the detection run was withdrawn"}),
    ]


def test_the_manager_names_the_tasks_that_the_server_knows() -> None:
    assert tasks.run_detection.name == RUN_TASK
    assert tasks.clean_up.name == CLEANUP_TASK


@pytest.mark.parametrize("request_", [REQUEST, RunWithdrawn(run_id="run-1")])
def test_a_request_is_read_as_it_was_written(request_: RunRequested | RunWithdrawn) -> None:
    value = write_request(request_, "event-1", 1_700_000_000_000)
    assert read_request(value, None) == request_
    event = msgspec.json.decode(value)
    assert event["specversion"] == "1.0"
    assert event["subject"] == "run-1"
    assert event["time"] == "2023-11-14T22:13:20.000Z"


@dataclass
class Record:
    """A record of the topic of requests."""

    text: bytes

    def value(self) -> bytes:
        return self.text

    def headers(self) -> None:
        return None

    def offset(self) -> int:
        return 7


class RefusingClient(RecordingClient):
    """A client that finds the job of every request wrong."""

    def schedule(self, task: str, **options: Any) -> str:
        raise InvalidData(f"{task} holds a NUL character: {len(options)}")


@pytest.mark.parametrize("value", [b"{", write_request(REQUEST, "e", 0)])
def test_a_request_that_makes_no_job_is_passed_over_and_said(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    started: list[ManagedRun] = []
    manager = JobManager(RefusingClient(), LANES, Path("/detection"), MINUTE, started.append)
    _handle(manager, Record(value))
    assert started == []
    (record,) = caplog.records
    assert (record.message, vars(record)["offset"]) == ("detection.request.refused", 7)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, UndecodableRecord),
        (b"{", UndecodableRecord),
        (write_request(REQUEST, "e", 0).replace(b"run_requested", b"run_dreamt"), InvalidData),
        (write_request(REQUEST, "e", 0).replace(b'"photograph"', b'"painting"'), InvalidData),
        *[
            (write_request(REQUEST, "e", 0).replace(b'"run_id":"run-1"', b'"run_id":' + run_id), InvalidData)
            for run_id in (b'""', b'"../../precious"', b'".."', b'"/etc"', b'"a/b"', b'"a\\u0000b"', b'"a\\n"')
        ],
    ],
)
def test_what_is_no_request_is_refused(value: bytes | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_request(value, None)
