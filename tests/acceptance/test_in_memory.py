"""Joblog in memory, beside the real processes: the same calls lead to the same events."""

import importlib.util
import os
import signal
from pathlib import Path
from re import sub
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest
from confluent_kafka.cimpl import NewTopic
from joblog.projections.monitor import Monitor
from joblog.projections.monitor.models import JobDetails
from joblog.services.client.client import Client
from joblog.services.client.options import JobOptions
from joblog.services.testing import InMemoryJoblog
from joblog.streams.contract.ids import lane_of_queue
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import FINAL_STATES, ContinueOn, State
from joblog.streams.kafka import clients

pytestmark = [pytest.mark.broker, pytest.mark.database]

#: What an event of another service becomes.
TRIGGERS = """
from joblog.services import Job, JobOptions, trigger

@trigger(topic="{topic}", type="number.chosen")
async def chosen(event):
    return [Job("ok", event.data), Job("ok", event.data + 1, options=JobOptions(queue="q1", priority=3))]
"""
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


def event(outside: Any, topic: str) -> dict[str, str]:
    """An event of another service, twice; its jobs, where that tells them."""
    for _ in range(2):
        made = outside.publish(topic, 5, type="number.chosen", id="17", source="/shop")
    return {} if made is None else {f"triggered {one.args[0]}": one.id for one in made}


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


class Uploads:
    """A topic of another service on the broker, with one event."""

    def __init__(self, installation: Any) -> None:
        self.topic = f"{installation.names.prefix}uploads"
        self.admin = clients.admin(installation.kafka)
        self.producer = clients.producer(installation.kafka, "uploads")
        new = NewTopic(self.topic, num_partitions=1, replication_factor=1)
        self.admin.create_topics([new])[self.topic].result(30)

    def publish(self, topic: str, data: Any, **attributes: str) -> None:
        event = {"specversion": "1.0", **attributes, "data": data}
        self.producer.produce(topic, msgspec.json.encode(event))
        assert self.producer.flush(30) == 0


def loaded(module: str, home: Path) -> ModuleType:
    """A module of the installation, as its processes have it."""
    spec = importlib.util.spec_from_file_location(module, home / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_what_happens_in_memory_happens_on_the_real_thing(
    installation: Any, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delete_topics: Any
) -> None:
    uploads = Uploads(installation)
    (installation.home / "acceptance_triggers.py").write_text(TRIGGERS.replace("{topic}", uploads.topic))
    installation.extra = {"JOBLOG_ELECTOR__LEASE_S": "3", "JOBLOG_TRIGGERS__MODULES": "acceptance_triggers"}
    for role in ("elector", "delays", "projector", "triggers"):
        installation.start(role)
    installation.start("worker-lost", "--queues", "fatal")
    queues = [f"q{n}" for n in range(9)]

    monkeypatch.setenv("LEDGER", str(tmp_path / "ledger-in-memory"))
    tasks = loaded("acceptance_tasks", installation.home)
    joblog = InMemoryJoblog(tasks, loaded("acceptance_triggers", installation.home), lanes=2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "kill", lambda *_: joblog.lose_worker())
        patched.setattr(tasks, "time", SimpleNamespace(sleep=joblog.advance))
        simulated = story(joblog) | event(joblog, uploads.topic)
        joblog.drain()

    with installation.client() as client:
        first = client.enqueue("ok")
        with Monitor(installation.dsn, schema) as monitor:
            assert monitor.wait_for(first, {State.ENQUEUED}, timeout_s=60) is not None
            real = story(client)
            event(uploads, uploads.topic)
            real |= {name: job for name, job in simulated.items() if name not in real}
            assert installation.roles["worker-lost"].wait(60) == -signal.SIGKILL
            installation.start("worker", "--queues", ",".join(["default", "fatal", *queues]))
            ended = {name: monitor.wait_for(job, FINAL_STATES, timeout_s=60) for name, job in real.items()}
    delete_topics([uploads.topic])
    for name, job in ended.items():
        assert job is not None, name
        assert told(joblog.job(simulated[name]), simulated) == told(job, real), name
