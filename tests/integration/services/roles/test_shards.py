"""A queue that is spread over fewer lanes than before: its jobs in the former lanes are run all the same."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from joblog.services.client.client import Client
from joblog.services.client.options import JobOptions
from joblog.services.embedded.stack import StackAddresses
from joblog.services.roles import wiring, worker
from joblog.services.roles.runner import Builder
from joblog.services.settings.model import Settings
from joblog.streams.contract.ids import lane_of_job, lane_of_queue
from joblog.streams.contract.topics import TopicNames
from joblog.streams.health import Health
from joblog.streams.metrics import Meters

pytestmark = pytest.mark.broker

TASKS = """
from joblog.services.tasks.task import task

DONE = []

@task("shards.note", queue="hot")
def note(n: int) -> None:
    DONE.append(n)
"""
HOT = JobOptions(queue="hot")
DEADLINE_S = 60


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[int]]:
    """What the task has done."""
    (tmp_path / "shardtasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import shardtasks  # noqa: PLC0415 - it was just written

    yield shardtasks.DONE
    sys.modules.pop("shardtasks", None)


@contextmanager
def running(build: Builder, role: str, wait_until: Callable[..., Any]) -> Iterator[Meters]:
    health, stop, meters = Health(role), threading.Event(), Meters()
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(build(meters, health).run, stop)
        try:
            wait_until(lambda: health.ready or ended.done(), DEADLINE_S, f"the {role}")
            yield meters
        finally:
            stop.set()
        ended.result(DEADLINE_S)


def test_jobs_in_lanes_that_a_queue_gave_up_are_run_and_new_ones_are_not_put_there(
    stack: StackAddresses, topics: TopicNames, done: list[int], wait_until: Callable[..., Any]
) -> None:
    def settings(**shards: Any) -> Settings:
        return Settings(
            topic_prefix=topics.prefix,
            lanes=2,
            kafka={"bootstrap_servers": stack.bootstrap_servers},
            worker={"tasks": "shardtasks", "slots": 2},
            **shards,
        )

    def unserved(meters: Meters) -> float:
        return meters.registry.get_sample_value("joblog_unserved_jobs", {"queue": "hot"}) or 0

    wide, narrow = settings(queue_shards={"hot": 2}), settings()
    draining = settings(queue_shards_before={"hot": 2})
    first = lane_of_queue("hot", 2)
    with running(wiring.elector(wide), "elector", wait_until), Client.from_settings(wide) as client:
        created = client.enqueue_many("shards.note", [([n], {}) for n in range(40)], HOT)
    left_behind = [n for n, job_id in enumerate(created) if lane_of_job(job_id) != first]
    assert left_behind, "both lanes have jobs"
    with ExitStack() as roles:
        meters = roles.enter_context(running(wiring.elector(narrow), "elector", wait_until))
        roles.enter_context(running(worker.worker(narrow), "worker", wait_until))
        wait_until(lambda: len(done) == 40 - len(left_behind), DEADLINE_S, "the jobs in the lane that is left")
        assert not set(done) & set(left_behind)
        assert unserved(meters) == len(left_behind)
    with ExitStack() as roles:
        meters = roles.enter_context(running(wiring.elector(draining), "elector", wait_until))
        roles.enter_context(running(worker.worker(draining), "worker", wait_until))
        client = roles.enter_context(Client.from_settings(draining))
        later = client.enqueue_many("shards.note", [([n], {}) for n in range(40, 60)], HOT)
        wait_until(lambda: len(done) == 60, DEADLINE_S, "all jobs")
        assert sorted(done) == [*range(60)]
        assert {lane_of_job(job_id) for job_id in later} == {first}
        assert unserved(meters) == 0
