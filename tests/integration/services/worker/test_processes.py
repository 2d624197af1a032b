"""Process-isolated tasks on a real broker."""

import os
import secrets
import signal
from pathlib import Path

import msgspec
import psutil
import pytest
from joblog.services.tasks.task import TaskRegistry, task
from joblog.services.worker.worker import Worker
from joblog.streams.contract.topics import TopicNames
from joblog.streams.contract.wire import CancelJob, RunFailed, RunSucceeded
from joblog.streams.errors import SettingsError
from joblog.streams.health import Health
from joblog.streams.kafka.clients import KafkaConfig
from joblog.streams.metrics import Meters

from tests.support.worker_elector import running

pytestmark = pytest.mark.broker

#: Processes find tasks by importing them, which this file cannot be.
PROCESS_TASKS = """
import asyncio, os, time
from joblog.services.tasks.context import current_job
from joblog.services.tasks.task import task

@task("p.pid", isolation="process")
def pid() -> list: return [os.getpid(), current_job().attempt]

@task("p.pid_async", isolation="process")
async def pid_async() -> list:
    await asyncio.sleep(0)
    return [os.getpid(), current_job().attempt]

@task("p.fail", isolation="process")
def fail() -> None: raise LookupError("not here")

@task("p.spin", isolation="process", timeout=0.5)
def spin(mark: str = os.devnull) -> None:
    with open(mark, "w") as file: file.write(str(os.getpid()))
    while True: time.sleep(0.01)

@task("p.hold", isolation="process")
def hold(mark: str, gate: str) -> str:
    with open(mark, "w") as file: file.write(str(os.getpid()))
    while not os.path.exists(gate): time.sleep(0.01)
    return "done"

@task("p.crash", isolation="process")
def crash() -> None: os._exit(7)
"""


@pytest.fixture
def process_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TaskRegistry:
    module = f"process_tasks_{secrets.token_hex(4)}"
    (tmp_path / f"{module}.py").write_text(PROCESS_TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    return TaskRegistry.load(module)


def test_runs_in_processes_are_reported_as_others_and_can_be_killed(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, process_tasks: TaskRegistry, tmp_path: Path
) -> None:
    # One test, as each worker's processes take seconds to start.
    with running(kafka, topics, lanes, process_tasks, slots=2) as it:
        elector = it.elector
        elector.assign("p.pid")
        pid, attempt = msgspec.json.decode(elector.end(1).result)
        assert (pid != os.getpid(), attempt) == (True, 1)

        elector.assign("p.pid_async")
        assert msgspec.json.decode(elector.end(2).result)[0] != os.getpid()

        elector.assign("p.fail")
        exception = elector.end(3).exception
        assert (exception.type, exception.message) == ("LookupError", "not here")
        assert "in fail" in exception.details

        elector.assign("p.spin")
        report = elector.end(4)
        assert report.exception.type == "joblog.streams.errors.JobTimeout"
        assert report.duration_ms >= 500

        elector.assign("p.crash")
        exception = elector.end(5).exception
        assert exception.type == "joblog.services.worker.execution.processes.ProcessEnded"
        assert exception.message.endswith("exit code 7")

        mark = tmp_path / "spinning"
        spinning = elector.assign("p.spin", str(mark), timeout_s=600)
        child = int(elector.until(lambda: mark.exists() and mark.read_text()))
        elector.write(CancelJob(job_id=spinning.job_id, lease=1, reason="deleted"))
        elector.until(lambda: not psutil.pid_exists(child))
        elector.assign("p.pid")
        assert isinstance(elector.end(6), RunSucceeded)
        assert len(elector.ends) == 6


def test_a_process_that_is_killed_costs_the_job_in_it_and_no_other(
    kafka: KafkaConfig, topics: TopicNames, lanes: int, process_tasks: TaskRegistry, tmp_path: Path
) -> None:
    with running(kafka, topics, lanes, process_tasks, slots=3) as it:
        gate, marks = tmp_path / "gate", [tmp_path / f"mark-{number}" for number in range(3)]
        victim, *others = [it.elector.assign("p.hold", str(mark), str(gate)) for mark in marks]
        it.elector.until(lambda: all(mark.exists() and mark.read_text() for mark in marks))
        os.kill(int(marks[0].read_text()), signal.SIGKILL)
        failed = it.elector.end()
        assert (type(failed), failed.job_id) == (RunFailed, victim.job_id)
        assert failed.exception.message == "the process of the run ended with exit code -9"
        gate.touch()
        it.elector.end(3)
        assert [type(end) for end in it.elector.ends[1:]] == [RunSucceeded, RunSucceeded]
        assert {end.job_id for end in it.elector.ends[1:]} == {job.job_id for job in others}


def test_a_task_that_a_process_could_not_find_is_refused_at_the_start(kafka: KafkaConfig, topics: TopicNames) -> None:
    @task("p.local", isolation="process")
    def local() -> None: ...

    with pytest.raises(SettingsError, match=r"p\.local is to run in a process"):
        Worker(
            kafka,
            topics,
            1,
            TaskRegistry.of(local),
            queues=["default"],
            meters=Meters(),
            health=Health("worker"),
        )
