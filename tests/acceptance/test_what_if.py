"""What-if against the truth: the same jobs really run with the other policy end in the same states and attempts."""

import json
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest
from joblog.services.client.client import Client
from joblog.services.client.options import JobOptions
from joblog.services.replay.what_if import Change, what_if
from joblog.services.settings.model import Settings
from joblog.streams.contract.relations import Need
from joblog.streams.contract.retry import Curve, Retry, RetryPolicy
from joblog.streams.contract.states import ContinueOn
from joblog.streams.lane.filters import FilterChain, RetryFilter
from joblog.streams.replay.history import Histories
from joblog.streams.replay.log import EventReader
from joblog.streams.replay.outcomes import UNKNOWN
from joblog.streams.replay.what_if import WhatIf

from tests.support.log_comparison import read_log

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(180)]

#: One that succeeds at once, one on its second attempt, one never.
KINDS = [("ok", (1,)), ("flaky", ()), ("bad", ())] * 4
ENDS = {"job.succeeded", "job.failed"}


def policy(attempts: int) -> RetryPolicy:
    return RetryPolicy.fixed(0.1, attempts=attempts) if attempts else RetryPolicy.none()


def simulated(installation: Any, retry: Retry) -> dict[str, tuple[str, int, int]]:
    """State, attempt and assumed runs of each job in the log."""
    what_if = WhatIf(FilterChain([RetryFilter()]), retry)
    found = {}
    with closing(EventReader(installation.kafka, installation.names.events, 2, client_id="what-if")) as reader:
        for lane in range(2):
            jobs = Histories()
            events = reader.events(lane, *reader.bounds(lane))
            for history in [one for event in events for one in jobs.take(event)] + list(jobs):
                end = what_if.of(history)
                found[history.job.id] = (f"job.{end.job.state.lower()}", end.job.attempt, end.assumed)
    return found


def test_fewer_and_more_retries_end_as_if_they_had_been_there(installation: Any, wait_until: Any) -> None:
    for role in ("elector-a", "delays", "worker-1"):
        installation.start(role)
    jobs: dict[int, list[str]] = {}
    with installation.client() as client:
        for attempts in (1, 0, 2):
            options = JobOptions(retry=policy(attempts))
            jobs[attempts] = [client.enqueue(name, *args, options=options) for name, args in KINDS]

        def ended() -> Any:
            log = installation.events()
            last = {job: events[-1] for job, events in log.items()}
            over = len(last) == 3 * len(KINDS) and all(
                one["type"] in ENDS and not one["data"].get("traversed") for one in last.values()
            )
            return {job: (one["type"], one["data"]["attempt"]) for job, one in last.items()} if over else None

        really = wait_until(ended, 60, "all jobs to end")
    for attempts in (0, 1, 2):
        retry = Retry(attempts=attempts, curve=Curve.FIXED, delays_s=(0.1,))
        found = simulated(installation, retry)
        assert [found[job][:2] for job in jobs[1]] == [really[job] for job in jobs[attempts]], attempts
        assumed = {"ok": 0, "flaky": 0, "bad": max(attempts - 1, 0)}
        assert [found[job][2] for job in jobs[1]] == [assumed[name] for name, _ in KINDS]
    check_the_command(installation)


