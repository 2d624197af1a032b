"""A queue that is spread over more and fewer lanes while all is running: its jobs are run wherever they are."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
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
from joblog.streams.contract.queue_settings import QueueSettings
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
KEYED = JobOptions(queue="hot", idempotency_key="k")
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


def test_a_queue_is_spread_over_more_and_fewer_lanes_while_all_is_running(
    stack: StackAddresses, topics: TopicNames, done: list[int], wait_until: Callable[..., Any]
) -> None:
    settings = Settings(
        topic_prefix=topics.prefix,
        lanes=2,
        kafka={"bootstrap_servers": stack.bootstrap_servers},
        worker={"tasks": "shardtasks", "slots": 2},
    )
    first = lane_of_queue("hot", 2)
    with ExitStack() as roles:
        operator = roles.enter_context(Client.from_settings(settings))
        client = roles.enter_context(Client.from_settings(settings))
        numbers = count()

        def lanes() -> set[int]:
            """Of 20 new jobs."""
            jobs = client.enqueue_many("shards.note", [([next(numbers)], {}) for _ in range(20)], HOT)
            return {lane_of_job(job_id) for job_id in jobs}

        assert lanes() == {first}
        keyed = client.enqueue("shards.note", next(numbers), options=KEYED)
        operator.queues.configure("hot", shards=2, by="ann")
        wait_until(lambda: lanes() == {0, 1}, DEADLINE_S, "the client to hear of it")
        assert client.queues.configured() == {"hot": QueueSettings(shards=2, by="ann")}
        assert client.enqueue("shards.note", -1, options=KEYED) == keyed
        operator.queues.configure("hot", shards=None)
        wait_until(lambda: lanes() == {first}, DEADLINE_S, "the client to hear of it again")
        assert client.queues.configured() == {}
        # Elector and worker know of none of this: they find the jobs in the lane that the queue had for a while.
        roles.enter_context(running(wiring.elector(settings), "elector", wait_until))
        roles.enter_context(running(worker.worker(settings), "worker", wait_until))
        created = next(numbers)
        wait_until(lambda: len(done) == created, DEADLINE_S, "all jobs")
        assert sorted(done) == [*range(created)]
