"""The end of a worker: it stops in order, or loses its broker."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from joblog.services.embedded.stack import EmbeddedStack
from joblog.services.tasks.context import CancellationToken
from joblog.services.tasks.task import TaskRegistry, task
from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import RunReleased, RunSucceeded, WorkerAnnounced, WorkerStopping
from joblog.streams.kafka.admin import create_topics
from joblog.streams.kafka.clients import KafkaConfig

from tests.support.worker_command import WorkerCommand, worker_command
from tests.support.worker_elector import TIMEOUT_S, Running, running

pytestmark = pytest.mark.broker


@task("add")
def add(a: int, b: int = 1) -> int:
    return a + b


@task("obey")
def obey(token: CancellationToken) -> None:
    token.wait(TIMEOUT_S)
    token.raise_if_cancelled()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Set by the test to let the runs of `gated` end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def start(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, gate: threading.Event
) -> Callable[..., AbstractContextManager[Running]]:
    """Starts a worker on the test's topics."""

    @task("gated")
    def gated() -> bool:
        return gate.wait(TIMEOUT_S)

    def started(**settings: Any) -> AbstractContextManager[Running]:
        return running(kafka, topics, lanes, TaskRegistry.of(add, obey, gated), **settings)

    return started


Start = Callable[..., AbstractContextManager[Running]]


def test_a_worker_that_stops_gives_back_what_waits_and_ends_what_runs(start: Start, gate: threading.Event) -> None:
    with start(slots=1, prefetch=5, release_after_s=TIMEOUT_S, grace_s=TIMEOUT_S) as it:
        runs, waits = it.elector.assign("gated"), it.elector.assign("add", 1)
        it.elector.settle()
        it.stop.set()
        released = it.elector.end(1)
        gate.set()
        ended = it.elector.end(2)
        it.elector.until(lambda: it.elector.of(WorkerStopping))
        assert (released.job_id, type(released), released.started) == (waits.job_id, RunReleased, False)
        assert (ended.job_id, type(ended)) == (runs.job_id, RunSucceeded)
        assert it.elector.offered(runs.lane) == 0
        assert isinstance(it.elector.heard[-1][1], WorkerStopping)


@pytest.mark.parametrize("name", ["obey", "gated"])
def test_what_runs_longer_than_the_grace_time_goes_back(start: Start, name: str) -> None:
    with start(grace_s=0.3) as it:
        job = it.elector.assign(name)
        it.elector.until(lambda: it.started(name))
        it.stop.set()
        report = it.elector.end()
        assert (report.job_id, type(report), report.started) == (job.job_id, RunReleased, True)


def test_a_job_that_comes_while_the_worker_stops_goes_back(start: Start, gate: threading.Event) -> None:
    with start(slots=2, grace_s=TIMEOUT_S) as it:
        lane = it.elector.assign("gated").lane
        it.elector.until(lambda: it.started("gated"))
        it.stop.set()
        it.elector.until(lambda: it.elector.offered(lane) == 0)
        late = it.elector.assign("add", 1)
        report = it.elector.end()
        gate.set()
        assert (report.job_id, report.reason) == (late.job_id, "the worker stops")


#: Tasks that no thread of the worker can stop.
STUBBORN = """
import asyncio, pathlib, time
from concurrent.futures import ThreadPoolExecutor
from joblog.services.tasks.task import task

def sleep(mark: str) -> None:
    pathlib.Path(mark).touch()
    time.sleep(600)

@task("stubborn")
def stubborn(mark: str) -> None:
    with ThreadPoolExecutor() as executor:
        executor.submit(sleep, mark)

@task("stubborn_async")
async def stubborn_async(mark: str) -> None:
    await asyncio.to_thread(sleep, mark)
"""


#: A task in a process, which runs until there is a file.
PATIENT = """
import logging, pathlib, time
from joblog.services.tasks.task import task

@task("patient", isolation="process")
def patient(mark: str) -> str:
    logging.getLogger("patient").info("begun")
    pathlib.Path(mark).touch()
    while not pathlib.Path(mark + ".gate").exists():
        time.sleep(0.01)
    return "done"
"""


