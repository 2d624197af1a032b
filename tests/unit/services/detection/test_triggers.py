from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.services.client.templates import Rules
from joblog.services.detection import triggers
from joblog.services.detection.manager import RUN_DELAY, ManagedRun, retry_policy, run_of
from joblog.services.detection.names import MINUTE_S, WORKSPACE
from joblog.services.detection.requests import write_request
from joblog.services.detection.stories import STORIES, plan
from joblog.services.detection.uploads import ImageUploaded
from joblog.services.triggers.jobs import commands_of
from joblog.streams.contract.ids import hashed_job_id, lane_of_queue
from joblog.streams.triggers.incoming import IncomingEvent, read_event
from joblog.streams.triggers.records import Record
from msgspec import json
from pydantic import ValidationError

LANES = 4
AT = datetime(2026, 3, 1, tzinfo=UTC)
UPLOADED = ImageUploaded(run_id="run-1", photograph="/uploads/run-1.png")


def event(value: bytes | None = None) -> IncomingEvent:
    told = value or write_request(UPLOADED, "e-1", round(AT.timestamp() * 1000))
    return read_event(Record("demo.uploads", 0, 0, 0, None, told, []))


@pytest.fixture(autouse=True)
def stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, "/detection")
    monkeypatch.setenv(MINUTE_S, "2.0")


def commands() -> list[dict[str, Any]]:
    rules = Rules(LANES, {}, "/joblog/triggers", 10_000)
    found = event()
    return [json.decode(one.value)["data"] for one in commands_of(found, "t", triggers.start_run(found), rules)]


def test_an_upload_becomes_a_delayed_detection_and_its_clean_up() -> None:
    detection, cleanup = commands()
    assert (detection["task"], detection["queue"]) == ("detection.run", "detection")
    assert datetime.fromisoformat(detection["run_at"]) == AT + RUN_DELAY
    assert detection["kwargs"] == {"photograph": "/uploads/run-1.png", "workspace": "/detection"}
    assert (cleanup["task"], cleanup.get("queue", "default")) == ("detection.cleanup", "default")
    assert cleanup["parent"] == {"job_id": detection["job_id"], "on": "ended"}
    for job in (detection, cleanup):
        assert job["parameters"] == {"detectionRunId": "run-1", "priority": "high"}
        assert job["retry"]["attempts"] == retry_policy(timedelta(seconds=2)).attempts == 3
    made = ManagedRun("run-1", detection["job_id"], cleanup["job_id"])
    assert run_of("run-1", LANES) == made
    assert made.detection_job == hashed_job_id(lane_of_queue("detection", LANES), "detection", "run-1")


def test_an_upload_whose_run_would_leave_its_directory_is_refused() -> None:
    told = json.encode(
        {"specversion": "1.0", "id": "1", "source": "/x", "type": "image.uploaded",
         "data": {"run_id": "../x", "photograph": "p"}}
    )  # fmt: skip
    with pytest.raises(ValidationError):
        triggers.start_run(event(told))


def test_runs_whose_photograph_is_there_start_by_its_upload() -> None:
    by_upload = {run.story.name for run in plan(len(STORIES)) if run.starts_by_upload}
    assert by_upload == {"portrait", "damaged", "coins", "galaxies"}
