"""Verification on a real log and database: what was planted is found and named, and nothing else."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from joblog.projections.replay.verification import jobs as comparing
from joblog.projections.replay.verification import log_pass
from joblog.projections.replay.verification.findings import Kind
from joblog.projections.replay.verification.verification import Report
from joblog.streams.contract.ids import new_job_id
from joblog.streams.contract.states import State
from joblog.streams.lane.job import Job
from joblog.streams.progress import Stopped
from msgspec import json

from tests.support import projection_settings
from tests.support.projection_events import (
    BEGINNING,
    ERROR,
    BatchStory,
    Story,
    bulk_events,
    cloud_event,
    queue_event,
    worker_event,
)
from tests.support.projection_settings import Setting, interleaved, jobs
from tests.support.replay_world import ReplayWorld

dsn = projection_settings.dsn
setting = projection_settings.setting
writer = projection_settings.writer
pytestmark = [pytest.mark.broker, pytest.mark.database]


@pytest.fixture
def lanes() -> int:
    return 3


@pytest.fixture
def world(setting: Setting, writer: Producer, tmp_path: Path) -> ReplayWorld:
    return ReplayWorld(setting, writer, tmp_path)


def named(report: Report) -> dict[str, set[str | None]]:
    found: dict[str, set[str | None]] = defaultdict(set)
    for one in report.findings:
        found[one.kind].add(one.job)
    return dict(found)


def all_kinds_of_jobs() -> list[Story]:
    """Jobs of every state, with retries, parameters, continuations, and one that is created twice."""
    due = BEGINNING + timedelta(days=900)
    stories = jobs(60, 3)
    parent = Story(lane=1, random=200).enqueued()
    stories += [
        parent,
        Story(lane=2, random=201).awaiting(parent.id),
        Story(lane=0, random=202).scheduled(due).parameter_set("colour", {"red": 1e300}),
        Story(lane=0, random=203).enqueued().processing().failed(traversed=True).scheduled(due, retry=1),
        Story(lane=1, random=204).enqueued().processing(),
        Story(lane=1, random=205, spec={"args": [], "parameters": {"a": 1}}).enqueued().parameter_set("b", None),
        Story(lane=1, random=207).enqueued().priority_set(7).processing().priority_set(-1).moved("slow"),
        Story(lane=2, random=208).scheduled(due).moved("slow").priority_set(3),
        Story(lane=2, random=209, spec={"parents": {"job_ids": [parent.id, parent.id]}}).enqueued(),
        Story(lane=0, at=datetime(1969, 12, 31, 23, tzinfo=UTC), id=new_job_id(0, 1, 1))
        .enqueued()
        .processing()
        .succeeded(),
        Story(lane=1, random=206).enqueued().deleted().created_again(queue="other").enqueued().processing(),
    ]
    return stories


def limit_event(kind: str, **data: Any) -> bytes:
    return cloud_event("limit.changed", "q1", BEGINNING, {"kind": kind, "key": "q1", "scope": "queue", **data})


def controls() -> list[tuple[int, bytes]]:
    """Queues that are paused, drained and resumed in some lanes, or have limits, and bulk operations."""
    until = (BEGINNING + timedelta(days=9)).isoformat()
    return [
        (0, queue_event("queue.paused", by="ann", reason="why", until=until, drain=True)),
        (1, queue_event("queue.paused", drain=True)),
        (1, queue_event("queue.drained")),
        (2, queue_event("queue.paused")),
        (2, queue_event("queue.resumed")),
        (2, queue_event("queue.paused", "other", by="bob")),
        *((lane, limit_event("semaphore", capacity=4, by="ann", reason="why")) for lane in range(3)),
        (1, limit_event("token_bucket", capacity=9, interval_s=0.5)),
        (2, limit_event("mutex")),
        *((1, value) for value in bulk_events(new_job_id(1, 1, 1))),
        *((2, value) for value in bulk_events(new_job_id(2, 1, 1))[:2]),
        (0, bulk_events(new_job_id(0, 1, 1))[0]),
        (0, bulk_events(new_job_id(0, 1, 2))[2]),  # its beginning is not in the log
    ]


@pytest.mark.parametrize("jobs_max", [60_000, 7])
def test_nothing_is_found_where_all_is_well(
    world: ReplayWorld, jobs_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_pass, "JOBS_MAX", jobs_max)
    stories = all_kinds_of_jobs()
    world.write([*interleaved(stories), (0, worker_event("worker.started")), *controls()])
    world.apply()
    world.keep_state(stories)
    report = world.verify()
    assert report.findings == []
    assert report.holds
    assert (report.jobs, report.events) == (len(stories), world.written)


def test_a_run_that_ends_behind_the_beginning_of_the_log_is_none_that_nobody_had(world: ReplayWorld) -> None:
    runs = Story(lane=0, random=1).enqueued().processing().succeeded()
    failed = Story(lane=0, random=2).enqueued().processing().failed()
    wrong = Story(lane=0, random=3).enqueued().processing()
    wrong.event("job.failed", "Failed", exception=ERROR, lease=7)
    world.write([(0, value) for story in (runs, failed, wrong) for value in story.values])
    world.apply()
    for cut in (2, 5, 8):  # of each job, only its end is left
        world.cut(0, cut)
        found = world.verify(f"cut-{cut}", with_state=False).findings
        known = [(Kind.WRONG_LEASE, wrong.id)] if cut < 8 else []  # as long as the log has the begin of that run
        assert [(one.kind, one.job) for one in found] == known


def rewritten(value: bytes, **data: Any) -> bytes:
    """An event with other data."""
    event = json.decode(value)
    event["data"] |= data
    return json.encode(event)


def test_faults_of_the_log_itself_are_named(world: ReplayWorld) -> None:
    stories = {
        name: Story(lane=n % 3, random=500 + n)
        for n, name in enumerate(
            ["gap", "doubled", "first doubled", "lane", "leases", "wrong lease", "left", "orphan", "unknown parent"]
        )
    }
    ids = {name: story.id for name, story in stories.items()}
    for name in ("gap", "doubled", "first doubled", "lane", "leases", "wrong lease", "left"):
        stories[name].enqueued().processing().succeeded()
    parent = Story(lane=0, random=600).enqueued().processing().succeeded()
    stories["orphan"].awaiting(parent.id)
    stories["unknown parent"].awaiting(new_job_id(0, 1, 1))
    values = {name: [(story.lane, value) for value in story.values] for name, story in stories.items()}
    del values["gap"][1]
    values["doubled"].insert(2, values["doubled"][1])
    values["first doubled"].insert(1, values["first doubled"][0])
    lane, value = values["lane"][2]
    values["lane"][2] = (lane + 1) % 3, value
    second = rewritten(stories["leases"].values[1], version=3, lease=3)
    values["leases"][2:] = [
        (stories["leases"].lane, second),
        (stories["leases"].lane, rewritten(stories["leases"].values[2], version=4, lease=3)),
    ]
    lane, value = values["wrong lease"][2]
    values["wrong lease"][2] = lane, rewritten(value, lease=77)
    again = {"version": 4, "state": "Enqueued", "attempt": 1, "queue": "default", "task": "demo.add"}
    lane = stories["left"].lane
    values["left"].append((lane, cloud_event("job.enqueued", ids["left"], BEGINNING, again)))
    sound = jobs(20, 3)
    world.write(interleaved([*sound, parent]))
    world.write(one for several in values.values() for one in several)
    world.write([(1, b"no JSON")])
    report = world.verify(dsn=None, with_state=False)
    assert named(report) == {
        Kind.VERSION_GAP: {ids["gap"]},
        Kind.DOUBLED_EVENT: {ids["doubled"], ids["first doubled"]},
        Kind.WRONG_LANE: {ids["lane"]},
        Kind.TWO_LEASES: {ids["leases"]},
        Kind.WRONG_LEASE: {ids["gap"], ids["wrong lease"]},
        Kind.LEFT_FINAL: {ids["left"]},
        Kind.ORPHAN: {ids["orphan"], ids["unknown parent"]},
        Kind.UNREADABLE: {None},
    }
    doubled = next(one for one in report.findings if one.job == ids["doubled"])
    assert doubled.lane == stories["doubled"].lane
    assert doubled.position is not None
    assert doubled.position.startswith(f"events/{doubled.lane}@")


def test_a_command_may_leave_a_final_state(world: ReplayWorld) -> None:
    story = Story(lane=1, random=7).enqueued().processing().succeeded().enqueued()
    *before, last = story.values
    commanded = last.replace(b'"datacontenttype"', b'"causationid":"cli-4711","datacontenttype"')
    reported = last.replace(b'"datacontenttype"', b'"causationid":"reports/1@4711","datacontenttype"')
    world.write((1, value) for value in (*before, commanded))
    assert world.verify("first", dsn=None, with_state=False).findings == []
    other = Story(lane=2, random=8).enqueued().processing().succeeded()
    world.write((2, value) for value in other.values)
    world.write([(2, reported.replace(story.id.encode(), other.id.encode()))])
    assert named(world.verify("second", dsn=None, with_state=False)) == {Kind.LEFT_FINAL: {other.id}}


def test_faults_of_the_tables_are_named_with_both_sides(world: ReplayWorld) -> None:
    stories = jobs(40, 3)
    stories.append(
        Story(lane=2, random=41, spec={"parents": {"job_ids": [one.id for one in stories[:2]]}}).enqueued()
    )
    batch = BatchStory(lane=0, random=42).told("batch.created", "Processing")
    stories += [batch, Story(lane=2, random=43, spec={"batch": batch.id}).enqueued()]
    world.write([*interleaved(stories), (0, worker_event("worker.started")), *controls()])
    world.apply()
    changed, missing, extra = stories[0], stories[1], new_job_id(1, 1, 99)
    short, told = stories[2], stories[3]
    with psycopg.connect(world.setting.dsn, options=f"-c search_path={world.setting.schema}") as connection:
        connection.execute("UPDATE jobs SET priority = 3, spec = '{\"args\":[9]}' WHERE id = %s", (changed.id,))
        connection.execute("DELETE FROM jobs WHERE id = %s", (missing.id,))
        connection.execute(
            "INSERT INTO jobs SELECT (jsonb_populate_record(j, jsonb_build_object('id', %s::text))).* FROM jobs AS j"
            " WHERE id = %s",
            (extra, stories[4].id),
        )
        connection.execute("DELETE FROM history WHERE job = %s", (short.id,))
        connection.execute(
            "UPDATE history SET events[1] = replace(events[1], 'Enqueued', 'Deleted') WHERE job = %s", (told.id,)
        )
        connection.execute("UPDATE counts SET n = n + 1 WHERE lane = 2 AND state = 'Succeeded' AND queue = 'q1'")
        connection.execute("UPDATE outcomes SET n = n + 1 WHERE lane = 0 AND period = 'day' AND state = 'Failed'")
        connection.execute("UPDATE workers SET slots = 99")
        connection.execute("UPDATE paused_queues SET until = NULL WHERE lane = 0")
        connection.execute("UPDATE queue_limits SET interval_s = 0.25 WHERE lane = 1")
        connection.execute("DELETE FROM bulk WHERE lane = 1")
        connection.execute("UPDATE job_parents SET parent = job WHERE parent = %s", (stories[0].id,))
        connection.execute("UPDATE batch_jobs SET job = batch")
    report = world.verify(with_state=False)
    found = named(report)
    assert found[Kind.JOB] == {changed.id, missing.id, extra, None}
    assert [one.what for one in report.findings if one.kind is Kind.BATCH] == [
        f"batch {batch.id} has not the jobs that were created in it"
    ]
    assert [one.lane for one in report.findings if "do not wait for the same ones" in one.what] == [2]
    assert found[Kind.HISTORY] == {short.id, told.id}
    others = {Kind.COUNTER, Kind.OUTCOME, Kind.WORKER, Kind.CONTROL, Kind.BATCH}
    assert found.keys() == {Kind.JOB, Kind.HISTORY, *others}
    controlled = [one for one in report.findings if one.kind is Kind.CONTROL]
    assert [(one.lane, one.found is None) for one in controlled] == [(1, True), (0, False), (1, False)]
    one = next(one for one in report.findings if one.job == changed.id)
    assert (one.log["priority"], one.found["priority"], one.found["spec"]) == (0, 3, {"args": [9]})
    counter = next(one for one in report.findings if one.kind is Kind.COUNTER)
    assert (counter.lane, counter.found - counter.log) == (2, 1)
    outcome = next(one for one in report.findings if one.kind is Kind.OUTCOME)
    assert (outcome.lane, outcome.found - outcome.log) == (0, 1)


def test_events_that_the_tables_lack_are_found(world: ReplayWorld) -> None:
    """The log is another one than the tables were made of: an event was put in, another taken out."""
    stories = jobs(30, 3)
    values = interleaved(stories)
    world.write(values)
    world.apply()
    with psycopg.connect(world.setting.dsn, options=f"-c search_path={world.setting.schema}") as connection:
        connection.execute("UPDATE jobs SET version = version - 1 WHERE id = %s", (stories[5].id,))
    report = world.verify(with_state=False)
    assert named(report) == {Kind.JOB: {stories[5].id}}
    assert (report.findings[0].log, report.findings[0].found) == ({"version": 3}, {"version": 2})


def test_faults_of_state_are_named(world: ReplayWorld) -> None:
    stories = all_kinds_of_jobs()
    world.write(interleaved(stories))
    world.apply()
    world.keep_state(stories)
    ended, live, waiting = stories[0], stories[60], stories[62]
    spec = b'{"args":[1,2],"kwargs":{"unit":"m"}}'
    stale = Job(ended.id, ended.queue, ended.task, State.PROCESSING, 2, 1, 0, 0, spec, worker="w", lease=2)
    unknown = Job(new_job_id(2, 5, 5), "q", "t", State.ENQUEUED, 1, 0, 0, 0, spec)
    old = Job(waiting.id, "default", "demo.add", State.SCHEDULED, 1, 0, 0, 0, spec, due_ms=1)
    world.state(ended.lane, ended.id, stale)
    world.state(2, unknown.id, unknown)
    world.state(live.lane, live.id, None)
    world.state(waiting.lane, waiting.id, old)
    world.writer.flush()
    report = world.verify()
    assert named(report) == {Kind.STATE: {ended.id, unknown.id, live.id, waiting.id}}
    one = next(one for one in report.findings if one.job == waiting.id)
    assert (one.log["version"], one.found["version"]) == (2, 1)


def test_a_verification_goes_on_where_it_was_stopped(world: ReplayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_pass, "JOBS_MAX", 10)
    stories = all_kinds_of_jobs()
    values = interleaved(stories)
    world.write(values)
    world.apply()
    world.keep_state(stories)

    def stop(step: str, done: int, _total: int) -> None:
        raise Stopped(f"{step} {done}")

    with pytest.raises(Stopped):
        world.verify(told=stop)
    seen: list[tuple[str, int, int]] = []
    report = world.verify(told=lambda *told: seen.append(told))
    assert report.findings == []
    assert report.events == len(values)


def test_it_can_be_stopped_while_it_compares(world: ReplayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "_TOLD_EVERY", 1)
    stories = jobs(20, 3)
    world.write(interleaved(stories))
    world.apply()

    def stop(step: str, _done: int, _total: int) -> None:
        if step == "comparing":
            raise Stopped(step)

    with pytest.raises(Stopped):
        world.verify(told=stop, with_state=False)
    report = world.verify(with_state=False)
    assert (report.findings, report.jobs) == ([], 20)