#: A task that closes what logs are written to, and one that runs until there is a file.
CLOSING = """
import pathlib, sys, time
from joblog.services.tasks.task import task

@task("close")
def close() -> None:
    sys.stdout.close()
    sys.stderr.close()

@task("wait")
def wait(mark: str) -> str:
    pathlib.Path(mark).touch()
    while not pathlib.Path(mark + ".gate").exists():
        time.sleep(0.01)
    return "done"
"""


CommandOf = Callable[[str, float], AbstractContextManager[WorkerCommand]]


@pytest.fixture
def command(kafka: KafkaConfig, topics: TopicNames, lanes: int, tmp_path: Path) -> CommandOf:
    """Starts a worker with tasks of this source and this grace time."""
    return lambda tasks, grace_s: worker_command(
        kafka, topics, lanes, tmp_path, tasks, JOBLOG_WORKER__GRACE_S=str(grace_s)
    )


def test_a_workers_process_does_not_outlive_its_grace_time_whatever_its_tasks_do(
    command: CommandOf, tmp_path: Path
) -> None:
    with command(STUBBORN, 0.2) as it:
        for name in ("stubborn", "stubborn_async"):
            it.elector.assign(name, str(tmp_path / name))
            it.elector.until((tmp_path / name).exists)
        it.process.send_signal(signal.SIGTERM)
        assert any("worker.threads_left" in line for line in it.end())
        assert [type(it.elector.end(count)) for count in (1, 2)] == [RunReleased, RunReleased]


def test_a_run_in_a_process_has_its_grace_time_when_all_processes_are_told_to_stop(
    command: CommandOf, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    with command(PATIENT, TIMEOUT_S) as it:
        job = it.elector.assign("patient", str(mark))
        it.elector.until(mark.exists)
        os.killpg(it.process.pid, signal.SIGTERM)
        it.elector.until(lambda: it.elector.offered(job.lane) == 0)  # it heard that it is to stop
        (tmp_path / "mark.gate").touch()
        report = it.elector.end()
        assert isinstance(report, RunSucceeded)
        said = [json.loads(line) for line in it.end() if '"begun"' in line]
        assert [(line["level"], line["role"], line["job_id"]) for line in said] == [("info", "worker", job.job_id)]


def test_a_worker_whose_task_has_closed_its_streams_stops_in_order(command: CommandOf, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with command(CLOSING, TIMEOUT_S) as it:
        it.elector.assign("close")
        it.elector.end()
        job = it.elector.assign("wait", str(mark))
        it.elector.until(mark.exists)
        it.process.send_signal(signal.SIGTERM)
        it.elector.until(lambda: it.elector.offered(job.lane) == 0)
        (tmp_path / "mark.gate").touch()
        assert isinstance(it.elector.end(2), RunSucceeded)
        it.end()


def test_a_worker_without_kafka_gives_up_its_jobs_and_comes_back_as_another_one() -> None:
    with TemporaryDirectory(prefix="joblog-") as name, EmbeddedStack(Path(name), postgres=False) as stack:
        config, names = KafkaConfig(stack.addresses.bootstrap_servers), TopicNames("fence.")
        create_topics(config, names, 1)
        with running(config, names, 1, TaskRegistry.of(obey, add), renew_s=0.5, lease_s=5.0) as it:
            before = it.worker.id
            it.elector.assign("obey")
            it.elector.until(lambda: it.started("obey"))
            stack.kill_broker()
            it.elector.until(lambda: it.worker.id != before)
            assert not it.health.ready
            stack.start_broker()
            it.elector.until(lambda: it.elector.of(WorkerAnnounced)[-1].worker == it.worker.id)
            it.elector.until(lambda: it.health.ready)
            last = it.elector.assign("add", 1)
            assert it.elector.end().job_id == last.job_id
            # Nothing was said of the job that was given up: another worker may have it.
            assert len(it.elector.ends) == 1
