"""Functions that misbehave, on a real broker: their partitions go on, and others are not held up."""

import json
import sys
import time
from contextlib import closing
from typing import Any

import pytest
from joblog.services.testing import InMemoryJoblog
from joblog.streams.kafka import clients
from joblog.streams.kafka.last_records import last_records

from tests.support.trigger_scene import DEADLINE_S, Scene

pytestmark = pytest.mark.broker

#: One function of each kind; an event names what it wants of the first or the second.
FUNCTIONS = """
import asyncio, sys, threading, time
from pathlib import Path
from joblog.services import Job, JobOptions, trigger

class OwnError(BaseException):
    pass

class Lazy:
    def __iter__(self):
        raise OSError("away")

def block(event):
    Path(event.data["file"]).touch()
    while not Path(event.data["until"]).exists():
        time.sleep(0.05)

def act(event):
    what = event.data["do"]
    if what == "job":
        return Job("done", event.data["number"])
    if what == "raise":
        raise ValueError("always")
    if what == "exit":
        sys.exit(3)
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "own error":
        raise OwnError("mine")
    if what == "stop":
        raise StopIteration
    if what == "number":
        return 5
    if what == "lazy":
        return Lazy()
    if what == "many":
        return [Job("many", number) for number in range(10_000)]
    if what == "too many":
        return (Job("many", number) for number in range(10_001))
    if what == "too large":
        return Job("large", "x" * 1_100_000)
    if what == "cyclic":
        value = []
        value.append(value)
        return Job("cyclic", value)

@trigger(topic="{topic}", type="sync")
def sync_one(event):
    if event.data["do"] == "block":
        block(event)
    return act(event)

@trigger(topic="{topic}", type="async")
async def async_one(event):
    if event.data["do"] == "wait":
        Path(event.data["file"]).touch()
        await asyncio.sleep(600)
    if event.data["do"] == "block":
        block(event)
    if event.data["do"] == "cancel":
        raise asyncio.CancelledError
    return act(event)
"""

#: What becomes of an event for a function that does this: the reason of its dead letter, and what it says.
PARKED = {
    "raise": ("function_raised", "ValueError: always"),
    "exit": ("function_raised", "3"),
    "interrupt": ("function_raised", "KeyboardInterrupt"),
    "own error": ("function_raised", "OwnError: mine"),
    "stop": ("function_raised", "StopIteration"),
    "lazy": ("function_raised", "OSError: away"),
    "number": ("not_a_job", "it returned int 5"),
    "too many": ("not_a_job", "more than 10000 jobs"),
    "too large": ("not_a_job", "client.args_bytes_max"),
    "cyclic": ("not_a_job", "cannot be written as JSON"),
}


def send(scene: Scene, kind: str, partition: int, **data: Any) -> None:
    headers = [
        (f"ce_{name}", text)
        for name, text in {
            "specversion": "1.0",
            "id": f"{kind} {time.monotonic_ns()}",
            "source": "/x",
            "type": kind,
        }.items()
    ]
    scene.producer.produce(scene.topic, json.dumps(data), partition=partition, headers=headers)


def done(scene: Scene) -> list[Any]:
    return [one["data"]["args"][0] for one in scene.commands() if one["data"]["task"] == "done"]


def in_memory(scene: Scene) -> InMemoryJoblog:
    """The same records, published to the same functions in memory."""
    joblog = InMemoryJoblog(sys.modules[scene.module], lanes=scene.lanes)
    with closing(clients.reader(scene.kafka, f"{scene.names.prefix}test")) as reader:
        for one in last_records(reader, scene.topic, 1_000, DEADLINE_S):
            joblog.publish(scene.topic, one.value(), headers=one.headers())
    return joblog


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_a_function_does_wrong_is_parked_and_its_partition_goes_on(
    scene: Scene, kind: str, wait_until: Any
) -> None:
    scene.use(FUNCTIONS)
    scene.create_topic()
    wanted = PARKED | ({"cancel": ("function_raised", "it was cancelled")} if kind == "async" else {})
    for number, what in enumerate(wanted):
        send(scene, kind, 0, do=what)
        send(scene, kind, 0, do="job", number=number)
    scene.flush()
    with scene.running(delay_s=0.01) as (health, _, running):
        wait_until(lambda: done(scene) == list(range(len(wanted))), DEADLINE_S, "the jobs in between")
        assert not running.done()
        wait_until(lambda: health.ready, DEADLINE_S, "readiness")
    parked = {int(said["joblog-offset"]): said for said in scene.parked()}
    assert len(parked) == len(wanted)
    for offset, (code, told) in zip(range(0, 2 * len(wanted), 2), wanted.values(), strict=True):
        assert parked[offset]["joblog-reason-code"] == code
        first = parked[offset]["joblog-reason"].splitlines()[0]
        assert first.startswith(f"{scene.module}.{kind}_one: ")
        assert told in first
    simulated = in_memory(scene)
    assert [job.id for job in simulated.jobs()] == scene.created_ids()
    assert [(one.offset, one.code, one.reason.splitlines()[0]) for one in simulated.parked] == [
        (offset, said["joblog-reason-code"], said["joblog-reason"].splitlines()[0])
        for offset, said in sorted(parked.items())
    ]


def test_functions_that_block_hold_up_no_other_partition(
    scene: Scene, tmp_path: Any, wait_until: Any, request: pytest.FixtureRequest
) -> None:
    scene.use(FUNCTIONS)
    blocked = 24  # more than a pool of threads usually has
    scene.create_topic(partitions=blocked + 4)
    files = [tmp_path / f"blocked {number}" for number in range(blocked + 2)]
    until = tmp_path / "until"
    request.addfinalizer(until.touch)  # Python does not end before the threads
    for number in range(blocked):
        send(scene, "sync", number, do="block", file=str(files[number]), until=str(until))
    send(scene, "async", blocked, do="wait", file=str(files[blocked]))
    scene.flush()
    with scene.running() as (health, _, _running):
        wait_until(lambda: all(file.exists() for file in files[:-1]), DEADLINE_S, "all to block")
        send(scene, "async", blocked + 1, do="block", file=str(files[-1]), until=str(until))
        scene.flush()
        wait_until(files[-1].exists, DEADLINE_S, "the loop of async functions to be blocked")
        send(scene, "sync", blocked + 2, do="many")
        send(scene, "sync", blocked + 3, do="job", number=1)
        scene.flush()
        wait_until(lambda: done(scene) == [1], DEADLINE_S, "the job of another partition")
        wait_until(lambda: len(scene.commands()) == 10_001, DEADLINE_S, "all jobs of another partition")
        assert (health.ready, health.alive) == (True, True)
    assert scene.parked() == []