def check_the_command(installation: Any) -> None:
    """Without retries: of the 36 jobs 20 made one or two retries, of which 8 succeeded by them."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "joblog.services.cli",
            "replay",
            "what-if",
            "--retry",
            '{"attempts": 0}',
            "-o",
            "json",
        ],
        env=installation.environment(),
        cwd=installation.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["jobs"], report["changed"], report["assumed_runs"]) == (36, 8, 0)
    assert report["retries"] == {"recorded": 20, "simulated": 0, "saved": 20, "added": 0}
    assert report["waiting_s"]["saved"] == pytest.approx(2.0)
    assert report["runs"] == {"recorded": 56, "simulated": 36, "saved": 20, "added": 0}
    assert report["ends"][0] | {"samples": []} == {
        "task": "flaky", "recorded": "Succeeded", "simulated": "Failed", "assumed": False, "jobs": 8, "samples": [],
    }  # fmt: skip
    assert sum(row["recorded"] for row in report["load"]) == 56


#: What follows a parent: the place of what it waits for among the others (None: the parent), and for which end.
FAMILY = [(None, ContinueOn.SUCCEEDED), (None, ContinueOn.FAILED), (0, ContinueOn.SUCCEEDED)]


def test_continuations_end_as_if_their_parents_had_had_one_retry_fewer(
    installation: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joblog.streams.replay.outcomes.SAMPLES_MAX", 1_000)
    installation.start("elector-a")
    installation.start("delays")
    installation.start("worker-1", "--queues", "default,q0,q1,q2")
    with installation.client() as client:
        families = {
            attempts: [family(client, name, args, policy(attempts)) for name, args in KINDS] for attempts in (1, 0)
        }
        relatives = {attempts: relatives_of(client, policy(attempts)) for attempts in (1, 0)}

        def ended() -> Any:
            log = installation.events()
            over = {job: state_of(log, job) for several in families.values() for one in several for job in one}
            return all(over.values()) and over

        really = wait_until(ended, 60, "all jobs to end, or to wait for what has failed")
        for attempts, jobs in relatives.items():
            wait_until(lambda jobs=jobs, n=attempts: states_of(installation, jobs) == RELATIVES[n], 60, "their ends")
    settings = Settings(
        kafka={"bootstrap_servers": installation.kafka.bootstrap_servers},
        topic_prefix=installation.names.prefix,
        lanes=installation.lanes,
    )
    report = what_if(settings, Change(retry=policy(0)))
    found = {
        job: row["simulated"] for name in ("ends", "batch_ends") for row in report[name] for job in row["samples"]
    }
    simulated_of = {name: found[job] for name, job in relatives[1].items()}
    assert simulated_of == RELATIVES[0] | {"clean": UNKNOWN}  # it never ran
    assert (report["batches_of_changed"], report["batches_changed"], report["batches_not_followed"]) == (2, 2, 0)
    unknown = 0
    for simulated, real in zip(families[1], families[0], strict=True):
        for one, other in zip(simulated, real, strict=True):
            if found[one] == UNKNOWN:
                unknown += 1
                assert really[one] == "Deleted"  # so the log cannot know what its run would have done
                assert really[other] == "Succeeded"
            else:
                assert found[one] == really[other]
    clean_ups = sum(name == "flaky" for name, _ in KINDS)
    assert unknown == clean_ups
    assert report["would_have_run_outcome_unknown"] == clean_ups + 1
    assert report["continuations_changed"] == 3 * clean_ups + sum(
        RELATIVES[0][name] != RELATIVES[1][name] for name in WAIT
    )


def family(client: Client, name: str, args: Any, retry: RetryPolicy) -> list[str]:
    """A job and its continuations, all in lanes as their queues have it."""
    parent = client.enqueue(name, *args, options=JobOptions(retry=retry))
    made: list[str] = []
    for number, (after, on) in enumerate(FAMILY):
        options = JobOptions(queue=f"q{number}")
        made.append(client.continue_with(parent if after is None else made[after], "ok", 1, on=on, options=options))
    return [parent, *made]


def state_of(log: dict[str, Any], job: str) -> str:
    """How a job ended, or that it waits for one that did not succeed; empty while that is not decided."""
    if job not in log:
        return ""
    last = log[job][-1]
    data = last["data"]
    if last["type"] in {*ENDS, "job.deleted"} and not data.get("traversed"):
        return str(data["state"])
    return (
        "Awaiting" if data["state"] == "Awaiting" and state_of(log, data["parent"]) in {"Failed", "Awaiting"} else ""
    )


#: How a batch, what is in it, and what waits for them end with one retry, and with none; those that wait.
RELATIVES = {
    1: dict.fromkeys(("a", "b", "c", "inner", "outer", "next", "always", "all", "any", "one"), "Succeeded")
    | {"clean": "Deleted"},
    0: {
        "a": "Succeeded", "b": "Failed", "c": "Failed", "inner": "Failed", "outer": "Failed", "next": "Awaiting",
        "always": "Succeeded", "clean": "Succeeded", "all": "Awaiting", "any": "Succeeded", "one": "Awaiting",
    },
}  # fmt: skip
WAIT = ("next", "always", "clean", "all", "any", "one")


def relatives_of(client: Client, retry: RetryPolicy) -> dict[str, str]:
    """A batch with a batch in it, what waits for these, and what waits for several of their jobs, by name."""
    options = JobOptions(retry=retry)
    with client.batch("outer") as outer:
        made = {"a": outer.enqueue("ok", 1, options=options), "b": outer.enqueue("flaky", options=options)}
        with outer.batch("inner") as inner:
            made["c"] = inner.enqueue("flaky", options=JobOptions(retry=retry, queue="q1"))
    made |= {"outer": outer.id, "inner": inner.id}
    for name, on in (("next", ContinueOn.SUCCEEDED), ("always", ContinueOn.ENDED), ("clean", ContinueOn.FAILED)):
        made[name] = client.continue_batch(outer.id, "ok", 1, on=on)
    for name, parents, need in (("all", "abc", Need.ALL), ("any", "ab", Need.ANY), ("one", "bc", Need.ANY)):
        made[name] = client.continue_with([made[parent] for parent in parents], "ok", 1, need=need)
    return made


def states_of(installation: Any, made: dict[str, str]) -> dict[str, str]:
    """Where these jobs and batches are, by the log."""
    last = {}
    for record in read_log(installation.kafka, installation.names, installation.lanes):
        event = json.loads(record.value)
        if "state" in event["data"]:
            last[event["subject"]] = event["data"]["state"]
    return {name: last.get(one, "") for name, one in made.items()}
