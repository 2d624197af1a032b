"""What-if against the truth: the same jobs really run with the other policy end in the same states and attempts."""

import json
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest
from joblog.services.client.options import JobOptions
from joblog.streams.contract.retry import Curve, Retry, RetryPolicy
from joblog.streams.lane.filters import FilterChain, RetryFilter
from joblog.streams.replay.history import Histories
from joblog.streams.replay.log import EventReader
from joblog.streams.replay.what_if import WhatIf

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
