"""Unique keys and parents on the real broker: over lanes, through a take-over, in the tables, and decided anew."""

from typing import Any

import pytest
from joblog.projections.monitor.monitor import Monitor
from joblog.services.cli.app import app
from joblog.services.client.options import JobOptions
from joblog.streams.contract.commands import Unique
from joblog.streams.contract.relations import Need, UniquePolicy
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import DELETED, FINAL_STATES, PROCESSING, SUCCEEDED, ContinueOn
from msgspec import json
from typer.testing import CliRunner

from tests.support.log_comparison import read_log
from tests.support.redecided import decided_anew
from tests.support.scene import queue_in

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(120)]

ONCE = Unique(key="import", policy=UniquePolicy.EXISTING)


def unique(policy: UniquePolicy) -> JobOptions:
    return JobOptions(unique=Unique(key="report", policy=policy))


def test_keys_and_parents_hold_through_a_takeover(installation: Any, wait_until: Any) -> None:
    queues = [queue_in(lane, installation.lanes) for lane in range(installation.lanes)]
    installation.extra["JOBLOG_WORKER__QUEUES"] = ",".join([*queues, "default"])
    for role in ("elector-a", "worker-1", "projector"):
        installation.start(role)
    with installation.client() as client, Monitor(installation.dsn, installation.schema) as monitor:

        def ends(job: str, state: Any) -> Any:
            return wait_until(
                lambda: (seen := monitor.job(job)) and seen.state is state and seen, 40, f"{job} {state}"
            )

        first = client.enqueue("slow", 8, options=JobOptions(unique=ONCE))  # until the next elector has the lanes
        parents = [client.enqueue("ok", n, options=JobOptions(queue=queues[n % len(queues)])) for n in range(3)]
        never = client.schedule("ok", 9, delay=3600)
        last = JobOptions(queue=queues[-1])
        late = client.continue_with([parents[0], first], "told", options=last)
        every = client.continue_with(parents, "told")
        either = client.continue_with(
            [never, parents[1]], "told", need=Need.ANY, options=JobOptions(queue=queues[-1])
        )
        broken = client.enqueue("bad", options=JobOptions(retry=RetryPolicy.none()))
        clean_up = client.continue_with(broken, "told", on=ContinueOn.FAILED, options=last)
        ends(first, PROCESSING)
        second = client.enqueue("ok", 0, options=JobOptions(unique=ONCE))
        old = client.enqueue("slow", 60, options=unique(UniquePolicy.REJECT))
        ends(old, PROCESSING)

        installation.kill("elector-a")
        installation.start("elector-b", JOBLOG_ELECTOR__REMEMBERED="0")  # what ends from here on is forgotten at once
        third = client.enqueue("ok", 0, options=JobOptions(unique=ONCE))
        new = client.enqueue("ok", 5, options=unique(UniquePolicy.REPLACE))

        assert [monitor.wait_for(one, {SUCCEEDED}, 40).id for one in (second, third)] == [first, first]  # type: ignore[union-attr]
        assert [monitor.existing(one) for one in (second, third, first)] == [first, first, None]
        assert new in str(ends(old, DELETED).reason)
        ends(new, SUCCEEDED)
        assert result(ends(every, SUCCEEDED)) == {one: ["Succeeded", n, None] for n, one in enumerate(parents)}
        assert result(ends(late, SUCCEEDED)) == {
            parents[0]: ["Succeeded", 0, None],
            first: ["Succeeded", None, None],
        }
        assert result(ends(either, SUCCEEDED)) == {parents[1]: ["Succeeded", 1, None]}
        assert result(ends(clean_up, SUCCEEDED)) == {broken: ["Failed", None, "never"]}
        doomed = client.continue_with([never, parents[0]], "told")
        client.delete(never)
        assert "condition was not met" in str(ends(doomed, DELETED).reason)
        client.requeue(never, snapshot=monitor.snapshot(never))
        assert result(ends(doomed, SUCCEEDED))[never] == ["Succeeded", 9, None]
        after = [client.continue_with(one, "told", options=last) for one in (doomed, [new, never])]
        assert result(ends(after[0], SUCCEEDED)) == {doomed: ["Succeeded", result(ends(doomed, SUCCEEDED)), None]}
        assert result(ends(after[1], SUCCEEDED))[never] == ["Succeeded", 9, None]
        wait_until(lambda: all(one.state in FINAL_STATES for one in monitor.jobs().items), 20, "all to end")
    sought = [one for one in map(json.decode, log_of(installation)) if one["type"] == "parent.sought"]
    assert {doomed, new, never} <= {one["data"]["parent"] for one in sought}
    assert installation.differences() == []
    assert decided_anew(installation.kafka, installation.names, installation.lanes) > 40
    check_the_commands(installation)


def log_of(installation: Any) -> list[bytes]:
    records = read_log(installation.kafka, installation.names, installation.lanes)
    return [record.value for record in records if record.value is not None]


def result(seen: Any) -> Any:
    return next(entry.data["result"] for entry in seen.history if entry.state is SUCCEEDED)


def check_the_commands(installation: Any) -> None:
    environment = {name: value for name, value in installation.environment().items() if name.startswith("JOBLOG_")}

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, [*arguments, "--output", "json"], env=environment)
        assert done.exit_code == 0, done.output
        return done.stdout

    assert json.decode(run("replay", "verify").splitlines()[-1])["holds"] is True
    held = json.decode(run("enqueue", "slow", "2", "--unique-key", "shell"))["id"]
    again = ["enqueue", "slow", "2", "--unique-key", "shell", "--unique-policy", "existing", "--wait", "30s"]
    assert json.decode(run(*again))["id"] == held
