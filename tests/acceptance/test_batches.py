"""A batch over lanes while one of two electors is killed: exact numbers, and one start of what waits for it."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joblog.projections.monitor.monitor import Monitor
from joblog.services.cli.app import app
from joblog.services.client import batch_parts
from joblog.services.client.options import JobOptions
from joblog.streams.contract.states import AWAITING, SUCCEEDED, ContinueOn
from joblog.streams.contract.topics import TopicNames
from msgspec import json
from typer.testing import CliRunner

from tests.acceptance.conftest import Installation
from tests.support.log_comparison import read_log
from tests.support.redecided import decided_anew
from tests.support.scene import queue_in
from tests.support.verified import verified

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(420)]

LANES = 4
QUEUES = [queue_in(lane, LANES) for lane in range(LANES)]


@pytest.fixture
def wide(kafka: Any, stack: Any, prefix: str, schema: str, tmp_path: Path) -> Iterator[Installation]:
    made = Installation(kafka, stack.dsn, TopicNames(prefix), schema, tmp_path, LANES)
    made.extra["JOBLOG_WORKER__QUEUES"] = ",".join(QUEUES)
    yield made
    made.stop()


def batch_events(installation: Installation) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for record in read_log(installation.kafka, installation.names, installation.lanes):
        event = json.decode(record.value)
        if event["type"].startswith("batch."):
            found[event["subject"]].append(event)
    return found


def test_a_batch_is_counted_exactly_while_an_elector_is_killed(
    wide: Installation, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_parts, "PART_JOBS_MAX", 300)
    for role in ("elector-a", "elector-b", "worker-1", "projector"):
        wide.start(role)
    monitor = Monitor(wide.dsn, wide.schema)
    with wide.client() as client, monitor:
        with client.batch("a thousand", in_parts=True) as first:
            for queue in QUEUES:
                first.enqueue_many("ok", [((n,), {}) for n in range(250)], JobOptions(queue=queue))
        waiter = client.continue_batch(first.id, "ok", 0, options=JobOptions(queue=QUEUES[1]))
        with client.batch("afterwards", after_batch=first.id) as second:
            for queue in QUEUES:
                second.enqueue_many("ok", [((n,), {}) for n in range(5)], JobOptions(queue=queue))
        first.commit()  # as after an outcome that nobody knows: nothing is created twice
        wait_until(lambda: (seen := monitor.batch(first.id)) and seen.succeeded >= 100, 40, "some of the jobs")
        wide.kill("elector-a")
        wait_until(lambda: (seen := monitor.batch(second.id)) and seen.state is SUCCEEDED, 60, "the second batch")
        wait_until(lambda: (seen := monitor.job(waiter)) and seen.state is SUCCEEDED, 30, "the continuation")

        for batch, jobs in ((first, 1_000), (second, 20)):
            seen = monitor.batch(batch.id)
            assert seen is not None
            assert (seen.total, seen.created, seen.succeeded, seen.pending) == (jobs, jobs, jobs, 0)
            page = monitor.batch_jobs(batch.id, limit=500)
            assert [job.id for job in page.items] == sorted(batch.job_ids)[:500]
    log = wide.events()
    assert set(log) == {waiter, *first.job_ids, *second.job_ids}
    types = Counter(event["type"] for job in first.job_ids for event in log[job])
    assert types["job.succeeded"] == 1_000
    starts = Counter(event["subject"] for job in (waiter, *second.job_ids) for event in log[job][1:2])
    assert set(starts.values()) == {1}
    assert {log[job][0]["data"]["state"] for job in second.job_ids} == {AWAITING}
    assert {event["type"] for job in second.job_ids for event in log[job][1:2]} == {"job.enqueued"}
    told = batch_events(wide)
    for events in told.values():
        assert [event["data"]["version"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["type"] for event in told[second.id] if event["type"] != "batch.progressed"]
    assert kinds == ["batch.created", "batch.started", "batch.succeeded"]
    assert call(wide, "replay", "verify")[-1]["holds"] is True
    [shown] = call(wide, "batch", "show", first.id)
    assert (shown["succeeded"], shown["pending"], shown["description"]) == (1_000, 0, "a thousand")
    assert [one["id"] for one in call(wide, "batch", "list", "--state", "Succeeded")] == [second.id, first.id]
    assert len(call(wide, "batch", "jobs", second.id, "--state", "Succeeded")) == 20
    [sent] = call(wide, "batch", "cancel", second.id, "--reason", "late")
    assert sent == {"command": "batch.cancel", "batch_id": second.id}
    with Monitor(wide.dsn, wide.schema) as monitor:
        wait_until(lambda: (seen := monitor.batch(second.id)) and seen.cancelled, 30, "the cancelled batch")
    assert call(wide, "batch", "show", first.job_ids[0], code=1) == []


def call(installation: Installation, *arguments: str, code: int = 0) -> list[Any]:
    """The documents that a command prints."""
    environment = {name: value for name, value in installation.environment().items() if name.startswith("JOBLOG_")}
    result = CliRunner().invoke(app, [*arguments, "--output", "json"], env=environment)
    assert result.exit_code == code, result.output
    return [json.decode(line) for line in result.stdout.splitlines()]


def test_ten_thousand_jobs_end_with_exact_counts_while_every_role_is_killed(
    wide: Installation, killer: Any, wait_until: Any, tmp_path: Path
) -> None:
    roles = ["elector-a", "worker-1", "projector", "delays", "elector-b", "worker-2"]
    for role in roles:
        wide.start(role)
    monitor = Monitor(wide.dsn, wide.schema)
    with wide.client() as client, monitor:
        with client.batch("ten thousand") as batch:
            for queue in QUEUES:
                batch.enqueue_many("ok", [((n,), {}) for n in range(2_440)], JobOptions(queue=queue))
                batch.enqueue_many("flaky", [((), {})] * 30, JobOptions(queue=queue))
                batch.enqueue_many("bad", [((), {})] * 30, JobOptions(queue=queue))
        chaos = killer(wide, roles, 1.0)
        chaos.start()
        ended = client.continue_batch(batch.id, "ok", 0, on=ContinueOn.ENDED, options=JobOptions(queue=QUEUES[1]))
        wait_until(lambda: not chaos.is_alive() or chaos.error, 120, "the killing to end")
        assert not chaos.error, chaos.error
        wait_until(lambda: (seen := monitor.job(ended)) and seen.state is SUCCEEDED, 240, "the continuation")
        seen = monitor.batch(batch.id)
        assert seen is not None
        assert (seen.total, seen.created, seen.pending) == (10_000, 10_000, 0)
        assert (seen.succeeded, seen.failed, seen.deleted) == (9_880, 120, 0)
    log = wide.events()
    assert set(log) == {ended, *batch.job_ids}
    last = Counter(log[job][-1]["type"] for job in batch.job_ids)
    assert last == {"job.succeeded": 9_880, "job.failed": 120}
    assert [event["type"] for event in log[ended]].count("job.processing") == 1
    assert max(wide.runs().values()) == 1, "no attempt began twice"
    assert wide.kills == Counter(roles)
    assert decided_anew(wide.kafka, wide.names, wide.lanes) == sum(map(len, log.values()))
    wait_until(lambda: not wide.differences(), 60, "Postgres to equal the log")
    assert verified(wide, tmp_path / "verified").findings == []
