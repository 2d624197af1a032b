"""What a decision becomes: why each job is created, and what is remembered of the occurrences without one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joblog.streams.contract.recurring import SKIPPED_MAX, Cause, Definition, Misfire, Overlap, Progress, Skipped
from joblog.streams.recurring.due import MISFIRED, OVERLAPPED, decide
from joblog.streams.recurring.jobs import Installation
from joblog.streams.recurring.plan import Plan, plan
from joblog.streams.recurring.rows import Row
from joblog.streams.recurring.schedule import schedule_of
from msgspec import json

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def planned(minutes: float, progress: Progress | None = None, *, is_running: bool = False, **given: Any) -> Plan:
    """The plan for a definition that comes every minute, so many minutes after its start."""
    definition = Definition(id="a", schedule="* * * * *", task="t", parameters={"x": 1}, starts_at=START, **given)
    row = Row("a", definition, progress=progress, schedule=schedule_of(definition))
    decision = decide(
        definition, schedule_of(definition), None, None, progress, is_running=is_running, now=at(minutes)
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
    assert made.decided.skipped == (
        Skipped(occurrence=at(1), reason=MISFIRED, at=at(3.1)),
        Skipped(occurrence=at(2), reason=MISFIRED, at=at(3.1)),
    )
    after = planned(4.1, made.decided, overlap=Overlap.SKIP, is_running=True).decided
    assert after.skipped == (*made.decided.skipped, Skipped(occurrence=at(4), reason=OVERLAPPED, at=at(4.1)))
    assert (after.last_skipped, after.skipped_for) == (at(4), OVERLAPPED)


def test_only_the_last_ones_that_were_left_out_are_remembered() -> None:
    progress: Progress | None = None
    for minute in range(1, SKIPPED_MAX + 4):
        progress = planned(minute, progress, overlap=Overlap.SKIP, is_running=True).decided
    assert progress is not None
    assert [one.occurrence for one in progress.skipped] == [at(n) for n in range(4, SKIPPED_MAX + 4)]
    assert Progress.model_validate_json(progress.model_dump_json()) == progress
