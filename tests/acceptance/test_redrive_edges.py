"""Redrives that meet each other, other people's commands, and a broker that is killed."""

import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from joblog.services.client.options import JobOptions
from joblog.services.embedded.stack import EmbeddedStack
from joblog.services.replay.redriving import Choice, redrive, redriving, undo
from joblog.services.settings.model import Settings
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import State
from joblog.streams.kafka.clients import KafkaConfig

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(300)]

JOBS = 40
NEVER = JobOptions(retry=RetryPolicy.none())


def settings_of(installation: Any) -> Settings:
    return Settings(
        kafka={"bootstrap_servers": installation.kafka.bootstrap_servers},
        topic_prefix=installation.names.prefix,
        lanes=installation.lanes,
        postgres={"dsn": installation.dsn, "schema_name": installation.schema},
    )


def failing(installation: Any, wait_until: Any, count: int = JOBS) -> list[str]:
    """Jobs that have failed, and nobody who would run them again."""
    for role in ("elector-a", "projector", "worker-1"):
        installation.start(role)
    with installation.client() as client:
        jobs: list[str] = client.enqueue_many("bad", [((), {})] * count, NEVER)
    all_in(installation, wait_until, jobs, "job.failed")
    leave(installation, "worker-1")
    return jobs


def all_in(installation: Any, wait_until: Any, jobs: list[str], kind: str) -> None:
    """Wait until these jobs are there in the log, and in the tables."""

    def are() -> bool:
        log = installation.events()
        return all(job in log and log[job][-1]["type"] == kind for job in jobs)

    wait_until(are, 60, f"jobs to be {kind}")
    wait_until(lambda: not installation.differences(), 30, "the projection")


def leave(installation: Any, role: str) -> None:
    process = installation.roles[role]
    process.terminate()
    assert process.wait(30) == 0


def times_put_back(installation: Any, *redrives: str) -> dict[str, int]:
    return {
        job: sum(event["causationid"] == f"redrive/{one}/{job}" for event in events for one in redrives)
        for job, events in installation.events().items()
    }


def test_redrives_and_other_peoples_commands_leave_each_other_alone(installation: Any, wait_until: Any) -> None:
    jobs = failing(installation, wait_until)
    settings = settings_of(installation)

    # Twins: one redrive by two processes at once, and another one of the same jobs beside them.
    with (
        redriving(settings, Choice()) as first,
        redriving(settings, Choice(), first.id) as twin,
        redriving(settings, Choice()) as rival,
        ThreadPoolExecutor() as pool,
    ):
        several = (first, twin, rival)
        assert {one.plan().jobs for one in several} == {JOBS}
        sent = list(pool.map(lambda one: one.send("twice", per_second=100), several))
        done = [one.outcome(count) for one, count in zip(several, sent, strict=True)]
    assert all(one.holds for one in done), done
    assert done[0].put_back == done[1].put_back
    assert done[0].put_back + done[2].put_back == JOBS
    assert times_put_back(installation, first.id, rival.id) == dict.fromkeys(jobs, 1)
    taken = [undo(settings, one) for one in (first.id, rival.id)]
    assert sum(one.deleted for one in taken) == JOBS
    all_in(installation, wait_until, jobs, "job.deleted")

    # A limit holds when the redrive goes on, and an undo leaves alone what another redrive has put back.
    ten = Choice(State.DELETED, limit=10)
    second = redrive(settings, ten, "ten")
    assert (second.sent, second.put_back) == (10, 10)
    again = redrive(settings, ten, "ten", resume=second.redrive)
    assert (again.sent, again.put_back) == (0, 10)
    moved = [undo(settings, one) for one in (first.id, rival.id)]
    assert sum(one.moved for one in moved) == 0  # they were undone before: that is what became of them
    assert sum(one.deleted for one in moved) == JOBS
    log = installation.events()
    back = [job for job in jobs if log[job][-1]["type"] == "job.enqueued"]
    assert len(back) == 10

    # The tables say what was: commands that come first win.
    wait_until(lambda: not installation.differences(), 30, "the projection")
    leave(installation, "projector")
    gone = [job for job in jobs if job not in back]
    with installation.client() as client, redriving(settings, Choice(State.DELETED)) as late:
        assert late.plan().jobs == 30
        for job in gone[:5]:
            client.requeue(job, snapshot=late._monitor.snapshot(job))
        wait_until(lambda: enqueued(installation, gone[:5]), 30, "the requeues")
        done_late = late.outcome(late.send("late"))
    assert (done_late.put_back, sum(done_late.rejected.values()), done_late.holds) == (25, 5, True)

    # Put back, run, failed and put back again: each redrive knows its own.
    installation.start("projector")
    installation.start("worker-2", "--queues", "default")
    all_in(installation, wait_until, jobs, "job.failed")
    third = redrive(settings, Choice(limit=10), "once more")
    assert third.put_back == 10
    all_in(installation, wait_until, jobs, "job.failed")
    assert (undo(settings, second.redrive).started, undo(settings, third.redrive).started) == (10, 10)
    assert all(times <= 1 for times in times_put_back(installation, third.redrive).values())


