import pytest
from joblog.streams.contract.states import FINAL_STATES, ContinueOn, State
from joblog.streams.lane.verdicts import VERDICTS, reason, verdict


def test_every_condition_has_a_verdict_on_every_end() -> None:
    assert VERDICTS.keys() == set(ContinueOn)
    assert all(row.keys() == FINAL_STATES for row in VERDICTS.values())


@pytest.mark.parametrize("on", ContinueOn)
@pytest.mark.parametrize("state", sorted(set(State) - FINAL_STATES))
def test_a_continuation_waits_while_its_parent_may_still_go_on(on: ContinueOn, state: State) -> None:
    assert verdict(on, state) == "wait"


@pytest.mark.parametrize(
    ("on", "succeeded", "deleted", "failed"),
    [
        (ContinueOn.SUCCEEDED, "run", "delete", "wait"),
        (ContinueOn.DELETED, "delete", "run", "wait"),
        (ContinueOn.FAILED, "delete", "delete", "run"),
        (ContinueOn.FINISHED, "run", "run", "wait"),
        (ContinueOn.ENDED, "run", "run", "run"),
    ],
)
def test_a_continuation_runs_is_deleted_or_waits_on(
    on: ContinueOn, succeeded: str, deleted: str, failed: str
) -> None:
    assert verdict(on, State.SUCCEEDED) == succeeded
    assert verdict(on, State.DELETED) == deleted
    assert verdict(on, State.FAILED) == failed


def test_the_history_says_how_the_parent_ended() -> None:
    assert reason("p", State.SUCCEEDED, "run") == "Job p ended as Succeeded"
    assert reason("p", State.DELETED, "delete") == "Continuation condition was not met: job p ended as Deleted"
