"""The question that a change makes: what is refused, and that chance is what it was."""

from typing import Any

import pytest
from joblog.services.replay.what_if import Change, _question
from joblog.services.settings.model import Settings
from joblog.streams.contract.retry import Curve, Retry, RetryPolicy, delay_s, jitter
from joblog.streams.errors import InvalidData

from tests.support.scene import NEVER, Pause, id_of, run_failed
from tests.unit.streams.replay.test_what_if import recorded

SETTINGS = Settings(lanes=1)


def test_delays_have_the_jitter_that_the_electors_gave_them() -> None:
    history = recorded((Pause(2_000), run_failed("a", 2)), retry=NEVER)
    found = _question(SETTINGS, Change(retry=RetryPolicy(attempts=3))).otherwise.of(history)
    job, policy = id_of("a"), Retry(attempts=3)
    assert policy.curve is Curve.HANGFIRE
    assert found.retries == 3
    assert found.waited_ms == sum(round(delay_s(policy, n, jitter(job, n)) * 1_000) for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("change", "said"),
    [({}, "nothing would be otherwise"), ({"removed": ["other"]}, "no filter other to leave out; there are retry")],
)
def test_a_change_that_changes_nothing_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidData, match=said):
        _question(SETTINGS, Change(**change))


def test_questions_differ_by_all_that_is_asked() -> None:
    asked = [
        Change(retry=RetryPolicy(attempts=3)),
        Change(retry=RetryPolicy(attempts=4)),
        Change(retry=RetryPolicy(attempts=3), task="t"),
        Change(retry=RetryPolicy(attempts=3), removed=["retry"]),
    ]
    texts = [_question(SETTINGS, one).asked for one in asked]
    assert all(one != other for place, one in enumerate(texts) for other in texts[:place])
    assert texts[0] == _question(SETTINGS, asked[0]).asked
