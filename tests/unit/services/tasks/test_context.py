import logging
import threading
import time
from contextvars import copy_context

import pytest
from joblog.services.tasks.context import (
    CURRENT,
    CancellationToken,
    JobCancelled,
    JobContext,
    JobLogFilter,
    current_job,
)
from joblog.streams.contract.wire import RunJob
from joblog.streams.errors import TaskError
from msgspec import Raw

JOB = RunJob(
    job_id="018f0000-0000-8001-8000-000000000001",
    lease=7,
    attempt=2,
    lane=1,
    task="t",
    queue="q",
    spec=Raw(b'{"args":[1],"parameters":{"a":1,"b":1}}'),
    parameters=Raw(b'{"b":2,"c":null}'),
    ready_ms=1,
)


def test_a_token_says_nothing_until_it_is_cancelled() -> None:
    token = CancellationToken()
    token.raise_if_cancelled()
    assert (token.is_cancelled, token.reason, token.wait(0)) == (False, None, False)


def test_a_cancelled_token_keeps_its_first_reason() -> None:
    token = CancellationToken()
    token.cancel("timeout")
    token.cancel("shutdown")
    assert (token.is_cancelled, token.reason, token.wait()) == (True, "timeout", True)
    with pytest.raises(JobCancelled, match=r"^timeout$"):
        token.raise_if_cancelled()


def test_a_waiting_job_wakes_when_it_is_cancelled() -> None:
    token = CancellationToken()
    threading.Timer(0.05, token.cancel, ["cancelled: because"]).start()
    begin = time.monotonic()
    assert token.wait(10)
    assert time.monotonic() - begin < 5


def test_a_context_tells_what_the_assignment_said() -> None:
    context = JobContext(JOB, "worker:1")
    told = (context.job_id, context.attempt, context.lease, context.queue, context.task, context.worker)
    assert told == (JOB.job_id, 2, 7, "q", "t", "worker:1")
    assert context.idempotency_key == f"{JOB.job_id}:2"


def test_parameters_set_since_win_over_those_of_the_creation() -> None:
    assert JobContext(JOB, "w").parameters == {"a": 1, "b": 2, "c": None}


def test_there_is_no_current_job_outside_of_one() -> None:
    with pytest.raises(TaskError):
        current_job()


def test_log_records_name_the_job_they_come_from() -> None:
    record = logging.makeLogRecord({"msg": "hello"})

    def inside_a_job() -> None:
        CURRENT.set(JobContext(JOB, "w"))
        assert current_job().job_id == JOB.job_id
        assert JobLogFilter().filter(record)

    copy_context().run(inside_a_job)
    assert (vars(record)["job_id"], vars(record)["attempt"], vars(record)["task"]) == (JOB.job_id, 2, "t")


def test_log_records_outside_of_jobs_stay_as_they_are() -> None:
    record = logging.makeLogRecord({"msg": "hello"})
    assert JobLogFilter().filter(record)
    assert "job_id" not in vars(record)
