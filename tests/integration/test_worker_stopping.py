"""The end of a worker: it stops in order, or loses its broker."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from joblog.services.context import CancellationToken
from joblog.services.embedded import EmbeddedStack
from joblog.services.tasks import TaskRegistry, task
from joblog.streams.admin import create_topics
from joblog.streams.kafka import KafkaConfig
from joblog.streams.topics import TopicNames
from joblog.streams.wire import RunReleased, RunSucceeded, WorkerAnnounced, WorkerStopping

from tests.worker_elector import TIMEOUT_S, Elector, Running, running

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
from joblog.services.tasks import task

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


def test_a_workers_process_does_not_outlive_its_grace_time_whatever_its_tasks_do(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, tmp_path: Path
) -> None:
    (tmp_path / "stubborn_tasks.py").write_text(STUBBORN)
    environment = {
        "JOBLOG_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "JOBLOG_TOPIC_PREFIX": topics.prefix,
        "JOBLOG_LANES": str(lanes),
        "JOBLOG_WORKER__GRACE_S": "0.2",
        "JOBLOG_HTTP__ENABLED": "false",
    }
    elector = Elector(kafka, topics, lanes)
    process = subprocess.Popen(
        [sys.executable, "-m", "joblog.services.cli", "worker", "--tasks", "stubborn_tasks", "--slots", "2"],
        env={**os.environ, **environment},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        elector.until(lambda: elector.of(WorkerAnnounced))
        for name in ("stubborn", "stubborn_async"):
            elector.assign(name, str(tmp_path / name))
            elector.until((tmp_path / name).exists)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0
        assert "worker.threads_left" in err
        assert [type(end) for end in (elector.end(1), elector.end(2))] == [RunReleased, RunReleased]
    finally:
        process.kill()
        process.communicate()
        elector.close()


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
