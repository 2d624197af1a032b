from datetime import UTC, datetime, timedelta

import pytest
from joblog.streams.contract.ids import lane_of_job, lane_of_queue
from joblog.streams.contract.recurring import Definition, Pause, Progress, Skip, record_key
from joblog.streams.errors import InvalidData
from joblog.streams.recurring.jobs import Installation, job_of
from joblog.streams.recurring.rows import Rows, encode_aspect

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DEFINITION = Definition(id="a", schedule="0 * * * *", task="t", queue="q", starts_at=NOON)


def put(rows: Rows, aspect: Definition | Pause | Skip | Progress) -> None:
    rows.apply(record_key("a", type(aspect)).encode(), encode_aspect(aspect))


def test_each_aspect_is_kept_whatever_is_written_after_it() -> None:
    rows, pause, progress = Rows(), Pause(paused=True, at=NOON), Progress(through=NOON)
    put(rows, pause)
    put(rows, progress)
    put(rows, DEFINITION)
    row = rows.rows["a"]
    assert (row.definition, row.pause, row.progress) == (DEFINITION, pause, progress)


def test_a_later_progress_is_not_undone_by_a_process_that_comes_late() -> None:
    rows, later = Rows(), Progress(through=NOON)
    put(rows, later)
    put(rows, Progress(through=NOON - timedelta(hours=1)))
    assert rows.rows["a"].progress == later


def test_tombstones_remove_all_of_a_row() -> None:
    rows = Rows()
    put(rows, DEFINITION)
    put(rows, Progress(through=NOON))
    for kind in (Definition, Progress):
        rows.apply(record_key("a", kind).encode(), None)
    assert rows.rows == {}


def test_a_definition_that_cannot_be_used_says_why_and_is_usable_when_corrected() -> None:
    rows = Rows()
    put(rows, DEFINITION.model_copy(update={"zone": "Mars/Olympus"}))
    assert "Mars/Olympus" in (rows.rows["a"].error or "")
    assert rows.rows["a"].upcoming(NOON, 1) == []
    put(rows, DEFINITION)
    assert rows.rows["a"].error is None
    assert rows.rows["a"].upcoming(NOON, 1) == [NOON + timedelta(hours=1)]


def test_a_record_that_cannot_be_read_changes_nothing() -> None:
    rows = Rows()
    put(rows, DEFINITION)
    for key, value in ((b"a", b"{"), (b"\xff", b"{}"), (b"a", b'{"id": "a"}')):
        with pytest.raises(InvalidData):
            rows.apply(key, value)
    rows.apply(b"a|of a newer version", b"what it means")
    assert rows.rows["a"].definition == DEFINITION


def test_the_next_occurrences_leave_out_pauses_and_what_is_skipped() -> None:
    rows = Rows()
    put(rows, DEFINITION)
    row = rows.rows["a"]
    hours = [NOON + timedelta(hours=n) for n in range(1, 6)]
    put(rows, Skip(after=NOON))
    assert row.upcoming(NOON, 2) == hours[1:3]
    put(rows, Pause(paused=True, at=NOON, until=hours[2]))
    assert row.upcoming(NOON, 2) == hours[3:5]
    put(rows, Pause(paused=True, at=NOON))
    assert row.upcoming(NOON, 2) == []


def test_an_occurrence_has_one_job_id_in_a_lane_of_its_queue() -> None:
    where = Installation(8, {"q": 3}, {})
    ids = [job_of(DEFINITION, NOON + timedelta(seconds=n), where) for n in range(100)]
    assert len(set(ids)) == len(ids)
    assert ids == [job_of(DEFINITION, NOON + timedelta(seconds=n), where) for n in range(100)]
    first = lane_of_queue("q", 8)
    assert {lane_of_job(one) for one in ids} == {(first + shard) % 8 for shard in range(3)}
    assert job_of(DEFINITION.model_copy(update={"id": "b"}), NOON, where) not in ids


def test_what_is_due_before_a_pause_comes_in_time_though_the_clock_of_who_paused_is_ahead() -> None:
    """The process has read the pause before it begins by its own clock."""
    rows, now = Rows(), NOON + timedelta(minutes=59)
    put(rows, DEFINITION)
    put(rows, Pause(paused=True, at=NOON + timedelta(minutes=61)))
    row = rows.rows["a"]
    assert row.look_again(now) == NOON + timedelta(hours=1)
    put(rows, Pause(paused=True, at=now, until=NOON + timedelta(hours=2)))
    assert row.look_again(now) == NOON + timedelta(hours=2)
