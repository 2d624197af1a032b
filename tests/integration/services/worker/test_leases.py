"""A worker whose lease is over, or who cannot read what it is given: it ends its session and begins another one."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from joblog.services.tasks.context import CancellationToken
from joblog.services.tasks.task import TaskRegistry, task
from joblog.streams.contract.topics import ASSIGNMENTS, TopicNames
from joblog.streams.contract.wire import RunReleased, RunSucceeded, WorkerAnnounced, WorkerStopping
from joblog.streams.kafka import clients
from joblog.streams.kafka.admin import create_topics
from joblog.streams.kafka.clients import KafkaConfig

from tests.support.pausing import pause, resume
from tests.support.worker_command import worker_command
from tests.support.worker_elector import TIMEOUT_S, Running, running

pytestmark = pytest.mark.broker


@task("add")
def add(a: int, b: int = 1) -> int:
    return a + b


@task("obey")
def obey(token: CancellationToken) -> None:
    token.wait(TIMEOUT_S)
    token.raise_if_cancelled()


TASKS = TaskRegistry.of(add, obey)


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[Consumer]:
    """The consumers that workers make, oldest first."""
    made: list[Consumer] = []
    make = clients.reader

    def reader(config: KafkaConfig, client_id: str, **options: Any) -> Consumer:
        consumer = make(config, client_id, **options)
        if client_id.startswith("tester:"):
            made.append(consumer)
        return consumer

    monkeypatch.setattr(clients, "reader", reader)
    return made


def comes_back(it: Running, before: str) -> None:
    """The worker ends the session of this id, gives back what it ran, and works under another id."""
    it.elector.until(lambda: it.worker.id != before)
    it.elector.until(lambda: it.elector.of(WorkerStopping))
    assert {stopping.worker for stopping in it.elector.of(WorkerStopping)} == {before}
    released = it.elector.end()
    assert (type(released), released.worker, released.started) == (RunReleased, before, True)
    assert "could not be read" in released.reason


def works(it: Running) -> None:
    it.elector.until(lambda: it.elector.of(WorkerAnnounced)[-1].worker == it.worker.id and it.health.ready)
    job = it.elector.assign("add", 1)
    ended = it.elector.end(2)
    assert (type(ended), ended.job_id, ended.worker) == (RunSucceeded, job.job_id, it.worker.id)


def test_a_worker_whose_fetches_bring_nothing_though_there_are_records_ends_its_session(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, readers: list[Consumer]
) -> None:
    with running(kafka, topics, lanes, TASKS, renew_s=0.5, lease_s=3.0) as it:
        before = it.worker.id
        it.elector.assign("obey")
        it.elector.until(lambda: it.started("obey"))
        readers[0].pause(readers[0].assignment())  # the broker answers all else
        it.elector.assign("add", 1)
        comes_back(it, before)
        assert it.started("add") == 0
        works(it)


def test_a_worker_whose_partition_is_away_ends_its_session_and_waits_for_it(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, delete_topics: Callable[[list[str]], None]
) -> None:
    with running(kafka, topics, lanes, TASKS, renew_s=0.5, lease_s=3.0) as it:
        before = it.worker.id
        it.elector.assign("obey")
        it.elector.until(lambda: it.started("obey"))
        delete_topics([topics.of(ASSIGNMENTS)])
        comes_back(it, before)
        assert not it.health.ready
        create_topics(kafka, topics, lanes)
        works(it)


def test_a_worker_that_has_nothing_to_read_keeps_its_session(
    kafka: KafkaConfig, topics: TopicNames, lanes: int
) -> None:
    with running(kafka, topics, lanes, TASKS, renew_s=0.2, lease_s=2.0) as it:
        before = it.worker.id
        announced = len(it.elector.of(WorkerAnnounced))
        it.elector.until(lambda: len(it.elector.of(WorkerAnnounced)) >= announced + 20)  # two leases long
        assert it.worker.id == before
        assert it.elector.of(WorkerStopping) == []


#: A task that waits for a file, and one whose start leaves a file.
WAKING = """
import pathlib, time
from joblog.services.tasks.task import task

@task("gated")
def gated(mark: str, gate: str) -> None:
    pathlib.Path(mark).touch()
    while not pathlib.Path(gate).exists():
        time.sleep(0.01)

@task("note")
def note(mark: str) -> None:
    pathlib.Path(mark).touch()
"""
SLOTS = 8
LEASE_S = 3.0


def test_a_worker_that_slept_through_its_lease_starts_nothing_that_it_was_given_before(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, tmp_path: Path
) -> None:
    settings = {
        "JOBLOG_ELECTOR__LEASE_S": str(LEASE_S),
        "JOBLOG_WORKER__RENEW_S": "0.5",
        "JOBLOG_WORKER__RELEASE_AFTER_S": "60",
    }
    with worker_command(kafka, topics, lanes, tmp_path, WAKING, slots=SLOTS, **settings) as it:
        elector = it.elector
        before = elector.of(WorkerAnnounced)[-1].worker
        gate = tmp_path / "gate"
        for number in range(SLOTS):
            elector.assign("gated", str(tmp_path / f"runs-{number}"), str(gate))
        elector.until(lambda: len(list(tmp_path.glob("runs-*"))) == SLOTS)
        for number in range(SLOTS):
            elector.assign("note", str(tmp_path / f"noted-waiting-{number}"))
        elector.settle()
        pause(it.process)
        for number in range(SLOTS):
            elector.assign("note", str(tmp_path / f"noted-fetched-{number}"))
        gate.touch()  # each slot takes the next job as soon as the process wakes
        time.sleep(LEASE_S)  # the time of the lease itself
        resume(it.process)
        elector.until(lambda: elector.of(WorkerAnnounced)[-1].worker != before)
        probe = elector.assign("note", str(tmp_path / "awake"))
        elector.until(lambda: any(end.job_id == probe.job_id for end in elector.ends))
        assert (tmp_path / "awake").exists()
        assert list(tmp_path.glob("noted-*")) == []
