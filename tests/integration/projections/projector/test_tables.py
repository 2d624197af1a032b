"""Batches into a real Postgres, by example."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from joblog.projections.projector.event_batch import Entries
from joblog.projections.projector.rows import job_row
from joblog.projections.projector.tables import SQL, Tables
from joblog.projections.schema.history import EVENTS_MAX
from joblog.services.embedded.stack import StackAddresses
from joblog.streams.errors import OffsetConflict, SchemaError

from tests.support import projection_settings
from tests.support.log_comparison import differences
from tests.support.projection_events import BEGINNING, Story, placed, records, rejected_event, worker_event
from tests.support.projection_settings import (
    LANES,
    apply,
)

# The fixtures that this module uses.
tables = projection_settings.tables
pytestmark = pytest.mark.database


def rows(stack: StackAddresses, schema: str, query: LiteralString) -> list[Any]:
    with psycopg.connect(stack.dsn, options=f"-c search_path={schema} -c timezone=UTC") as connection:
        return connection.execute(query).fetchall()


def counts(stack: StackAddresses, schema: str) -> dict[tuple[str, str], int]:
    found = rows(stack, schema, "SELECT queue, state::text, sum(n)::int FROM counts GROUP BY 1, 2 HAVING sum(n) <> 0")
    return {(queue, state): n for queue, state, n in found}


def outcomes(stack: StackAddresses, schema: str) -> dict[str, int]:
    return dict(rows(stack, schema, "SELECT state::text, n::int FROM outcomes WHERE period = 'ever'"))


def test_a_job_is_counted_where_it_is(stack: StackAddresses, schema: str, tables: Tables) -> None:
    story = Story().enqueued().processing().succeeded({"sum": 3})
    seen = []
    for record in records(story):
        apply(tables, [record])
        seen.append(counts(stack, schema))
    assert seen == [{("default", state): 1} for state in ("Enqueued", "Processing", "Succeeded")]
    assert outcomes(stack, schema) == {"Succeeded": 1}
    assert differences(stack.dsn, schema, records(story)) == []


def test_a_failure_that_is_retried_is_no_end(stack: StackAddresses, schema: str, tables: Tables) -> None:
    due = BEGINNING + timedelta(hours=1)
    story = Story().enqueued().processing().failed(traversed=True).scheduled(due, retry=1).enqueued(retry=1)
    story.processing().failed()
    batch = records(story)
    for record in batch:
        apply(tables, [record])
    assert outcomes(stack, schema) == {"Failed": 1}
    assert counts(stack, schema) == {("default", "Failed"): 1}
    assert differences(stack.dsn, schema, batch) == []


@pytest.mark.parametrize("size", [1, 2, 100])
def test_what_is_not_in_the_tables_is_put_right_into_them(
    stack: StackAddresses, schema: str, tables: Tables, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    due = BEGINNING + timedelta(hours=1)
    long = Story(random=99, spec={"args": [1], "parameters": {"x": 1}}).enqueued().parameter_set("x", 2).processing()
    long.priority_set(7).failed(traversed=True).scheduled(due, retry=1).enqueued(retry=1).processing().failed()
    long.moved("slow").priority_set(-7)
    batch = records(long, *(Story(random=n, queue=f"q{n % 3}").enqueued().processing().succeeded() for n in range(9)))

    def twice(*_: object) -> None:
        raise AssertionError("everything was staged")

    monkeypatch.setattr(Tables, "_put_any", twice)
    for start in range(0, len(batch), size):
        assert apply(tables, batch[start : start + size]) == []
    assert outcomes(stack, schema) == {"Succeeded": 9, "Failed": 1}
    assert counts(stack, schema)["slow", "Failed"] == 1
    assert rows(stack, schema, "SELECT priority FROM jobs WHERE queue = 'slow'") == [(-7,)]
    assert differences(stack.dsn, schema, batch) == []


def test_a_priority_that_comes_with_the_next_run_is_kept(stack: StackAddresses, schema: str, tables: Tables) -> None:
    story = Story().enqueued()
    apply(tables, records(story))
    story.priority_set(7).processing()
    apply(tables, records(story)[1:])
    assert rows(stack, schema, "SELECT priority, state::text FROM jobs") == [(7, "Processing")]
    assert differences(stack.dsn, schema, records(story)) == []


def test_a_job_that_moves_to_another_queue_is_counted_there(
    stack: StackAddresses, schema: str, tables: Tables
) -> None:
    story = Story().enqueued().processing().failed()
    apply(tables, records(story))
    story.queue = "other"
    story.enqueued()
    apply(tables, records(story)[3:])
    assert counts(stack, schema) == {("other", "Enqueued"): 1}


def test_ends_fall_into_their_hour_and_day_of_utc(stack: StackAddresses, schema: str, tables: Tables) -> None:
    late = Story(at=BEGINNING.replace(hour=23, minute=59, second=58)).enqueued().deleted()
    apply(tables, records(Story().enqueued().deleted(), late))
    assert rows(stack, schema, "SELECT period::text, since::text, n::int FROM outcomes ORDER BY 1, 2") == [
        ("day", "2026-11-23 00:00:00+00", 1),
        ("day", "2026-11-24 00:00:00+00", 1),
        ("ever", "1970-01-01 00:00:00+00", 2),
        ("hour", "2026-11-23 15:00:00+00", 1),
        ("hour", "2026-11-24 00:00:00+00", 1),
    ]


def begin_again(stack: StackAddresses, schema: str) -> Tables:
    """Tables that are full, but whose offsets are lost."""
    with psycopg.connect(stack.dsn, options=f"-c search_path={schema}") as connection:
        connection.execute("DELETE FROM offsets")
    return Tables(stack.dsn, schema, range(LANES))


def test_a_second_reading_of_the_log_changes_nothing(stack: StackAddresses, schema: str, tables: Tables) -> None:
    stories = [Story(random=n).enqueued().processing().succeeded() for n in range(1, 20)]
    stories[3].created_again().enqueued().deleted()
    whole = records(*stories)
    apply(tables, whole)
    again = begin_again(stack, schema)
    apply(again, whole[:7])
    apply(again, whole[7:13])
    apply(again, whole[13:])
    again.close()
    assert counts(stack, schema) == {("default", "Succeeded"): 18, ("default", "Deleted"): 1}
    assert outcomes(stack, schema) == {"Succeeded": 19, "Deleted": 1}
    assert differences(stack.dsn, schema, whole) == []


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_job_that_is_created_again_begins_another_life(
    stack: StackAddresses, schema: str, tables: Tables, size: int
) -> None:
    story = Story(spec={"args": ["first"], "parameters": {"x": 1}}).enqueued().parameter_set("y", 2)
    story.processing().failed(traversed=True).scheduled(BEGINNING, retry=1).enqueued(retry=1).processing().succeeded()
    story.created_again(spec={"args": ["second"]}, queue="other").enqueued().processing().failed()
    story.created_again(spec={"args": ["third"]}, queue="third").enqueued().processing()
    neighbour = Story(random=9).enqueued().processing()
    batch = records(neighbour, story)
    for start in range(0, len(batch), size):
        assert apply(tables, batch[start : start + size]) == []
    assert rows(stack, schema, "SELECT state::text, version, spec, parameters FROM jobs WHERE queue = 'third'") == [
        ("Processing", 2, {"args": ["third"]}, None)
    ]
    assert counts(stack, schema) == {("third", "Processing"): 1, ("default", "Processing"): 1}
    assert outcomes(stack, schema) == {"Succeeded": 1, "Failed": 1}
    assert differences(stack.dsn, schema, batch) == []


def test_a_repeat_that_goes_beyond_what_is_known_sets_no_old_parameter(
    stack: StackAddresses, schema: str, tables: Tables
) -> None:
    story = Story().enqueued().parameter_set("x", "old").parameter_set("x", "new")
    apply(tables, records(story))
    story.parameter_set("y", 1)
    repeated = records(story, first_offset=3)[1:2] + records(story, first_offset=3)[3:]
    assert apply(tables, repeated) == []
    assert rows(stack, schema, "SELECT parameters, version FROM jobs") == [({"x": "new", "y": 1}, 4)]


def test_a_hole_in_the_versions_is_remarked_and_passed_over(
    stack: StackAddresses, schema: str, tables: Tables
) -> None:
    first, second = Story(random=1).enqueued().processing().succeeded(), Story(random=2).enqueued().processing()
    del first.values[1]
    del second.values[0]
    batch = records(first, second)
    aside = [*apply(tables, batch[:1]), *apply(tables, batch[1:])]
    assert [(one.code, one.record.offset) for one in aside] == [("version_gap", 1), ("version_gap", 2)]
    assert rows(stack, schema, "SELECT code, log_offset, reason FROM parked ORDER BY log_offset") == [
        ("version_gap", 1, f"job {first.id} went from version 1 to 3"),
        ("version_gap", 2, f"job {second.id} went from version 0 to 2"),
    ]
    assert counts(stack, schema) == {("default", "Succeeded"): 1, ("default", "Processing"): 1}
    assert differences(stack.dsn, schema, batch) == []


def test_a_job_that_ended_and_was_forgotten_goes_on(stack: StackAddresses, schema: str, tables: Tables) -> None:
    story = (
        Story(spec={"args": [1], "parameters": {"x": 1}}).enqueued().parameter_set("x", 2).processing().succeeded()
    )
    apply(tables, records(story))
    story.enqueued(spec=story.spec).processing().succeeded()
    batch = records(story)
    apply(tables, batch[4:])
    assert rows(stack, schema, "SELECT parameters, version FROM jobs") == [({"x": 2}, 7)]
    assert outcomes(stack, schema) == {"Succeeded": 2}
    assert differences(stack.dsn, schema, batch) == []


def test_workers_and_rejected_commands_are_kept(stack: StackAddresses, schema: str, tables: Tables) -> None:
    later = BEGINNING + timedelta(minutes=1)
    values = [
        worker_event("worker.started"),
        worker_event("worker.alive", at=later, slots=8),
        worker_event("worker.started", "w-2"),
        worker_event("worker.lost", "w-2", at=later),
        rejected_event(job_id=Story(random=1).id),
        rejected_event(code="invalid"),
    ]
    apply(tables, placed([(0, value) for value in values]))
    apply(tables, placed([(1, worker_event("worker.started", slots=1))]))
    assert rows(stack, schema, "SELECT id, state, slots, heartbeat FROM workers ORDER BY id") == [
        ("host-1:4711", "running", 8, later),
        ("w-2", "lost", 4, later),
    ]
    assert rows(stack, schema, "SELECT log_offset, code FROM rejected ORDER BY 1") == [
        (4, "unknown_job"),
        (5, "invalid"),
    ]


def test_what_a_lane_says_of_a_worker_last_is_true_whatever_the_clocks_say(
    stack: StackAddresses, schema: str, tables: Tables
) -> None:
    earlier, later = BEGINNING - timedelta(minutes=5), BEGINNING + timedelta(minutes=1)
    told: list[tuple[int, bytes | None]] = [
        (0, worker_event("worker.started", at=later)),
        (0, worker_event("worker.lost", at=BEGINNING)),
        (1, worker_event("worker.alive", at=earlier)),
        (1, worker_event("worker.started", "w-2", at=later)),
        (2, worker_event("worker.stopped", "w-2", at=later)),
    ]
    for record in placed(told):
        apply(tables, [record])
    found = "SELECT id, state, lane, log_offset FROM workers ORDER BY id"
    assert rows(stack, schema, found) == [("host-1:4711", "lost", 0, 1), ("w-2", "stopped", 2, 0)]
    assert differences(stack.dsn, schema, placed(told)) == []
    again = begin_again(stack, schema)
    apply(again, placed(told))
    again.close()
    assert differences(stack.dsn, schema, placed(told)) == []
    with psycopg.connect(stack.dsn, options=f"-c search_path={schema}") as connection:
        connection.execute("UPDATE workers SET slots = 7 WHERE id = 'w-2'")
    assert len(differences(stack.dsn, schema, placed(told))) == 1
    assert len(differences(stack.dsn, schema, placed(told)[:3])) == 1


def test_a_batch_that_is_cut_again_and_again_shows_that_it_lives(
    stack: StackAddresses, schema: str, tables: Tables
) -> None:
    beats: list[None] = []
    made = Tables(stack.dsn, schema, range(LANES), beat=lambda: beats.append(None))
    apply(made, records(Story(random=1).enqueued(reason="\x00"), *(Story(random=n).enqueued() for n in range(2, 65))))
    made.close()
    assert len(beats) == 1 + 2 * 6


def test_every_batch_has_a_plan_of_its_own(tables: Tables) -> None:
    for n, record in enumerate(records(*(Story(random=n).enqueued() for n in range(1, 13)))):
        apply(tables, [record])
        assert tables.positions[0] == n + 1
    prepared = tables._connection.execute("SELECT statement FROM pg_prepared_statements").fetchall()
    assert [one for (one,) in prepared if "staged_jobs" in one or "staged_moves" in one] == []


def test_the_jobs_of_a_batch_are_found_without_reading_all(
    stack: StackAddresses, schema: str, tables: Tables
) -> None:
    stories = [Story(random=n).enqueued() for n in range(1, 2_001)]
    apply(tables, records(*stories))
    batch = Entries(records(*(story.processing() for story in stories))).build({})
    with tables._connection.transaction(force_rollback=True), tables._connection.cursor() as cursor:
        with cursor.copy(SQL["copy_jobs"]) as copy:
            for row in batch.jobs.values():
                copy.write_row(job_row(row))
        plan = "\n".join(line for (line,) in cursor.execute(b"EXPLAIN " + SQL["apply_jobs"].encode()))
    assert "jobs_pkey" in plan
    assert "Seq Scan on jobs" not in plan


@pytest.mark.parametrize(
    ("statement", "happened"),
    [
        ("move_jobs", lambda story: story.processing()),
        ("change_jobs", lambda story: story.parameter_set("x", 1)),
    ],
)
def test_jobs_that_go_on_are_found_by_their_id_and_moved_by_their_place(
    stack: StackAddresses, schema: str, tables: Tables, statement: str, happened: Callable[[Story], Any]
) -> None:
    stories = [Story(random=n).enqueued() for n in range(1, 2_001)]
    apply(tables, records(*stories))
    batch = Entries(records(*(happened(story) for story in stories))[1::2]).batch()
    with tables._connection.transaction(force_rollback=True), tables._connection.cursor() as cursor:
        assert tables._copy_blocks(batch.jobs.values()) == [statement]
        plan = "\n".join(line for (line,) in cursor.execute(b"EXPLAIN " + SQL[statement].encode()))
    assert "jobs_pkey" in plan
    assert "Tid Scan on jobs" in plan
    assert "Seq Scan on jobs" not in plan


def test_a_job_with_many_events_has_them_in_rows_of_a_few(stack: StackAddresses, schema: str, tables: Tables) -> None:
    story = Story().enqueued()
    for number in range(EVENTS_MAX * 2):
        story.parameter_set("x", number)
    story.processing().succeeded()
    batch = records(story)
    apply(tables, batch[:-1])
    apply(tables, batch[-1:])
    found = "SELECT version, last_version, cardinality(events) FROM history ORDER BY version"
    assert rows(stack, schema, found) == [
        (1, EVENTS_MAX, EVENTS_MAX),
        (EVENTS_MAX + 1, EVENTS_MAX * 2, EVENTS_MAX),
        (EVENTS_MAX * 2 + 1, EVENTS_MAX * 2 + 2, 2),
        (EVENTS_MAX * 2 + 3, EVENTS_MAX * 2 + 3, 1),
    ]
    assert differences(stack.dsn, schema, batch) == []


def test_an_event_that_is_in_a_row_with_others_is_not_kept_twice(
    stack: StackAddresses, schema: str, tables: Tables
) -> None:
    story = Story().enqueued().processing().failed().enqueued().processing().succeeded()
    whole = records(story)
    apply(tables, whole)
    again = begin_again(stack, schema)
    for record in whole[2:4]:
        apply(again, [record])
    again.close()
    assert rows(stack, schema, "SELECT version, last_version FROM history") == [(1, 6)]
    assert outcomes(stack, schema) == {"Failed": 1, "Succeeded": 1}


def test_values_that_a_block_cannot_hold_are_done_the_general_way(
    stack: StackAddresses, schema: str, tables: Tables
) -> None:
    story = Story(random=1, task="demo.\ud800").enqueued()
    other = Story(random=2).event("job.enqueued", "Enqueued", attempt=2**31, spec={})
    good = Story(random=3).enqueued()
    aside = apply(tables, records(story, other, good))
    assert [one.record.offset for one in aside] == [0, 1]
    assert counts(stack, schema) == {("default", "Enqueued"): 1}


def test_a_record_that_postgres_refuses_stands_alone(stack: StackAddresses, schema: str, tables: Tables) -> None:
    stories = [Story(random=n).enqueued() for n in range(1, 101)]
    stories[10].processing(reason="\x00")
    stories[50].parameter_set("x", "\x00")
    stories[70].parameter_set("x", float("1e300") * 10)
    stories[90].event("job.enqueued", "Enqueued", attempt=2**40)
    stories[91].succeeded(2**80)
    batch = records(*stories)
    aside = apply(tables, batch)
    assert [(one.code, one.reason.partition(":")[0]) for one in aside] == [
        ("refused", "Postgres refused it (DataError)"),
        ("refused", "Postgres refused it (22P05)"),
        ("refused", "Postgres refused it (22003)"),
    ]
    kept = rows(stack, schema, "SELECT code, lane, log_offset, raw FROM parked ORDER BY log_offset")
    assert kept == [("refused", 0, one.record.offset, one.record.value) for one in aside]
    assert counts(stack, schema) == {("default", "Enqueued"): 99, ("default", "Succeeded"): 1}
    assert tables.positions[0] == len(batch)
    assert differences(stack.dsn, schema, batch) == []


def test_a_failure_of_what_goes_on_meanwhile_is_no_fault_of_the_records(
    stack: StackAddresses, schema: str, tables: Tables
) -> None:
    def meanwhile() -> None:
        raise KeyError("elsewhere")

    entries = Entries(records(Story().enqueued()))
    with pytest.raises(KeyError, match="elsewhere"):
        tables.apply(entries, meanwhile)
    assert tables.apply(entries, lambda: None) == []
    assert rows(stack, schema, "SELECT count(*)::int FROM parked") == [(0,)]


def test_what_is_no_event_is_set_aside_as_it_came(stack: StackAddresses, schema: str, tables: Tables) -> None:
    good = Story().enqueued().values[0]
    apply(tables, placed([(0, b"\xff\x00{"), (0, None), (0, good), (0, good.replace(b"enqueued", b"vanished"))]))
    assert rows(stack, schema, "SELECT log_offset, code, raw FROM parked ORDER BY 1") == [
        (0, "undecodable", b"\xff\x00{"),
        (1, "undecodable", None),
        (3, "unknown_type", good.replace(b"enqueued", b"vanished")),
    ]
    assert counts(stack, schema) == {("default", "Enqueued"): 1}


def test_nothing_but_broken_records_moves_the_offsets(tables: Tables) -> None:
    assert len(apply(tables, placed([(1, b"{"), (1, b"[")]))) == 2
    assert tables.positions == {0: 0, 1: 2, 2: 0}


def test_json_comes_back_as_it_was_written(stack: StackAddresses, schema: str, tables: Tables) -> None:
    spec = '{"args":[1.50, 1E300,"\\u0000"],  "kwargs":{"b":1,"a":2,"b":3}}'
    value = Story().enqueued().values[0].replace(b'{"args":[1,2],"kwargs":{"unit":"m"}}', spec.encode())
    assert apply(tables, placed([(0, value)])) == []
    assert rows(stack, schema, "SELECT spec::text FROM jobs") == [(spec,)]


def test_a_second_writer_of_the_same_lanes_is_told(stack: StackAddresses, schema: str, tables: Tables) -> None:
    story = Story().enqueued().processing()
    other = Tables(stack.dsn, schema, range(LANES))
    apply(tables, records(story))
    with pytest.raises(OffsetConflict, match="another projector"):
        apply(other, records(story))
    other.close()
    assert differences(stack.dsn, schema, records(story)) == []


def test_two_writers_of_different_lanes_get_on(stack: StackAddresses, schema: str, tables: Tables) -> None:
    first, second = Story(lane=0).enqueued(), Story(lane=1).enqueued()
    other = Tables(stack.dsn, schema, [1])
    apply(tables, records(first))
    apply(other, records(second))
    other.close()
    assert counts(stack, schema) == {("default", "Enqueued"): 2}


def test_a_failed_batch_leaves_nothing(stack: StackAddresses, schema: str, tables: Tables) -> None:
    story = Story().enqueued().processing()

    def cut_off() -> None:
        with psycopg.connect(stack.dsn, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'joblog-projector' AND pid = %s",
                [tables._connection.info.backend_pid],
            )

    # The statements may be through before the end of the connection; the commit is not.
    with pytest.raises(psycopg.OperationalError):
        tables.apply(Entries(records(story)), cut_off)
    assert counts(stack, schema) == {}
    again = Tables(stack.dsn, schema, range(LANES))
    assert again.positions == {0: 0, 1: 0, 2: 0}
    apply(again, records(story))
    again.close()
    assert differences(stack.dsn, schema, records(story)) == []


def test_without_its_tables_a_writer_says_what_to_do(stack: StackAddresses, schema: str) -> None:
    with pytest.raises(SchemaError, match="joblog migrate"):
        Tables(stack.dsn, schema, range(LANES))
