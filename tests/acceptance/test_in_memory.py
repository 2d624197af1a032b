"""Joblog in memory, beside the real processes: the same calls lead to the same events."""

import importlib.util
import os
import signal
from pathlib import Path
from re import sub
from types import SimpleNamespace
from typing import Any

import pytest
from joblog.projections.monitor import Monitor
from joblog.projections.monitor.models import JobDetails
from joblog.services.client.client import Client
from joblog.services.client.options import JobOptions
from joblog.services.testing import InMemoryJoblog
from joblog.streams.contract.ids import lane_of_queue
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import FINAL_STATES, ContinueOn, State

pytestmark = [pytest.mark.broker, pytest.mark.database]

#: What a run's own time decides.
VOLATILE = {"worker", "duration_ms", "latency_ms", "due", "lease"}


def story(client: Client) -> dict[str, str]:
    """Jobs of all kinds, in both lanes; all wait until the others are there."""
    other = next(
        queue for queue in map("q{}".format, range(9)) if lane_of_queue(queue, 2) != lane_of_queue("default", 2)
    )
    parent = client.schedule("ok", 7, delay=2.0)
    jobs = {
        "parent": parent,
        "child": client.continue_with(parent, "ok", 8, options=JobOptions(queue=other)),
        "unwanted": client.continue_with(parent, "ok", 9, on=ContinueOn.DELETED, options=JobOptions(queue=other)),
        "flaky": client.enqueue("flaky", options=JobOptions(parameters={"a": 1})),
        "bad": client.enqueue("bad"),
        "misfit": client.enqueue("ok", "one", "too many", options=JobOptions(retry=RetryPolicy.none())),
        "deleted": client.schedule("ok", 1, delay=3600),
        "hurried": client.schedule("ok", 2, delay=3600, options=JobOptions(queue=other)),
        "keyed": client.enqueue("ok", 3, options=JobOptions(idempotency_key="k")),
        "late": client.enqueue("slow", 1.0, options=JobOptions(timeout=0.2, retry=RetryPolicy.none())),
        "lost": client.enqueue("crash", options=JobOptions(queue="fatal")),
    }
    client.enqueue("ok", 4, options=JobOptions(idempotency_key="k"))
    client.set_parameter(jobs["deleted"], "why", "test")
    client.delete(jobs["deleted"], reason="not wanted")
    client.reschedule(jobs["hurried"], delay=0.5)
    return jobs


def told(job: JobDetails, names: dict[str, str]) -> list[Any]:
    """What monitoring tells of a job, but for times, and with names for the ids."""

    def named(value: Any) -> Any:
        text = sub(r"Worker \S+ was lost", "Worker NAME was lost", repr(value))
        for name, job_id in names.items():
            text = text.replace(job_id, name)
        return text

    history = []
    for one in job.history:
        data = {name: value for name, value in one.data.items() if name not in VOLATILE}
        if "exception" in data:
            data["exception"] = {name: data["exception"][name] for name in ("type", "message", "types")}
        history.append((one.version, one.type, one.state, one.traversed, one.attempt, named(one.reason), named(data)))
    rejected = [(one.code, named(one.reason)) for one in job.rejected]
    facts = (job.state, job.queue, job.args, job.result, named(job.parameters), job.retry, job.parent_state)
    return [facts, history, rejected, sorted((named(one.id), one.state) for one in job.continuations)]


def test_what_happens_in_memory_happens_on_the_real_thing(
    installation: Any, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.extra = {"JOBLOG_ELECTOR__LEASE_S": "3"}
    for role in ("elector", "delays", "projector"):
        installation.start(role)
    installation.start("worker-lost", "--queues", "fatal")
    queues = [f"q{n}" for n in range(9)]

    monkeypatch.setenv("LEDGER", str(tmp_path / "ledger-in-memory"))
    spec = importlib.util.spec_from_file_location("acceptance_tasks", installation.home / "acceptance_tasks.py")
    assert spec is not None
    assert spec.loader is not None
    tasks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tasks)
    joblog = InMemoryJoblog(tasks, lanes=2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "kill", lambda *_: joblog.lose_worker())
        patched.setattr(tasks, "time", SimpleNamespace(sleep=joblog.advance))
        simulated = story(joblog)
        joblog.drain()

    with installation.client() as client:
        first = client.enqueue("ok")
        with Monitor(installation.dsn, schema) as monitor:
            assert monitor.wait_for(first, {State.ENQUEUED}, timeout_s=60) is not None
            real = story(client)
            assert installation.roles["worker-lost"].wait(60) == -signal.SIGKILL
            installation.start("worker", "--queues", ",".join(["default", "fatal", *queues]))
            for name, job_id in real.items():
                assert monitor.wait_for(job_id, FINAL_STATES, timeout_s=60) is not None, name
            # Only now: what is shown of a job has the states of its continuations.
            ended = {name: monitor.job(job_id) for name, job_id in real.items()}
    for name, job in ended.items():
        assert job is not None, name
        assert told(joblog.job(simulated[name]), simulated) == told(job, real), name
