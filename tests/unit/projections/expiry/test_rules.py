from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblog.projections.expiry.rules import (
    EXPIRING,
    Rules,
    cutoffs,
    has_expired,
    is_idle,
    kept_s,
    read,
    written,
)
from joblog.streams.contract.states import State

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
DAY = 86_400.0
DEFAULT = Rules({State.SUCCEEDED: DAY, State.DELETED: DAY, State.FAILED: 30 * DAY})

names = st.sampled_from(["a", "b", "c"])
said = st.dictionaries(st.sampled_from(EXPIRING), st.none() | st.floats(0, 1e6), max_size=3)
rules = st.builds(Rules, said, st.dictionaries(names, said), st.dictionaries(names, said))
instants = st.integers(-2_000_000, 1_000).map(lambda s: NOW + timedelta(seconds=s))


@pytest.mark.parametrize(
    ("state", "hours", "expired"),
    [
        (State.SUCCEEDED, 23, False),
        (State.SUCCEEDED, 25, True),
        (State.DELETED, 25, True),
        (State.FAILED, 25, False),
        (State.FAILED, 721, True),
        (State.ENQUEUED, 9_999, False),
        (State.PROCESSING, 9_999, False),
    ],
)
def test_a_row_expires_by_its_state_and_its_end(state: State, hours: int, expired: bool) -> None:
    assert has_expired(DEFAULT, state, "default", "t", NOW - timedelta(hours=hours), NOW) is expired


def test_what_is_kept_for_just_so_long_is_kept() -> None:
    assert not has_expired(DEFAULT, State.SUCCEEDED, "q", "t", NOW - timedelta(days=1), NOW)


def test_the_task_goes_before_the_queue_and_that_before_the_state() -> None:
    both = Rules(
        {State.SUCCEEDED: 1.0, State.FAILED: 2.0},
        {"audit": {State.SUCCEEDED: 10.0, State.FAILED: None}},
        {"pay": {State.SUCCEEDED: 100.0}},
    )
    kept: dict[tuple[Any, ...], float | None] = {
        (State.SUCCEEDED, "q", "t"): 1.0,
        (State.SUCCEEDED, "audit", "t"): 10.0,
        (State.SUCCEEDED, "audit", "pay"): 100.0,
        (State.FAILED, "audit", "pay"): None,
        (State.FAILED, "q", "pay"): 2.0,
        (State.DELETED, "audit", "pay"): None,
    }
    assert {place: kept_s(both, *place) for place in kept} == kept


@given(rules, st.sampled_from(list(State)), names, names, instants)
def test_the_cutoffs_of_statements_say_what_the_rule_says(
    rules: Rules, state: State, queue: str, task: str, ended_at: datetime
) -> None:
    cutoff = cutoffs(rules, state, task, NOW)
    before = cutoff.of(queue)
    assert (before is not None and ended_at < before) == has_expired(rules, state, queue, task, ended_at, NOW)
    assert before is None or (cutoff.latest is not None and before <= cutoff.latest)


@given(rules, st.sampled_from(EXPIRING), names, names, instants, st.floats(0, 1e6))
def test_what_has_expired_stays_so(
    rules: Rules, state: State, queue: str, task: str, ended_at: datetime, later_s: float
) -> None:
    if has_expired(rules, state, queue, task, ended_at, NOW):
        assert has_expired(rules, state, queue, task, ended_at, NOW + timedelta(seconds=later_s))


@given(rules)
def test_rules_are_read_as_they_were_written(rules: Rules) -> None:
    assert read(written(rules)) == rules


def test_rules_that_keep_all_are_idle() -> None:
    assert is_idle(Rules({State.SUCCEEDED: None}, {"q": {State.FAILED: None}}))
    assert not is_idle(Rules(queues={"q": {State.FAILED: 1.0}}))
    assert not is_idle(Rules(hours_s=1.0))
