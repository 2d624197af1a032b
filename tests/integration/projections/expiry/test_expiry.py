"""Rows expire on a real database, and verification knows which may be gone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from joblog.projections.expiry.now import expirable, expire_now
from joblog.projections.expiry.passing import expire
from joblog.projections.expiry.rules import Rules, has_expired
from joblog.projections.monitor.monitor import Monitor
from joblog.projections.projector.expiring import Expiring
from joblog.projections.replay.rebuild.place import Place
from joblog.projections.replay.rebuild.rebuild import drop_old, rebuild
from joblog.projections.replay.verification.findings import Finding
from joblog.streams.contract.states import State
from joblog.streams.metrics import Meters

from tests.support import projection_settings
from tests.support.projection_events import BatchStory, Story
from tests.support.projection_settings import Setting, WaitUntil, interleaved, jobs, running, sample
from tests.support.replay_world import ReplayWorld

dsn = projection_settings.dsn
setting = projection_settings.setting
writer = projection_settings.writer
pytestmark = [pytest.mark.broker, pytest.mark.database]

DAY = 86_400.0
RULES = Rules({State.SUCCEEDED: DAY, State.DELETED: DAY, State.FAILED: None}, hours_s=DAY)
NOW = datetime.now(UTC).replace(microsecond=0)
AGO = NOW - timedelta(days=3)


@pytest.fixture
def lanes() -> int:
    return 3


@pytest.fixture
def world(setting: Setting, writer: Producer, tmp_path: Path) -> ReplayWorld:
    return ReplayWorld(setting, writer, tmp_path)


@pytest.fixture
def tables(setting: Setting) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(setting.dsn, options=f"-c search_path={setting.schema}", autocommit=True) as connection:
        yield connection


def passed(world: ReplayWorld, rules: Rules = RULES) -> dict[str, int]:
    at = world.setting
    return {state: n for state, n in expire_now(at.dsn, at.schema, range(at.lanes), rules).items() if n}


def found(world: ReplayWorld, name: str = "verify") -> list[Finding]:
    return world.verify(name, with_state=False).findings


def old_and_new() -> tuple[list[Story], list[Story]]:
    """Jobs that ended three days ago, some of which live or have failed, and jobs of today."""
    old = [
        *(Story(lane=n % 3, random=n, at=AGO).enqueued().processing().succeeded() for n in range(1, 8)),
        Story(lane=0, random=8, at=AGO).enqueued().deleted(),
        Story(lane=1, random=9, at=AGO).enqueued().processing().failed(),
        Story(lane=1, random=10, at=AGO).enqueued(),
        Story(lane=2, random=11, at=AGO, queue="kept").enqueued().processing().succeeded(),
    ]
    new = [Story(lane=n % 3, random=100 + n, at=NOW - timedelta(minutes=9)) for n in range(6)]
    for story in new:
        story.enqueued().processing().succeeded()
    return old, new


def test_what_ended_long_ago_goes_and_all_else_stays(world: ReplayWorld, tables: psycopg.Connection[Any]) -> None:
    old, new = old_and_new()
    world.write(interleaved([*old, *new]))
    world.apply()
    rules = Rules(RULES.states, {"kept": {State.SUCCEEDED: None}}, hours_s=DAY)
    said = expirable(world.setting.dsn, world.setting.schema, range(3), rules)
    assert sorted((one.state, one.queue, one.rows) for one in said) == [
        ("Deleted", "default", 1),
        ("Succeeded", "default", 7),
    ]
    assert passed(world, rules) == {"Succeeded": 7, "Deleted": 1}
    rest = {str(job) for (job,) in tables.execute("SELECT id FROM jobs")}
    assert rest == {story.id for story in [*old[8:], *new]}
    assert {str(job) for (job,) in tables.execute("SELECT job FROM history")} == rest
    [(ever,)] = tables.execute("SELECT sum(n)::int FROM outcomes WHERE period = 'ever'").fetchall()
    assert ever == 16  # those that have ended, whatever became of their rows
    assert tables.execute("SELECT count(*) FROM outcomes WHERE period = 'hour' AND since < %s", [AGO]).fetchone() == (
        0,
    )
    assert found(world) == []
    assert passed(world, rules) == {}


def test_the_statement_deletes_what_the_rule_says(world: ReplayWorld, tables: psycopg.Connection[Any]) -> None:
    stories = [
        Story(lane=n % 3, random=n, at=NOW - timedelta(hours=n), queue=f"q{n % 3}", task=f"t{n % 4}")
        for n in range(1, 60)
    ]
    for n, story in enumerate(stories):
        if n % 3 == 0:
            story.enqueued().deleted()
        elif n % 3 == 1:
            story.enqueued().processing().succeeded()
        else:
            story.enqueued().processing().failed()
    world.write(interleaved(stories))
    world.apply()
    rules = Rules(
        {State.SUCCEEDED: DAY / 2, State.FAILED: DAY},
        {"q1": {State.SUCCEEDED: DAY, State.DELETED: 3_600.0}, "q2": {State.FAILED: None}},
        {"t2": {State.SUCCEEDED: None}, "t3": {State.FAILED: 7_200.0, State.DELETED: DAY}},
    )
    rows = tables.execute("SELECT id::text, state::text, queue, task, changed_at FROM jobs").fetchall()
    for gone in expire(tables, range(3), rules, limit=2):
        assert gone.rows <= 2
    [(until,)] = tables.execute("SELECT DISTINCT until FROM expiry").fetchall()
    left = {job for (job,) in tables.execute("SELECT id::text FROM jobs")}
    assert left == {
        job for job, state, queue, task, at in rows if not has_expired(rules, State(state), queue, task, at, until)
    }
    assert 0 < len(left) < len(rows)
    assert found(world) == []


def test_a_row_that_is_missing_without_having_expired_is_found(
    world: ReplayWorld, tables: psycopg.Connection[Any]
) -> None:
    old, new = old_and_new()
    world.write(interleaved([*old, *new]))
    world.apply()
    passed(world)
    tables.execute("DELETE FROM jobs WHERE id = %s", [new[0].id])
    tables.execute("DELETE FROM history WHERE job = %s", [new[0].id])
    assert {(one.kind, one.job) for one in found(world) if one.kind in {"job", "history"}} == {
        ("job", new[0].id),
        ("history", new[0].id),
    }


def test_more_rows_than_have_expired_are_not_missed(world: ReplayWorld, tables: psycopg.Connection[Any]) -> None:
    old, new = old_and_new()
    world.write(interleaved([*old, *new]))
    world.apply()
    passed(world)
    for story in new[:1]:  # gone by hand, and the record that is to hide it
        tables.execute("DELETE FROM jobs WHERE id = %s", [story.id])
        tables.execute("DELETE FROM history WHERE job = %s", [story.id])
        tables.execute("UPDATE expired SET through = %s WHERE lane = %s", [NOW, story.lane])
    assert ("expiry", new[0].lane) in {(one.kind, one.lane) for one in found(world)}


def test_a_row_that_should_have_gone_and_one_that_may_be_gone_and_differs_are_found(
    world: ReplayWorld, tables: psycopg.Connection[Any]
) -> None:
    old, new = old_and_new()
    world.write(interleaved([*old, *new]))
    world.apply()
    tables.execute("CREATE TABLE saved AS SELECT * FROM jobs WHERE id = %s", [old[0].id])
    tables.execute("CREATE TABLE saved_history AS SELECT * FROM history WHERE job = %s", [old[0].id])
    passed(world)
    tables.execute("INSERT INTO jobs SELECT * FROM saved")
    tables.execute("INSERT INTO history SELECT * FROM saved_history")
    tables.execute("UPDATE counts SET n = n + 1 WHERE lane = %s AND state = 'Succeeded'", [old[0].lane])
    assert [(one.kind, one.job) for one in found(world)] == [("expiry", old[0].id)]
    tables.execute("UPDATE jobs SET attempt = 7 WHERE id = %s", [old[0].id])
    differing = found(world, "again")
    assert sorted((one.kind, one.job) for one in differing) == [("expiry", old[0].id), ("job", old[0].id)]


def test_a_job_that_comes_back_is_shown_from_then_on_and_is_verified(
    world: ReplayWorld, tables: psycopg.Connection[Any]
) -> None:
    old, new = old_and_new()
    back = old[0]
    before = len(back.values)
    world.write(interleaved([*old, *new]))
    world.apply()
    passed(world)
    back.at = NOW - timedelta(minutes=3)
    back.enqueued(reason="once more").parameter_set("colour", "red").processing().succeeded({"n": 1})
    requeued, *rest = back.values[before:]
    requeued = requeued.replace(b'"data":', b'"causationid":"a-command","data":', 1)
    world.write((back.lane, value) for value in [requeued, *rest])
    world.apply()
    with Monitor(world.setting.dsn, world.setting.schema) as monitor:
        job = monitor.job(back.id)
        assert job is not None
        assert (job.state, job.version, job.spec) == (State.SUCCEEDED, 7, None)
        assert [one.version for one in reversed(job.history)] == [4, 5, 6, 7]
        assert monitor.parked(limit=10).items == ()
    assert found(world) == []
    tables.execute("UPDATE jobs SET priority = 9 WHERE id = %s", [back.id])
    assert [(one.kind, one.job) for one in found(world, "changed")] == [("job", back.id)]
    assert passed(world, Rules({State.SUCCEEDED: 60.0})) == {"Succeeded": 7}
    assert tables.execute("SELECT count(*) FROM returned").fetchone() == (0,)
    assert found(world, "gone") == []


def test_a_job_that_came_back_is_as_the_rest_of_the_log_says_where_retention_has_cut_it(
    world: ReplayWorld, tables: psycopg.Connection[Any]
) -> None:
    back = Story(lane=0, random=1, at=AGO).enqueued().processing().succeeded()
    world.write((0, value) for value in back.values)
    world.apply()
    tables.execute("UPDATE offsets SET current_at = now()")
    assert passed(world) == {"Succeeded": 1}
    back.at = NOW - timedelta(minutes=3)
    back.enqueued().processing()
    requeued, *rest = back.values[3:]
    requeued = requeued.replace(b'"data":', b'"causationid":"a-command","data":', 1)
    world.write((0, value) for value in [requeued, *rest])
    world.apply()
    assert tables.execute("SELECT version FROM returned").fetchall() == [(4,)]
    for cut in range(world.written + 1):
        if cut:
            world.cut(0, cut)
        assert found(world, f"cut-{cut}") == []


def test_a_job_whose_first_event_the_tables_refused_may_be_taken_for_one_that_came_back(world: ReplayWorld) -> None:
    """Nobody can tell that no row of it had expired: the verification names nothing that is not wrong."""
    old = Story(lane=0, random=1, at=AGO).enqueued().processing().succeeded()
    refused = Story(lane=0, random=2, at=NOW, spec={"parameters": {"colour": "\x00"}}).enqueued().processing()
    unread = Story(lane=0, random=3, at=NOW).enqueued().processing()
    world.write((0, value) for value in [*old.values, *refused.values[:1], b"?"])
    world.apply()
    assert passed(world) == {"Succeeded": 1}
    world.write((0, story.values[1]) for story in (refused, unread))
    world.apply()
    about = [(one.kind, one.job) for one in found(world)]
    assert sorted(about, key=str) == [("unreadable", None), ("version_gap", unread.id)]


def test_a_job_of_which_no_row_expired_is_not_taken_for_one_that_came_back(world: ReplayWorld) -> None:
    story = Story(lane=0, random=1, at=AGO, task="other").enqueued().processing().succeeded()
    world.write(interleaved(old_and_new()[0]))
    world.apply()
    passed(world)
    world.write((0, value) for value in story.values[1:])
    world.apply()
    with Monitor(world.setting.dsn, world.setting.schema) as monitor:
        assert [one.code for one in monitor.parked(limit=10).items] == ["version_gap"]


def test_a_projector_lets_rows_expire_beside_events_and_not_while_it_is_behind(
    world: ReplayWorld, tables: psycopg.Connection[Any], wait_until: WaitUntil
) -> None:
    old, new = old_and_new()
    world.write(interleaved([*old, *new]))
    meters = world.setting.meters
    expiring = Expiring(Rules({State.SUCCEEDED: DAY}), 0.1, meters, batch_max=3)
    with running(world.setting.projector(expiring=expiring)):
        wait_until(lambda: sample(meters, "joblog_expired_jobs_total", state="Succeeded") == 8, 10, "the expiry")
        more = jobs(30, 3, first=500)
        world.write(interleaved(more))
        wait_until(lambda: world.setting.applied() >= world.written, 10, "the events")
    assert sample(meters, "joblog_expiry_last_run_timestamp_seconds") is not None
    another = Expiring(Rules({State.SUCCEEDED: DAY}), 3_600, Meters())
    another.turn(tables, range(3))  # finds that this was done a moment ago
    assert 3_000 < another.wait_s <= 3_600
    # Whatever the time of day: what the tables have not seen the end of, they do not forget.
    tables.execute("UPDATE offsets SET current_at = %s", [AGO])
    assert passed(world, Rules({State.DELETED: DAY})) == {}
    tables.execute("UPDATE offsets SET current_at = now()")
    assert passed(world, Rules({State.DELETED: DAY})) == {"Deleted": 1}
    assert found(world) == []


def test_tables_that_are_built_anew_have_not_what_has_expired(world: ReplayWorld) -> None:
    old, new = old_and_new()
    world.write(interleaved([*old, *new]))
    world.apply()
    at = world.setting
    place = Place(at.kafka, at.names, at.lanes, at.dsn, at.schema)
    try:
        rebuild(place, processes=1, expiry=RULES)  # compares the new tables with the log, and raises if they differ
        assert found(world) == []
        assert passed(world) == {}
        with Monitor(at.dsn, at.schema) as monitor:
            assert monitor.job(old[0].id) is None
            assert monitor.job(new[0].id) is not None
    finally:
        drop_old(place)


OF_BATCHES = Rules(batches={State.SUCCEEDED: DAY, State.DELETED: DAY, State.FAILED: None})


def test_jobs_of_a_batch_go_as_all_do_and_their_batch_by_a_rule_of_its_own(
    world: ReplayWorld, tables: psycopg.Connection[Any]
) -> None:
    old = BatchStory(lane=1, random=50, at=AGO).told("batch.created", "Processing", total=2)
    new = BatchStory(lane=1, random=51, at=NOW - timedelta(hours=1)).told("batch.created", "Processing", total=1)
    gone = [Story(lane=n, random=n + 1, at=AGO, spec={"batch": old.id}) for n in range(2)]
    parents = {"job_ids": [gone[0].id, gone[1].id]}
    gone.append(Story(lane=0, random=8, at=AGO, spec={"parents": parents}))
    kept = Story(lane=2, random=9, at=NOW - timedelta(hours=1), spec={"batch": new.id, "parents": parents})
    for story in (*gone, kept):
        story.enqueued().processing().succeeded()
    old.told("batch.succeeded", "Succeeded", total=2, created=2, succeeded=2)
    world.write(interleaved([*gone, kept, old, new]))
    world.apply()
    assert found(world, "before") == []
    passed(world)
    assert tables.execute("SELECT count(*) FROM batches").fetchone() == (2,)
    assert found(world, "without jobs") == []
    passed(world, OF_BATCHES)
    assert [str(batch) for (batch,) in tables.execute("SELECT id FROM batches")] == [new.id]
    assert [str(job) for (job,) in tables.execute("SELECT job FROM batch_jobs")] == [kept.id]
    waiting = tables.execute("SELECT parent, job FROM job_parents ORDER BY parent")
    assert [(str(parent), str(job)) for parent, job in waiting] == [(one, kept.id) for one in parents["job_ids"]]
    assert found(world) == []
    tables.execute("UPDATE batches SET succeeded = 7")
    tables.execute("INSERT INTO batch_jobs VALUES (%s, %s, 1)", [new.id, gone[0].id])
    assert sorted(one.what.split(" ", 2)[2] for one in found(world, "after")) == [
        "has not the jobs that were created in it",
        "is not as its last event says",
    ]


def test_batches_without_jobs_expire_and_one_that_is_gone_without_that_is_found(
    world: ReplayWorld, tables: psycopg.Connection[Any]
) -> None:
    batches = [BatchStory(lane=1, random=n, at=AGO).told("batch.created", "Processing") for n in range(4)]
    for story, state in zip(batches, ("Succeeded", "Deleted", "Failed", "Processing"), strict=True):
        story.told(f"batch.{state.lower()}", state) if state != "Processing" else None
    recent = BatchStory(lane=1, random=9, at=NOW - timedelta(hours=1)).told("batch.created", "Processing")
    recent.told("batch.succeeded", "Succeeded")
    world.write(interleaved([*batches, recent]))
    world.apply()
    tables.execute("CREATE TABLE saved AS SELECT * FROM batches WHERE id = %s", [batches[1].id])
    passed(world, OF_BATCHES)
    left = {str(batch) for (batch,) in tables.execute("SELECT id FROM batches")}
    assert left == {one.id for one in (*batches[2:], recent)}
    assert found(world) == []
    batches[0].at = NOW - timedelta(minutes=5)
    batches[0].values.clear()
    batches[0].told("batch.started", "Processing", total=1)  # more was attached: it is there again
    world.write(interleaved([batches[0]]))
    world.apply()
    assert found(world, "again") == []
    tables.execute("INSERT INTO batches SELECT * FROM saved")
    [overdue] = found(world, "overdue")
    assert (overdue.kind, overdue.what.split(" since ")[0]) == ("expiry", f"batch {batches[1].id}: Deleted")
    tables.execute("DELETE FROM batches WHERE id = %s", [batches[1].id])
    tables.execute("DELETE FROM batches WHERE id = %s", [recent.id])  # later than all that have expired
    assert [one.what for one in found(world, "gone")] == [f"batch {recent.id} is not as its last event says"]
    tables.execute("UPDATE expired_batches SET through = now(), n = 0 WHERE state = 'Succeeded'")
    assert [(one.kind, one.lane) for one in found(world, "more")] == [("expiry", 1)]


def test_two_that_let_the_same_rows_expire_at_once_count_each_row_once(
    world: ReplayWorld, tables: psycopg.Connection[Any]
) -> None:
    stories = [Story(lane=n % 3, random=n, at=AGO).enqueued().processing().succeeded() for n in range(300)]
    batches = [
        BatchStory(lane=n % 3, random=1_000 + n, at=AGO).told("batch.created", "Processing") for n in range(60)
    ]
    for story in batches:
        story.told("batch.succeeded", "Succeeded")
    world.write(interleaved([*stories, *batches]))
    world.apply()
    both = Rules(RULES.states, batches=OF_BATCHES.batches)
    begun = Barrier(3)

    def one_pass() -> int:
        at = world.setting
        with psycopg.connect(at.dsn, options=f"-c search_path={at.schema}", autocommit=True) as connection:
            begun.wait(10)
            return sum(gone.rows for gone in expire(connection, range(3), both, limit=7))

    with ThreadPoolExecutor(3) as threads:
        rows = [one.result(30) for one in [threads.submit(one_pass) for _ in range(3)]]
    counts = tables.execute("SELECT (SELECT sum(n) FROM expired), (SELECT sum(n) FROM expired_batches)").fetchone()
    assert sum(rows) == 360
    assert counts == (300, 60)
    assert tables.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    assert found(world) == []
