"""Hooks are told of every transition, those of a job in their order, also if their process is killed."""

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from joblog.streams.kafka import clients
from joblog.streams.kafka.last_records import watermarks

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

#: One notes everything; one raises for a task at first, and for another one always.
HOOKS = """
import json, os
from joblog.services import Transition, on_transition

def note(name, transition):
    line = json.dumps([name, transition.job_id, transition.version, transition.state]) + "\\n"
    file = os.open(os.environ["TOLD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)

@on_transition(traversed=True)
def everything(transition: Transition) -> None:
    note("everything", transition)

failures = []

@on_transition(states=["Succeeded", "Failed"])
async def ends(transition: Transition) -> None:
    if transition.task == "bad":
        raise ValueError("this hook does not like it")
    if transition.task == "flaky" and not failures:
        failures.append(1)
        raise ConnectionError("not now")
    note("ends", transition)
"""


def test_every_transition_is_told_in_order_whoever_is_killed(installation: Any, wait_until: Any) -> None:
    told = installation.home / "told"
    (installation.home / "my_hooks.py").write_text(HOOKS)
    variables = {"TOLD": str(told), "JOBLOG_HOOKS__DELAY_S": "0.1", "JOBLOG_HOOKS__ATTEMPTS": "2"}
    variables["JOBLOG_HOOKS__START"] = "earliest"
    for role in ("elector-a", "delays", "worker-1"):
        installation.start(role)
    installation.start("hooks", "--modules", "my_hooks", **variables)

    def lines() -> list[list[Any]]:
        return [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []

    def ends() -> set[tuple[str, str]]:
        return {(job, state) for name, job, _, state in lines() if name == "ends"}

    with installation.client() as client:
        jobs = client.enqueue_many("ok", [((n,), {}) for n in range(150)])
        wait_until(lambda: len(lines()) > 50, 60, "hooks to be told")
        installation.kill("hooks")
        jobs += [client.enqueue("flaky"), client.enqueue("bad")]
        jobs += client.enqueue_many("ok", [((n,), {}) for n in range(50)])
        installation.start("hooks", "--modules", "my_hooks", **variables)

        def missing() -> set[tuple[str, int]]:
            known = {(job, version) for name, job, version, _ in lines() if name == "everything"}
            log = installation.events()
            ended = {job for job, events in log.items() if _has_ended(events)}
            wanted = {(job, event["data"]["version"]) for job, events in log.items() for event in events}
            return (wanted - known) | {(job, 0) for job in set(jobs) - ended}

        wait_until(lambda: not missing(), 60, "all to be told")
        wait_until(lambda: len(ends()) == len(jobs) - 1, 30, "the ends to be told, which are told after that")
        wait_until(lambda: _deadletters(installation), 30, "the dead letter")

    by_job = defaultdict(list)
    for name, job, version, _ in lines():
        if name == "everything":
            by_job[job].append(version)
    for job, versions in by_job.items():
        # After the kill it is told again from the last commit on: the order begins anew there, once.
        steps_back = sum(later <= earlier for earlier, later in pairwise(versions))
        assert steps_back <= 1, (job, versions)
    assert ends() == {(job, "Succeeded") for job in jobs if job != jobs[151]}
    ((code, role, reason),) = set(_deadletters(installation))
    assert (code, role) == ("hook_raised", "hooks")
    assert "my_hooks.ends: ValueError: this hook does not like it" in reason


def _has_ended(events: list[dict[str, Any]]) -> bool:
    last = events[-1]
    return last["type"] in {"job.succeeded", "job.failed"} and not last["data"].get("traversed")


def _deadletters(installation: Any) -> list[tuple[str, str, str]]:
    reader = clients.reader(installation.kafka, "test-deadletters")
    try:
        places = [TopicPartition(installation.names.deadletters, n, 0) for n in range(installation.lanes)]
        count = sum(high - low for low, high in (watermarks(reader, place) for place in places))
        reader.assign(places)
        found = []
        while len(found) < count:
            message = reader.poll(5)
            assert message is not None
            if message.error() is None:
                said = dict(message.headers())
                names = ("joblog-reason-code", "joblog-role", "joblog-reason")
                found.append(tuple(said[name].decode() for name in names))
        return found
    finally:
        reader.close()
