"""Jobs of all kinds while every role is killed again and again: nothing lost, nothing doubled, all explained."""

from datetime import timedelta
from typing import Any

import pytest

from tests.support.redecided import decided_anew

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(600)]

JOBS = 2_000
#: Jobs come bit by bit, for as long as roles are killed.
PORTIONS = 20
ROLES = ["elector-a", "worker-1", "projector", "delays", "elector-b", "worker-2"]


def portion(client: Any, jobs: int) -> dict[str, str]:
    """Jobs of all kinds, and how each has to end: 80 % well, others after a retry, never, or not at all."""
    twentieth = jobs // 20
    expected = {}
    succeeding = client.enqueue_many("ok", [((number,), {}) for number in range(jobs - 4 * twentieth)])
    expected.update(dict.fromkeys(succeeding, "job.succeeded"))
    expected.update(dict.fromkeys(client.enqueue_many("flaky", [((), {})] * twentieth), "job.succeeded"))
    expected.update(dict.fromkeys(client.enqueue_many("bad", [((), {})] * twentieth), "job.failed"))
    expected.update(dict.fromkeys(client.enqueue_many("slow", [((0.3,), {})] * twentieth), "job.succeeded"))
    for number in range(twentieth):
        deleted = number % 5 == 0
        job = client.schedule("ok", number, delay=timedelta(hours=1) if deleted else timedelta(seconds=1 + number))
        if deleted:
            client.delete(job, reason="changed my mind")
        expected[job] = "job.deleted" if deleted else "job.succeeded"
    return expected


def test_everything_ends_once_while_every_role_is_killed(
    installation: Any, killer: Any, check_log: Any, wait_until: Any
) -> None:
    for role in ROLES:
        installation.start(role)
    order = ["elector-a", "worker-1", "projector", "delays", "elector-b", "worker-2"] * 2 + ["projector", "delays"]
    chaos = killer(installation, order, 1.5)
    chaos.start()
    expected: dict[str, str] = {}
    with installation.client() as client:
        for _ in range(PORTIONS):
            expected.update(portion(client, JOBS // PORTIONS))
            chaos.done.wait(1)

    def ended() -> bool:
        log = installation.events()
        return len(log) == len(expected) and all(
            events[-1]["type"] in {"job.succeeded", "job.deleted", "job.failed"}
            and not events[-1]["data"].get("traversed")
            for events in log.values()
        )

    wait_until(lambda: not chaos.is_alive() or chaos.error, 120, "the killing to end")
    assert not chaos.error, chaos.error
    wait_until(ended, 240, "all jobs to end")
    check_log(installation, expected)
    log = installation.events()
    assert decided_anew(installation.kafka, installation.names, installation.lanes) == sum(map(len, log.values()))
    wait_until(lambda: not installation.differences(), 60, "Postgres to equal the log")
    assert installation.kills == {
        "elector-a": 2,
        "worker-1": 2,
        "projector": 3,
        "delays": 3,
        "elector-b": 2,
        "worker-2": 2,
    }
