"""Jobs of every kind of transition, decided anew from their events alone: the same events come out."""

from datetime import timedelta
from typing import Any

import pytest
from joblog.services.client.options import JobOptions
from joblog.streams.contract.retry import RetryPolicy
from joblog.streams.contract.states import ContinueOn, State

from tests.support.redecided import decided_anew

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(180)]

#: One lost run at once, the next is a failure.
FRAGILE = JobOptions(retry=RetryPolicy.fixed(0.1, attempts=3, lost_max=1))
#: How those that wait for a Failed job go on, by what they wait for.
CHILDREN = {
    ContinueOn.SUCCEEDED: "job.awaiting",
    ContinueOn.DELETED: "job.awaiting",
    ContinueOn.FAILED: "job.succeeded",
    ContinueOn.FINISHED: "job.awaiting",
    ContinueOn.ENDED: "job.succeeded",
}


def test_every_event_is_decided_anew_from_the_log_alone(installation: Any, wait_until: Any) -> None:
    for role in ("elector-a", "delays", "worker-1"):
        installation.start(role)
    with installation.client() as client:
        fine = client.enqueue("ok", 1)
        flaky = client.enqueue_many("flaky", [((), {})] * 10)
        bad = client.enqueue_many("bad", [((), {})] * 10)
        jittered = client.enqueue(
            "bad", options=JobOptions(retry=RetryPolicy.exponential(base_s=0.5, jitter=0.9, max_s=2, attempts=3))
        )
        ignored = client.enqueue("bad", options=JobOptions(retry=RetryPolicy.fixed(1, only_on=("KeyError",))))
        dropped = client.enqueue("bad", options=JobOptions(retry=RetryPolicy.fixed(0, on_exceeded="delete")))
        slow = client.enqueue_many("slow", [((3,), {})] * 4)
        doomed = client.enqueue_many("slow", [((8,), {})] * 2, FRAGILE)
        cancelled = client.enqueue("slow", 60)
        children = {on: client.continue_with(bad[0], "ok", 0, on=on) for on in ContinueOn}
        later = client.schedule("ok", 2, delay=timedelta(seconds=2))
        never = client.schedule("ok", 3, delay=timedelta(hours=1))
        moved = client.schedule("ok", 4, delay=timedelta(hours=1))
        client.set_parameter(never, "note", {"a": [1, 2.5]}, reason="told")
        client.delete(never, reason="unwanted")
        client.reschedule(moved, delay=1, reason="sooner")

        def are(wanted: dict[str, str]) -> bool:
            log = installation.events()
            return all(log.get(job) and log[job][-1]["type"] == kind for job, kind in wanted.items())

        wait_until(lambda: are(dict.fromkeys([*doomed, cancelled], "job.processing")), 60, "the slow ones to start")
        client.delete(cancelled, reason="cancelled")
        installation.kill("worker-1")
        installation.start("worker-2")
        wait_until(lambda: are(dict.fromkeys([fine, later, moved, *flaky], "job.succeeded")), 60, "these to succeed")
        wait_until(lambda: are(dict.fromkeys([*bad, jittered, ignored], "job.failed")), 60, "these to fail")
        client.requeue(bad[1], reason="again")
        client.reschedule(bad[2], delay=0.5, expected_state=State.FAILED)
        client.delete(bad[3])
        wait_until(lambda: are({bad[3]: "job.deleted", dropped: "job.deleted"}), 60, "the deletions")
        wait_until(lambda: are(dict.fromkeys(doomed, "job.processing")), 60, "the long ones to run again")
        installation.kill("worker-2")
        installation.kill("elector-a")
        installation.start("elector-a")
        installation.start("worker-3")
        ends = dict.fromkeys([fine, later, moved, *flaky, *slow, *doomed], "job.succeeded")
        ends |= dict.fromkeys([bad[0], *bad[4:], bad[1], bad[2], jittered, ignored], "job.failed")
        ends |= dict.fromkeys([bad[3], dropped, never, cancelled], "job.deleted")
        ends |= {children[on]: kind for on, kind in CHILDREN.items()}
        wait_until(lambda: are(ends), 90, "all to end")
        log = installation.events()
    reasons = {event["data"].get("reason") or "" for events in log.values() for event in events}
    assert any("was lost" in reason for reason in reasons)
    assert any("Retry attempt 1 of 3: Worker" in reason for reason in reasons), "a lost run that counted"
    assert decided_anew(installation.kafka, installation.names, installation.lanes) == sum(map(len, log.values()))
