"""What a decision becomes: why each job is created, and what is remembered of the occurrences without one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.streams.contract.recurring import (
    SKIPPED_MAX,
    Cause,
    Definition,
    Misfire,
    Overlap,
    Progress,
    Skip,
    Skipped,
    record_key,
)
from joblog.streams.recurring.due import MISFIRED, OVERLAPPED, decide
from joblog.streams.recurring.jobs import Installation
from joblog.streams.recurring.plan import Plan, plan
from joblog.streams.recurring.rows import Row, encode_aspect
from joblog.streams.recurring.schedule import schedule_of
from msgspec import json

START = datetime(2026, 1, 1, tzinfo=UTC)
JOB = "00aa1ebf-3759-8003-b6cc-e905a6c5079c"


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def planned(
    minutes: float,
    progress: Progress | None = None,
    *,
    is_running: bool = False,
    skip: Skip | None = None,
    **given: Any,
) -> Plan:
    """The plan for a definition that comes every minute, so many minutes after its start."""
    definition = Definition(id="a", schedule="* * * * *", task="t", parameters={"x": 1}, starts_at=START, **given)
    row = Row("a", definition, skip=skip, progress=progress, schedule=schedule_of(definition))
    decision = decide(
        definition, schedule_of(definition), None, skip, progress, is_running=is_running, now=at(minutes)
    )
    assert decision is not None
    return plan(row, decision, at(minutes), Installation(4, {}, {}))


def causes(made: Plan) -> list[tuple[str, str]]:
    """Occurrence and cause of each job, as its parameters have them."""
    parameters = [json.decode(one.value)["data"]["parameters"] for one in made.commands]
    return [(one["Time"], one["Cause"]) for one in parameters]


def test_a_job_says_whose_it_is_which_occurrence_and_why() -> None:
    [command] = planned(1.1).commands
    assert json.decode(command.value)["data"]["parameters"] == {
        "x": 1,
        "RecurringJobId": "a",
        "Time": "2026-01-01T00:01:00.000Z",
        "Cause": "schedule",
    }


@pytest.mark.parametrize(
    ("minutes", "given", "expected"),
    [
        # On time, and as late as is tolerated.
        (1.5, {}, [("2026-01-01T00:01:00.000Z", Cause.SCHEDULE)]),
        (1.6, {}, [("2026-01-01T00:01:00.000Z", Cause.MISFIRE)]),
        (1.6, {"misfire_tolerance_s": 60}, [("2026-01-01T00:01:00.000Z", Cause.SCHEDULE)]),
        # One for several that were missed.
        (3.1, {}, [("2026-01-01T00:03:00.000Z", Cause.MISFIRE)]),
        # Each that was missed, and the one that is due now.
        (
            3.1,
            {"misfire": Misfire.STRICT},
            [
                ("2026-01-01T00:01:00.000Z", Cause.MISFIRE),
                ("2026-01-01T00:02:00.000Z", Cause.MISFIRE),
                ("2026-01-01T00:03:00.000Z", Cause.SCHEDULE),
            ],
        ),
        (3.1, {"misfire": Misfire.IGNORABLE}, [("2026-01-01T00:03:00.000Z", Cause.SCHEDULE)]),
    ],
)
def test_the_cause_tells_what_was_missed(minutes: float, given: Any, expected: list[tuple[str, str]]) -> None:
    assert causes(planned(minutes, **given)) == expected


def test_what_waited_for_the_job_before_says_so() -> None:
    waited = Progress(through=at(2), waiting=at(2))
    assert causes(planned(2.9, waited, overlap=Overlap.QUEUE)) == [("2026-01-01T00:02:00.000Z", Cause.QUEUE)]


def test_occurrences_that_were_left_out_are_remembered_with_the_reason() -> None:
    made = planned(3.1, misfire=Misfire.STRICT, misfire_cap=1)
    assert made.progress(None).skipped == (
        Skipped(occurrence=at(1), reason=MISFIRED, at=at(3.1)),
        Skipped(occurrence=at(2), reason=MISFIRED, at=at(3.1)),
    )
    after = planned(4.1, made.progress(None), overlap=Overlap.SKIP, is_running=True).progress(None)
    assert after.skipped == (*made.progress(None).skipped, Skipped(occurrence=at(4), reason=OVERLAPPED, at=at(4.1)))
    assert (after.last_skipped, after.skipped_for) == (at(4), OVERLAPPED)


def test_only_the_last_ones_that_were_left_out_are_remembered() -> None:
    progress: Progress | None = None
    for minute in range(1, SKIPPED_MAX + 4):
        progress = planned(minute, progress, overlap=Overlap.SKIP, is_running=True).progress(None)
    assert progress is not None
    assert [one.occurrence for one in progress.skipped] == [at(n) for n in range(4, SKIPPED_MAX + 4)]
    assert Progress.model_validate_json(progress.model_dump_json()) == progress


def test_what_is_noted_has_the_time_at_which_brokers_stored_the_command() -> None:
    made, stored_at = planned(1), START - timedelta(days=1)
    (job_id,) = (one.job_id for one in made.commands)
    expected = Progress(through=at(1), last_job_id=job_id, last_occurrence=at(1), last_created_at=stored_at)
    assert made.progress(stored_at) == expected
    assert made.notes(stored_at) == [(record_key("a", Progress), encode_aspect(expected))]


def test_a_new_job_has_not_ended_though_the_one_before_has() -> None:
    before = Progress(through=at(0), last_job_id=JOB, last_created_at=at(0), last_ended_at=at(0))
    made = planned(1, before, overlap=Overlap.SKIP)
    assert (made.decided.last_ended_at, made.awaited) == (None, made.commands[0].job_id)
    assert planned(1, before, overlap=Overlap.ALLOW).awaited is None


def test_an_occurrence_that_is_left_out_leaves_the_last_job_as_it_was() -> None:
    before = Progress(through=START, last_job_id=JOB, last_occurrence=START, last_created_at=START)
    made = planned(1, before, overlap=Overlap.SKIP, is_running=True)
    assert made.commands == ()
    after = made.progress(at(5))
    assert (after.last_job_id, after.last_occurrence, after.last_created_at) == (JOB, START, START)


def test_a_job_that_is_replaced_is_deleted_before_the_next_one_is_created() -> None:
    before = Progress(through=START, last_job_id=JOB, last_created_at=START)
    made = planned(1, before, overlap=Overlap.REPLACE, is_running=True)
    assert [one.job_id == JOB for one in made.commands] == [True, False]


def test_a_skip_is_taken_back_when_its_occurrence_has_passed_and_not_before() -> None:
    tombstone, skip = (record_key("a", Skip), None), Skip(after=at(1.5))
    assert tombstone not in planned(1, skip=skip).notes(START)
    assert tombstone in planned(2, skip=skip).notes(START)
