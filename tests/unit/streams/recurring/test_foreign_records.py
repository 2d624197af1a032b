"""Records that anybody may write into `recurring`: each is refused, or leads to decisions; nothing else is raised."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblog.streams.contract.recurring import (
    Definition,
    Interval,
    Misfire,
    Overlap,
    Pause,
    Progress,
    Skip,
    record_key,
)
from joblog.streams.errors import ContractError, InvalidData
from joblog.streams.recurring.due import decide
from joblog.streams.recurring.jobs import Installation
from joblog.streams.recurring.plan import plan
from joblog.streams.recurring.rows import Row, Rows

from tests.support.mutations import Written, mutated

NOW = datetime(2026, 11, 29, 9, 30, 0, 500_000, tzinfo=UTC)
WHERE = Installation(4, {}, {})
INSTANTS = st.sampled_from(
    [
        NOW,
        NOW - timedelta(minutes=3),
        NOW + timedelta(days=400),
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
    ]
)
SOMETIMES = st.none() | INSTANTS
ZONES = st.sampled_from(["UTC", "America/New_York", "Pacific/Kiritimati", "Mars/Olympus", "", "..", "a\0b", "Europe"])
CRONS = st.sampled_from(["* * * * * *", "30 2 * * *", "0 0 29 2 *", "0 0 L * *", "0 0 * * 5#2", "@daily"])
TEXTS = CRONS | st.text(alphabet="0123456789*/-,#L? @", max_size=20) | st.text(max_size=20)
INTERVALS = st.builds(Interval, every_s=st.sampled_from([1, 7, 86_400, 3_155_760_000]), anchor=INSTANTS)
DEFINITIONS = st.builds(
    Definition,
    id=st.just("a"),
    schedule=TEXTS | INTERVALS,
    zone=ZONES,
    task=st.just("t"),
    starts_at=INSTANTS,
    misfire=st.sampled_from(Misfire),
    misfire_cap=st.just(3),
    overlap=st.sampled_from(Overlap),
)
PAUSES = st.builds(Pause, paused=st.booleans(), at=INSTANTS, until=SOMETIMES, after=SOMETIMES)
SKIPS = st.builds(Skip, after=INSTANTS)
PROGRESS = st.builds(
    Progress,
    through=INSTANTS,
    last_job_id=st.sampled_from([None, "01a31bcf-c400-8fff-8000-00000000002a"]),
    last_created_at=SOMETIMES,
    waiting=SOMETIMES,
)


def go_through(row: Row, *, is_running: bool) -> None:
    """Everything that a process and a client do with a row."""
    for now in (NOW, NOW + timedelta(minutes=1)):
        row.look_again(now)
        row.upcoming(now, 3)
        if row.definition is None or row.schedule is None:
            continue
        decision = decide(
            row.definition, row.schedule, row.pause, row.skip, row.progress, is_running=is_running, now=now
        )
        if decision is not None:
            made = plan(row, decision, now, WHERE)
            made.notes(now)
            row.progress = made.progress(now)


@settings(max_examples=150, deadline=None)
@given(DEFINITIONS, st.none() | PAUSES, st.none() | SKIPS, st.none() | PROGRESS, st.booleans(), st.integers())
def test_any_valid_record_leads_to_decisions_and_any_other_is_refused(
    definition: Definition,
    pause: Pause | None,
    skip: Skip | None,
    progress: Progress | None,
    is_running: bool,
    seed: int,
) -> None:
    rows, random = Rows(), Random(seed)
    for aspect in (definition, pause, skip, progress):
        if aspect is None:
            continue
        key, value = record_key("a", type(aspect)).encode(), aspect.model_dump_json().encode()
        rows.apply(key, value)
        wrong = mutated(random, Written("recurring", key, value))
        with suppress(ContractError):
            rows.apply(wrong.key or b"", wrong.value)
    for row in list(rows.rows.values()):
        go_through(row, is_running=is_running)


def test_a_definition_is_refused_under_the_key_of_another() -> None:
    rows, made = Rows(), Definition(id="b", schedule="@daily", task="t", starts_at=NOW)
    with pytest.raises(InvalidData, match="the definition of b has the key 'a'"):
        rows.apply(b"a", made.model_dump_json().encode())
    assert rows.rows == {}
