"""The hashes of a lane: the log and Postgres make the same, and no column of a row is without influence on them."""

from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Producer
from joblog.projections.replay.verification.tables import SQL
from joblog.streams.contract.ids import new_job_id

from tests.support import projection_settings
from tests.support.projection_events import BEGINNING, Story, worker_event
from tests.support.projection_settings import Setting, interleaved, jobs
from tests.support.replay_world import ReplayWorld

dsn = projection_settings.dsn
setting = projection_settings.setting
writer = projection_settings.writer
pytestmark = [pytest.mark.broker, pytest.mark.database]

#: What another value of a column is; each must change what the statement of its table says of a lane.
CHANGES = {
    "jobs": {
        "id": "gen_random_uuid()",
        "created_at": "created_at + interval '1 us'",
        "changed_at": "changed_at - interval '1 us'",
        "log_offset": "log_offset + 1",
        "version": "version + 1",
        "attempt": "attempt + 1",
        "retry": "retry + 1",
        "priority": "priority + 1",
        "state": "'Deleted'",
        "lane": "lane + 1",
        "queue": "'other'",
        "task": "'other'",
        "state_version": "NULL",
        "lease": "coalesce(lease, 0) + 1",
        "due": "coalesce(due, now()) + interval '1 us'",
        "worker": "coalesce(worker, '') || 'x'",
        "parent": "gen_random_uuid()",
        "continue_on": "'deleted'",
        "exception_type": "coalesce(exception_type, '') || 'x'",
        "exception_message": "coalesce(exception_message, '') || 'x'",
        "parameters": "coalesce(parameters, '{}') || '{\"x\": null}'",
        "spec": "'{}'",
    },
    "history": {
        "job": "gen_random_uuid()",
        "version": "version + 100",
        "last_version": "last_version + 1",
        "events": "ARRAY[replace(events[1], 'Enqueued', 'enqueued')] || events[2:]",
    },
}


@pytest.fixture
def lanes() -> int:
    return 3


@pytest.fixture
def world(setting: Setting, writer: Producer, tmp_path: Path) -> ReplayWorld:
    """Jobs with all that a row can have, also what is rare in a text."""
    made = ReplayWorld(setting, writer, tmp_path)
    due = BEGINNING + timedelta(days=900, microseconds=1)
    parent = Story(lane=1, random=200, queue="q").enqueued()
    odd = {"type": 'a("b\\', "message": "\u00e4\n\x1f\U0001f600", "details": "", "types": []}
    stories = [
        *jobs(60, 3),
        parent,
        Story(lane=2, random=201).awaiting(parent.id),
        Story(lane=0, random=202).scheduled(due).parameter_set("colour", {"red": 1e300, "green": [1e2, True, 1]}),
        Story(lane=0, random=203)
        .enqueued()
        .processing()
        .failed(traversed=True, exception=odd)
        .scheduled(due, retry=1),
        Story(lane=1, random=204, at=BEGINNING + timedelta(microseconds=5)).enqueued().processing(),
        Story(lane=1, random=205, spec={"args": [], "priority": 7, "parameters": {"a": 1.0}}).enqueued(),
        Story(lane=1, random=206).enqueued().deleted().created_again(queue="other").enqueued().processing(),
    ]
    made.write([*interleaved(stories), (0, worker_event("worker.started"))])
    made.apply()
    return made


def test_both_sides_are_equal_and_each_change_is_seen_in_its_lane_only(world: ReplayWorld) -> None:
    report = world.verify("before", with_state=False)
    assert report.findings == []
    assert [one.lane for one in report.lanes] == [0, 1, 2]
    assert sum(one.jobs for one in report.lanes) == report.jobs
    assert all(one.log == one.tables for one in report.lanes)
    with psycopg.connect(world.setting.dsn, options=f"-c search_path={world.setting.schema}") as connection:
        connection.execute("UPDATE jobs SET lease = 77 WHERE lane = 1 AND queue = 'q'")
        connection.execute("UPDATE counts SET n = n + 1 WHERE lane = 2 AND queue = 'q1'")
    after = world.verify("after", with_state=False)
    changed = {
        (one.lane, name)
        for one in after.lanes
        for name in ("rows", "history", "counters")
        if getattr(one.log, name) != getattr(one.tables, name)
    }
    assert changed == {(1, "rows"), (2, "counters")}
    assert [one.log for one in after.lanes] == [one.log for one in report.lanes]


def test_every_column_matters(world: ReplayWorld) -> None:
    with psycopg.connect(world.setting.dsn, options=f"-c search_path={world.setting.schema}") as connection:
        for table, changes in CHANGES.items():
            columns = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
            assert {name for (name,) in connection.execute(columns, (table,))} == set(changes)
            for column, value in changes.items():
                before = hashes(connection)
                # Always the same row: another one may have the value already.
                chosen = f"ctid = (SELECT ctid FROM {table} ORDER BY {table}::text LIMIT 1)"  # noqa: S608
                done = connection.execute(f"UPDATE {table} SET {column} = {value} WHERE {chosen}")  # type: ignore[arg-type]  # noqa: S608
                assert done.rowcount == 1
                assert hashes(connection) != before, f"{table}.{column}"
                connection.rollback()


def test_every_change_of_a_job_is_named(world: ReplayWorld) -> None:
    changed = {}
    more = jobs(3, 3, first=500)
    world.write((story.lane, value) for story in more for value in story.values)
    world.apply()
    with psycopg.connect(world.setting.dsn, options=f"-c search_path={world.setting.schema}") as connection:
        every = connection.execute("SELECT id::text FROM jobs WHERE state = 'Succeeded' ORDER BY id").fetchall()
        following = iter([job for (job,) in every if job != more[0].id])
        for table, key in (("jobs", "id"), ("history", "job")):
            for column, value in CHANGES[table].items():
                job = changed[f"{table}.{column}"] = next(following)
                done = connection.execute(f"UPDATE {table} SET {column} = {value} WHERE {key} = %s", [job])  # type: ignore[arg-type]  # noqa: S608
                assert done.rowcount
        changed["too short"] = more[0].id
        shortened = "UPDATE history SET last_version = 2 WHERE job = %s AND last_version = 3 AND version = 1"
        assert connection.execute(shortened, [more[0].id]).rowcount == 1
    found = {one.job for one in world.verify(with_state=False).findings}
    assert {name for name, job in changed.items() if job not in found} == set()


def hashes(connection: psycopg.Connection) -> list[list[tuple[object, ...]]]:
    return [
        sorted(connection.execute(SQL[name]).fetchall(), key=repr)
        for name in ("row_hashes", "history_hashes", "parameters")
    ]


def test_a_row_that_is_too_much_in_a_lane_that_is_not_there_is_found(world: ReplayWorld) -> None:
    stranger = new_job_id(77, 1, 1)
    with psycopg.connect(world.setting.dsn, options=f"-c search_path={world.setting.schema}") as connection:
        connection.execute(
            "INSERT INTO jobs SELECT (jsonb_populate_record(j, jsonb_build_object('id', %s::text, 'lane', 77))).*"
            " FROM jobs AS j LIMIT 1",
            (stranger,),
        )
    assert {one.job for one in world.verify(with_state=False).findings} == {stranger}