def enqueued(installation: Any, jobs: list[str]) -> bool:
    log = installation.events()
    return all(log[job][-1]["type"] == "job.enqueued" for job in jobs)


def test_twins_with_other_arguments_create_each_job_once(installation: Any, wait_until: Any) -> None:
    jobs = failing(installation, wait_until, 20)
    settings = settings_of(installation)

    def mapping(_job: Any, _snapshot: Any) -> Any:
        return [], {"number": 1}

    with (
        redriving(settings, Choice()) as first,
        redriving(settings, Choice(), first.id) as twin,
        ThreadPoolExecutor() as pool,
    ):
        assert (first.plan().jobs, twin.plan().jobs) == (20, 20)
        sent = list(pool.map(lambda one: one.send("both", mapping), (first, twin)))
        assert sent == [20, 20]
        assert first.outcome(20).holds
        assert twin.outcome(20).holds
    new = {job: events for job, events in installation.events().items() if job not in jobs}
    made = [events[0]["data"]["spec"]["parameters"]["redriveOf"] for events in new.values()]
    assert sorted(made) == sorted(jobs)


@pytest.fixture
def own_stack() -> Any:
    with TemporaryDirectory(prefix="joblog-redrive-") as directory, EmbeddedStack(Path(directory)) as started:
        yield started


def test_ctrl_c_and_a_broker_that_is_killed_in_the_middle_cost_no_job_and_doubles_none(
    own_stack: EmbeddedStack, install: Any, wait_until: Any
) -> None:
    installation = install(KafkaConfig(own_stack.addresses.bootstrap_servers), own_stack.addresses.dsn)
    jobs = failing(installation, wait_until, 100)
    command = [sys.executable, "-m", "joblog.services.cli", "replay", "redrive", "--reason", "again", "--yes"]

    def started(*more: str) -> tuple[subprocess.Popen[str], str]:
        """A redrive, and its id."""
        process = subprocess.Popen(
            [*command, "--rate", "30/s", "-o", "json", *more], env=installation.environment(), cwd=installation.home,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        return process, next(found[1] for line in process.stderr if (found := re.search(r"--resume (r\S+)", line)))

    process, one = started()
    wait_until(lambda: sum(times_put_back(installation, one).values()) > 5, 60, "some to be put back")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert f"go on with --resume {one}, or take back with `joblog replay undo {one}`" in said
    before = sum(times_put_back(installation, one).values())
    process, _ = started("--resume", one)
    wait_until(lambda: sum(times_put_back(installation, one).values()) > before + 5, 60, "more to be put back")
    own_stack.kill_broker()
    own_stack.start_broker()
    process.communicate(timeout=150)  # it may go on, or give up and name the id

    def finished() -> Any:
        done = subprocess.run(
            [*command, "--resume", one, "-o", "json"], env=installation.environment(), cwd=installation.home,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        return done.returncode == 0 and json.loads(done.stdout or "{}")

    wait_until(finished, 120, "the redrive to be finished")
    assert times_put_back(installation, one) == dict.fromkeys(jobs, 1)
